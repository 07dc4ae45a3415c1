"""The texts that people write into an image file: Exif, XMP, IPTC and comments, cut where a text begins.

Metadata hold more than texts. A previewed image in them has four letters by chance, and a length in front of
a text may be a letter itself (IPTC-IIM 4.2, 1.5; TIFF 6.0, section 2), so both are taken out.
"""

import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice, pairwise

from laion_etl.download import webp_chunks
from laion_etl.download.jpeg_segments import COMMENT, END, SCAN, pixels_taken_out, walked
from laion_etl.download.png_chunks import chunks

END_OF_TEXT = b"|"

_EXIF, _PHOTOSHOP = b"Exif\0\0", b"Photoshop 3.0\0"
_EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0"
_EXTENDED_HEAD_BYTES = len(_EXTENDED_XMP) + 40  # a hash and two numbers follow
_EXIF_OR_XMP, _DUCKY, _IPTC = 0xE1, 0xEC, 0xED
_SEGMENTS = frozenset({_EXIF_OR_XMP, _DUCKY, _IPTC, COMMENT})
_START_OF_SCAN = b"\xff\xda"
_HEAD_OF_SEGMENT = re.compile(rb"\xff[\xc0-\xfe]..", re.DOTALL)  # marker and length
_SIGNATURE_BYTES, _AROUND_CHUNK = 8, 12  # of a PNG; a chunk has a length, a name and a checksum
_PNG_TEXTS = frozenset({b"tEXt", b"iTXt", b"eXIf"})
_WEBP_TEXTS = frozenset({b"EXIF", b"XMP "})
_XMP, _END_OF_XMP = b"<rdf:RDF", b"</rdf:RDF>"
_MAX_TEXTS = 1_000
_MAX_ITEMS, _MAX_ITEM_BYTES = 8, 1 << 19  # of each kind in an AVIF
_TIFF = re.compile(rb"II\*\0..\0\0|MM\0\*\0\0..", re.DOTALL)

_DATA_SET = re.compile(rb"\x1c[\x01-\x03].{3}", re.DOTALL)  # its record, number and length
_MAX_DIRECTORIES, _MAX_ENTRIES = 16, 1_000
_DIRECTORIES = frozenset({0x8769, 0x8825, 0xA005, 0x014A})  # Exif, GPS, interoperability, sub-images
_OF_BYTES = frozenset({1, 2, 7, 129})  # kinds of values that may be a text: bytes, ASCII, undefined, UTF-8


def texts(image: bytes) -> Iterator[bytes]:
    """Yields the metadata of a JPEG, PNG, WebP or AVIF file that may have texts, as they stand in it.

    Compressed ones are not among them. Metadata at the end of a file that is cut off count as far as they go.
    """
    if image.startswith(b"\xff\xd8"):
        found = _texts_of_jpeg(image)
    elif image.startswith(b"\x89PNG"):
        found = _texts_of_png(image)
    elif image.startswith(b"RIFF"):
        found = _texts_of_webp(image)
    elif image[4:8] == b"ftyp":
        found = _texts_in_boxes(image)
    else:
        return
    yield from islice(found, _MAX_TEXTS)


def _texts_of_jpeg(image: bytes) -> Iterator[bytes]:
    """Yields the segments with texts; those that were cut in several are put together.

    Also what is in front of the pixels but in no segment, because other bytes stand between the segments.
    """
    extended, photoshop = [], []
    marker, end = 0, 2
    for marker, start, end in walked(image):
        if marker not in _SEGMENTS:
            continue
        body = image[start:end]
        if marker == _EXIF_OR_XMP and body.startswith(_EXTENDED_XMP):
            extended.append(body[_EXTENDED_HEAD_BYTES:])
        elif marker == _IPTC:
            photoshop.append(body.removeprefix(_PHOTOSHOP))
        else:
            yield body
    yield from (b"".join(parts) for parts in (extended, photoshop) if parts)
    if marker not in (SCAN, END):
        pixels = image.find(_START_OF_SCAN, end)
        yield _HEAD_OF_SEGMENT.sub(END_OF_TEXT, image[end : pixels if pixels >= 0 else len(image)])


def _texts_of_png(image: bytes) -> Iterator[bytes]:
    """Yields the Exif of a PNG, and its texts as one: there may be 100,000 of them."""
    parts, end = [], _SIGNATURE_BYTES
    for kind, body, _ in chunks(image):
        end += len(body) + _AROUND_CHUNK
        if kind == b"eXIf":
            yield body
        elif kind in _PNG_TEXTS and not _is_compressed(kind, body):
            parts.append(body)
    if image[end + 4 : end + 8] in _PNG_TEXTS:
        length = int.from_bytes(image[end : end + 4], "big")
        parts.append(image[end + 8 : end + 8 + length])
    yield END_OF_TEXT.join(parts)


def _is_compressed(kind: bytes, body: bytes) -> bool:
    return kind == b"iTXt" and body.partition(b"\0")[2][:1] == b"\1"


def _texts_of_webp(image: bytes) -> Iterator[bytes]:
    end = webp_chunks.HEAD_BYTES
    for kind, body, behind in webp_chunks.chunks(image):
        if kind in _WEBP_TEXTS:
            yield body
        end = behind
    if image[end : end + 4] in _WEBP_TEXTS:
        yield image[end + 8 :]


def _texts_in_boxes(image: bytes) -> Iterator[bytes]:
    """Yields XMP and the values of Exif in an AVIF, wherever they stand (ISO 14496-12 puts them anywhere)."""
    begin = 0
    for _ in range(_MAX_ITEMS):
        begin = image.find(_XMP, begin)
        if begin < 0:
            break
        end = image.find(_END_OF_XMP, begin, begin + _MAX_ITEM_BYTES)
        begin, text = (end, image[begin:end]) if end > 0 else (begin + len(_XMP), b"")
        yield text
    for found in islice(_TIFF.finditer(image), _MAX_ITEMS):
        tiff = image[found.start() : found.start() + _MAX_ITEM_BYTES]
        yield from (tiff[start:end] for start, end in _values(tiff))


def separated(text: bytes) -> bytes:
    """Returns metadata without the pixels of previews, and with END_OF_TEXT where a text begins or ends."""
    tiff = text.removeprefix(_EXIF)
    if _TIFF.match(tiff):
        cuts = sorted({0, *(place for value in _values(tiff) for place in value), len(tiff)})
        text = END_OF_TEXT.join(tiff[start:end] for start, end in pairwise(cuts))
    return _DATA_SET.sub(END_OF_TEXT, pixels_taken_out(text))


def _values(tiff: bytes) -> list[tuple[int, int]]:
    """Returns where the values that may be a text begin and end."""
    order = "<" if tiff.startswith(b"II") else ">"
    found: list[tuple[int, int]] = []
    seen: set[int] = set()
    with suppress(struct.error):  # what is cut off has no more of them
        waiting = list(struct.unpack_from(f"{order}I", tiff, 4))
        while waiting and len(seen) < _MAX_DIRECTORIES:
            start = waiting.pop(0)
            if start in seen or not start:
                continue
            seen.add(start)
            (count,) = struct.unpack_from(f"{order}H", tiff, start)
            for number in range(min(count, _MAX_ENTRIES)):
                tag, kind, many, value = struct.unpack_from(f"{order}HHII", tiff, start + 2 + 12 * number)
                if tag in _DIRECTORIES:
                    waiting.append(value)
                elif kind in _OF_BYTES and many > 4:  # shorter ones stand in the entry
                    found.append((value, value + many))
            waiting += struct.unpack_from(f"{order}I", tiff, start + 2 + 12 * count)
    return found
