"""Opt-outs that come with an answer: in its headers, or in the image itself.

- `X-Robots-Tag: noai` and its kin (the convention of img2dataset and DeviantArt's noai/noimageai; noindex and
  noimageindex by Google's documentation of the header). A directive may be limited to an agent,
  `examplebot: noai`; it is honoured whatever the agent: who tells one crawler to stay away means us too.
- `tdm-reservation: 1` (W3C TDM Reservation Protocol, final report of May 2024).
- the IPTC/PLUS property `plus:DataMining` in the image's XMP (PLUS-DMI vocabulary), and the training and
  data mining assertions of C2PA and CAWG. Both are found by their names: a compressed or signed container is
  not unpacked, and what is only "constrained" counts as not allowed, for nobody reads the constraint.
"""

import re
from collections.abc import Iterable

OPT_OUT_DIRECTIVES = frozenset({"noai", "noimageai", "noindex", "noimageindex", "noml", "none"})

_TRAINING_ASSERTION = b"training-mining"
_NOT_ALLOWED = re.compile(
    rb"(?:ai_generative_training|ai_training|data_mining).{1,24}?(?:notAllowed|constrained)", re.DOTALL
)


def opted_out_by_header(robots_tags: Iterable[str]) -> bool:
    """Whether any of the X-Robots-Tag header values forbids the use of the image."""
    return any(
        directive.rpartition(":")[2].strip().lower() in OPT_OUT_DIRECTIVES
        for tag in robots_tags
        for directive in tag.split(",")
    )


def reserved_by_header(reservations: Iterable[str]) -> bool:
    """Whether a tdm-reservation header reserves the rights to text and data mining."""
    return any(value.strip() == "1" for value in reservations)


def opted_out_by_metadata(image: bytes) -> bool:
    """Whether an image file says that it may not be mined or trained on."""
    if b"DMI-PROHIBITED" in image:
        return True
    found = image.find(_TRAINING_ASSERTION)
    return found >= 0 and _NOT_ALLOWED.search(image, found) is not None
