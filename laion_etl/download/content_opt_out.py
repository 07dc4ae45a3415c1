"""Opt-outs that come with a response: in its headers, or in the image itself.

- `X-Robots-Tag: noai` and related directives (the convention of img2dataset and DeviantArt's noai/noimageai;
  noindex and noimageindex by Google's documentation of the header), separated by whatever is not a letter,
  `no-ai` like `noai`. A directive may be limited to an agent, `examplebot: noai`; we honour it whatever the
  agent: an owner who opts out of one AI crawler means us too.
- `tdm-reservation: 1` (W3C TDM Reservation Protocol, final report of May 2024).
- The IPTC/PLUS property `plus:DataMining` in the image's XMP (PLUS-DMI vocabulary), and the training and
  data mining assertions of C2PA and CAWG. Both are found by searching for their names: compressed or signed
  containers are not unpacked. `constrained` is treated as `notAllowed`: we cannot evaluate the constraint.
"""

import re
from collections.abc import Iterable

OPT_OUT_DIRECTIVES = frozenset({"noai", "noimageai", "noindex", "noimageindex", "noml", "none"})

_SEPARATORS = re.compile(r"[^a-z0-9]+")
_HYPHENS = str.maketrans("", "", "-_")
_PREVIEW = re.compile(
    r"\bmax-[a-z-]{1,40}\s*[:=]\s*[\"']?(?:none|standard|large|-?\d+)(?![\w-])"
)  # their "none" is a value

_TRAINING_ASSERTION = b"training-mining"
_NOT_ALLOWED = re.compile(
    rb"(?:ai_generative_training|ai_training|data_mining).{1,24}?(?:notAllowed|constrained)", re.DOTALL
)


def opted_out_by_header(robots_tags: Iterable[str]) -> bool:
    """Whether any X-Robots-Tag header forbids the use of the image."""
    return any(not OPT_OUT_DIRECTIVES.isdisjoint(_directives(tag)) for tag in robots_tags)


def _directives(tag: str) -> list[str]:
    return _SEPARATORS.split(_PREVIEW.sub(" ", tag.lower()).translate(_HYPHENS))


def reserved_by_header(reservations: Iterable[str]) -> bool:
    """Whether a tdm-reservation header reserves the rights to text and data mining."""
    return any("1" in _SEPARATORS.split(value) for value in reservations)


def opted_out_by_metadata(image: bytes) -> bool:
    """Whether the metadata of an image file forbids data mining or training."""
    if b"DMI-PROHIBITED" in image:
        return True
    found = image.find(_TRAINING_ASSERTION)
    return found >= 0 and _NOT_ALLOWED.search(image, found) is not None
