"""Keys of the locator: 64-bit hashes of everything by which a removal request can match a row.

Domains and URLs are hashed as in blocklists, pairs are the first half of their id, MD5 and SHA-256 are hashed
as text. A key says of which kind it is: its hash is combined with a constant of the kind. PDQ hashes are kept
as they are, because near ones have to be found: a request may differ in up to 31 of 256 bits, so bands that
could be looked up would take 16 entries per image and still match one image in 250 by chance.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from laion_etl.blocklists.column_masks import compared_hashes
from laion_etl.blocklists.hashes import hash_names
from laion_etl.blocklists.link_keys import link_keys
from laion_etl.blocklists.near_hashes import HASH_BYTES
from laion_etl.blocklists.near_hashes import Hashes as PdqHashes
from laion_etl.blocklists.removal_requests import Request
from laion_etl.blocklists.turned_hashes import turned
from laion_etl.core.kernels import Hashes
from laion_etl.core.schemas import pair_id
from laion_etl.urls import normalize

# The first 8 bytes of the SHA-256 of "laion_etl locator <kind>".
_HOST, _PARENT, _LINK, _PAIR, _IMAGE = (
    np.uint64(value)
    for value in (
        0xE29BBD62DED4CE88,
        0x2783C1BE11529012,
        0xA75F2736FCB45E2F,
        0xC401016ADEFECE74,
        0xD380B0B92EA1DCEB,
    )
)
_NO_KEYS: Hashes = np.empty(0, np.uint64)


@dataclass(frozen=True, slots=True)
class RowKeys:
    """Keys of some rows: `keys` ascending and distinct, `pdq` (n, 32) in any order."""

    keys: Hashes
    pdq: PdqHashes


@dataclass(frozen=True, slots=True)
class WantedKeys:
    """What is looked up: `keys` ascending, and `pdq` (n, 32), which may differ in `pdq_distance` bits."""

    keys: Hashes
    pdq: PdqHashes = field(default_factory=lambda: np.empty((0, HASH_BYTES), np.uint8))
    pdq_distance: int = 0

    def joined(self, other: "WantedKeys") -> "WantedKeys":
        """Return these keys with those of pairs (`wanted_pairs`)."""
        return replace(self, keys=np.union1d(self.keys, other.keys))


def row_keys(rows: pa.RecordBatch) -> RowKeys:
    """Return the keys of rows, which may have the columns pair_id, url, caption, md5, sha256 and pdq.

    PDQ hashes by which no image is recognised, for their `pdq_quality`, are left out.
    While requests by earlier URL rules exist, a URL is also hashed in the form of each of these rules.
    """
    has = set(rows.schema.names)
    found = [_pair_keys(rows.column("pair_id").to_pylist())] if "pair_id" in has else []
    if "url" in has:
        urls = rows.column("url").cast(pa.string())
        found += _link_keys(urls)
        if normalize.EARLIER_RULES:
            some = pa.array(normalize.may_have_other_forms(urls))
            captions = rows.column("caption").filter(some).to_pylist() if "caption" in has else None
            found += _keys_of_forms(urls.filter(some).to_pylist(), captions)
    found += [_image_keys(rows.column(kind)) for kind in ("md5", "sha256") if kind in has]
    return RowKeys(
        np.unique(np.concatenate(found)) if found else _NO_KEYS,
        _pdq_hashes(compared_hashes(rows).to_pylist() if "pdq" in has else ()),
    )


def wanted_keys(requests: Sequence[Request], pdq_distance: int) -> WantedKeys:
    """Return the keys of everything that requests name.

    A folder on a domain also matches links of the hosts below it, which have no key for it: there everything
    below the domain is found.
    """
    rules = {
        kind: sorted({one for request in requests for one in request.rules.get(kind, ())})
        for kind in ("domains", "urls", "pairs", "md5", "sha256", "pdq")
    }
    folders = {
        one
        for request in requests
        for one in (request.rules.get("urls", ()) if request.folders is None else request.folders)
    }
    domains, expressions, domains_of_folders = (
        np.asarray([int(one, 16) for one in sorted(hashes)], np.uint64)
        for hashes in (rules["domains"], rules["urls"], folders)
    )
    found = [
        domains ^ _HOST,
        domains ^ _PARENT,
        domains_of_folders ^ _PARENT,
        expressions ^ _LINK,
        _pair_keys([bytes.fromhex(one) for one in rules["pairs"]]),
        _image_keys(pa.array([*rules["md5"], *rules["sha256"]], pa.string())),
    ]
    return WantedKeys(np.unique(np.concatenate(found)), turned(_pdq_hashes(rules["pdq"])), pdq_distance)


def wanted_pairs(pair_ids: Sequence[str]) -> WantedKeys:
    """Return the keys of pairs, given by hexadecimal ids."""
    return WantedKeys(np.unique(_pair_keys([bytes.fromhex(one) for one in pair_ids])))


def _link_keys(urls: pa.StringArray) -> list[Hashes]:
    links = link_keys(urls)
    return [links.hosts ^ _HOST, links.parents ^ _PARENT, links.expressions ^ _LINK]


def _keys_of_forms(urls: Sequence[str], captions: Sequence[str] | None) -> list[Hashes]:
    """Return the keys of URLs in the forms of all rules, and of their pairs, where a form is another."""
    forms: list[tuple[int, str]] = []
    for version in sorted({*normalize.EARLIER_RULES, normalize.RULE_VERSION}):
        for row, url in enumerate(urls):
            if url and (form := normalize.form_by_rule(version, url)) != url:
                forms.append((row, form))
    found = _link_keys(pa.array([form for _, form in forms], pa.string()))
    if captions is not None:
        found.append(_pair_keys([pair_id(form, captions[row]) for row, form in forms]))
    return found


def _pair_keys(ids: Sequence[bytes]) -> Hashes:
    halves = b"".join(one[:8] for one in ids)
    found: Hashes = np.frombuffer(halves, ">u8").astype(np.uint64) ^ _PAIR
    return found


def _image_keys(digests: Any) -> Hashes:
    """Hash hexadecimal digests; null and '' have no key."""
    known = [one for one in digests.to_pylist() if one]
    if not known:
        return _NO_KEYS
    ends = np.cumsum([len(one) for one in known], dtype=np.int32)
    starts = np.concatenate([np.zeros(1, np.int32), ends[:-1]])
    hashes = np.empty(len(known), np.uint64)
    hash_names(np.frombuffer("".join(known).encode(), np.uint8), (starts, ends), hashes)
    return hashes ^ _IMAGE


def _pdq_hashes(hashes: Sequence[str | None]) -> PdqHashes:
    known = b"".join(bytes.fromhex(one) for one in hashes if one)
    return np.frombuffer(known, np.uint8).reshape(-1, HASH_BYTES)
