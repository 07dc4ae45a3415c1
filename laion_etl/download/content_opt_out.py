"""Opt-outs that come with a response: in its headers, or in the image itself.

- `X-Robots-Tag: noai` and related directives (the convention of img2dataset and DeviantArt's noai/noimageai;
  noindex and noimageindex by Google's documentation of the header), separated by whatever is not a letter,
  `no-ai` like `noai`. A directive may be limited to an agent, `examplebot: noai`; we honour it whatever the
  agent: an owner who opts out of one AI crawler means us too.
- `tdm-reservation: 1` (W3C TDM Reservation Protocol, final report of May 2024).
- The IPTC/PLUS property `plus:DataMining` in the image's XMP (PLUS-DMI vocabulary), and the training and
  data mining assertions of C2PA and CAWG. Both are found by searching for their names, also in UTF-16 and in
  the compressed and hexadecimal texts of PNG; other compressed or signed containers are not unpacked.
  `constrained` is treated as `notAllowed`: we cannot evaluate the constraint.
"""

import re
import zlib
from collections.abc import Iterable, Iterator

from laion_etl.download.png_chunks import chunks

OPT_OUT_DIRECTIVES = frozenset({"noai", "noimageai", "noindex", "noimageindex", "noml", "none"})

_RESERVED = frozenset({"1", "true"})
_SEPARATORS = re.compile(r"[^a-z0-9]+")
_HYPHENS = str.maketrans("", "", "-_")
_PREVIEW = re.compile(
    r"\bmax-[a-z-]{1,40}\s*[:=]\s*[\"']?(?:none|standard|large|-?\d+)(?![\w-])"
)  # their "none" is a value

_MAX_TEXT_BYTES, _MAX_TEXTS_BYTES = 1 << 22, 1 << 24  # of one, and of all of an image: more are a bomb
_NO_DIGITS = re.compile(rb"[^0-9a-fA-F]+")
_PROHIBITED = b"DMI-PROHIBITED"
_PROHIBITED_UTF16 = b"\0".join(bytes([letter]) for letter in _PROHIBITED)  # in either order of bytes
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
    return any(is_reservation(value) for value in reservations)


def is_reservation(value: str) -> bool:
    """Whether a value of tdm-reservation reserves the rights: `1`, or `true` as many write it."""
    return not _RESERVED.isdisjoint(_SEPARATORS.split(value.lower()))


def opted_out_by_metadata(image: bytes) -> bool:
    """Whether the metadata of an image file forbids data mining or training."""
    return _opts_out(image) or any(_opts_out(text) for text in _packed_texts(image))


def _opts_out(data: bytes) -> bool:
    if _PROHIBITED in data or _PROHIBITED_UTF16 in data:
        return True
    found = data.find(_TRAINING_ASSERTION)
    return found >= 0 and _NOT_ALLOWED.search(data, found) is not None


def _packed_texts(image: bytes) -> Iterator[bytes]:
    """Yields the texts of a PNG that are compressed, or are a profile in hexadecimal digits."""
    if not image.startswith(b"\x89PNG"):
        return
    left = _MAX_TEXTS_BYTES
    for kind, body, _ in chunks(image):
        keyword, _, rest = body.partition(b"\0")
        text = rest if kind == b"tEXt" else b""
        if kind == b"zTXt":
            text = _inflated(rest[1:], left)
        elif kind == b"iTXt" and rest[:1] == b"\1":
            text = _inflated(rest[2:].split(b"\0", 2)[-1], left)
        left -= len(text) if kind != b"tEXt" else 0
        if keyword.startswith(b"Raw profile type"):
            digits = _NO_DIGITS.sub(b"", text.split(b"\n", 3)[-1])  # behind a name and a length
            text = bytes.fromhex(digits[: len(digits) & ~1].decode())
        yield text


def _inflated(data: bytes, max_bytes: int) -> bytes:
    if max_bytes <= 0:  # which zlib takes for no limit
        return b""
    try:
        return zlib.decompressobj().decompress(data, min(max_bytes, _MAX_TEXT_BYTES))
    except zlib.error:
        return b""
