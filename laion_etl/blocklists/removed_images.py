"""Hashes of images that downloads must exclude because of removal requests."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from laion_etl.blocklists.image_hashes import HashBlocklist, PdqBlocklist
from laion_etl.blocklists.removal_requests import Request


@dataclass(frozen=True, slots=True)
class BlockedImages:
    """Image hashes that downloading must exclude because of requests."""

    hashes: HashBlocklist = field(default_factory=HashBlocklist)
    near: PdqBlocklist = field(default_factory=PdqBlocklist)


NO_IMAGES = BlockedImages()


def blocked_images(requests: Sequence[Request], pdq_distance: int) -> BlockedImages:
    """Return the image hashes of requests: exact digests and PDQ."""
    md5, sha256, pdq = (
        [bytes.fromhex(one) for request in requests for one in request.rules.get(kind, ())]
        for kind in ("md5", "sha256", "pdq")
    )
    return BlockedImages(HashBlocklist(md5, sha256), PdqBlocklist(pdq, pdq_distance))
