"""Reads format, size and plainness of an image from the beginning of its file, without a decoder.

A download is aborted as soon as its first bytes rule out a wanted image, and an image that can be stored
unchanged need not be decoded. Only a few fixed fields are read, and every offset is checked.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from laion_etl.core.funnel import DownloadStatus
from laion_etl.download.image_metadata import has_late_metadata, plain_png, plain_segment, plain_webp
from laion_etl.settings import DownloadSettings

SNIFF_BYTES = 16

_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG\r\n\x1a\n"

# Signatures of image formats that are refused, to distinguish them from files that are not images.
_OTHER_IMAGES = (
    b"GIF8",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"MM\0+",
    b"\0\0\1\0",  # ICO
    b"\0\0\2\0",  # CUR
    b"8BPS",
    b"\0\0\0\x0cjP  ",  # JPEG 2000
    b"\xff\x4f\xff\x51",  # JPEG 2000 code stream
    b"\xff\x0a",  # JPEG XL
    b"\0\0\0\x0cJXL ",
    b"qoif",
    b"DDS ",
    b"<svg",
)
# Major brands of images in ISO's container: AV1, HEVC, AVC, JPEG XL, JPEG 2000, Canon's raw.
_IMAGE_BRANDS = frozenset(
    (
        b"avif avis heic heix heim heis hevc hevx hevm hevs mif1 mif2 msf1 miaf avci avcs jxl jp2 jpx jpm crx"
    ).split()
)

_NOT_SOF = frozenset({0xC4, 0xC8, 0xCC})  # of the markers 0xC0 to 0xCF
_MAX_SEGMENTS = 1_000
_SCAN, _END = 0xDA, 0xD9
# In the data of a scan FF is followed by 00 or by a restart marker; those, FF 01 and FF D8 have no length.
_NEXT_SEGMENT = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
_SCANS = re.compile(
    rb"\xff\xda"
)  # looks for the first byte by memchr(3): a third of what bytes.count() takes
_MAX_SCANS = 100  # encoders write about ten; each is a pass over all coefficients of the image
_MAX_SIDE = 65_500  # of JPEG in libjpeg
_TRAILING_BYTES = 64  # what editors and servers leave after the end of an image


@dataclass(frozen=True, slots=True)
class ImageRules:
    """Limits on the size of wanted images."""

    min_bytes: int
    max_pixels: int
    min_side: int
    max_aspect_ratio: float

    @classmethod
    def from_settings(cls, settings: DownloadSettings) -> "ImageRules":
        return cls(settings.min_bytes, settings.max_pixels, settings.min_side, settings.max_aspect_ratio)

    def refuse(self, width: int, height: int) -> DownloadStatus | None:
        """Returns the reason to refuse an image of this size, if there is one."""
        if width * height > self.max_pixels:
            return DownloadStatus.TOO_MANY_PIXELS
        if max(width, height) > _MAX_SIDE:
            return DownloadStatus.SIDE_TOO_LONG
        if min(width, height) < self.min_side:
            return DownloadStatus.TOO_FEW_PIXELS
        if self.max_aspect_ratio and max(width, height) > self.max_aspect_ratio * min(width, height):
            return DownloadStatus.ASPECT_RATIO
        return None


def sniff(head: bytes) -> DownloadStatus | None:
    """Returns why these first bytes are not a wanted image; None if they may be. 16 bytes are enough."""
    if head.startswith(_PNG) and head[12:16] not in (b"IHDR", b""):  # CgBI: Apple's own
        return DownloadStatus.DECODE_FAILED
    if head.startswith((_JPEG, _PNG)) or (head.startswith(b"RIFF") and head[8:12] == b"WEBP"):
        return None
    if head.startswith(_OTHER_IMAGES) or (head[4:8] == b"ftyp" and head[8:12].rstrip() in _IMAGE_BRANDS):
        return DownloadStatus.FORMAT_REFUSED
    return DownloadStatus.NOT_AN_IMAGE


def refused_by_beginning(data: bytes, rules: ImageRules) -> DownloadStatus | bool:
    """Returns why a file with this beginning is refused; else whether more bytes could still decide it."""
    if len(data) < SNIFF_BYTES:
        return True
    if (status := sniff(data)) is not None:
        return status
    size = dimensions(data)
    if size is None:
        return True
    return rules.refuse(*size) or False


def dimensions(data: bytes) -> tuple[int, int] | None:
    """Returns width and height as stored; None if these bytes do not contain them."""
    try:
        if data.startswith(_PNG):
            width, height = struct.unpack_from(">II", data, 16)
        elif data.startswith(_JPEG):
            frame = next(offset for marker, offset, _ in _segments(data) if _is_frame(marker))
            height, width = struct.unpack_from(">HH", data, frame + 1)
        else:
            width, height = _webp_size(data)
    except (struct.error, StopIteration, IndexError):
        return None
    return (width, height) if width and height else None


def too_many_scans(data: bytes) -> bool:
    """Whether a JPEG has more scans than encoders write; 60 kB of them keep a decoder busy for seconds.

    Only its first image counts: a video behind it (a motion photo) has the bytes of the marker by chance.
    """
    if not data.startswith(_JPEG) or next(islice(_SCANS.finditer(data), _MAX_SCANS, None), None) is None:
        return False
    scans, found = 0, _NEXT_SEGMENT.search(data, 2)
    while found is not None and scans <= _MAX_SCANS and data[found.end() - 1] != _END:
        scans += data[found.end() - 1] == _SCAN
        length = int.from_bytes(data[found.end() : found.end() + 2], "big")
        found = _NEXT_SEGMENT.search(data, found.end() + length)
    return scans > _MAX_SCANS


def plain_size(data: bytes) -> tuple[int, int] | None:
    """Returns width and height of a complete image that can be stored unchanged; None if a decoder is needed.

    Plain means: 8 bits, RGB or grey, upright, no location data, no transparency, one frame, not truncated.
    """
    if not ends_cleanly(data):
        return None
    if data.startswith(_JPEG):
        plain = _plain_jpeg(data)
    elif data.startswith(_PNG):
        plain = plain_png(data)
    else:
        plain = plain_webp(data)
    return dimensions(data) if plain else None


def ends_cleanly(data: bytes) -> bool:
    """Whether the file ends with the image, give or take what editors append.

    An archive or script appended to an image (a polyglot) must not be passed on in a file stored unchanged.
    """
    if data.startswith(b"RIFF"):
        return 0 <= len(data) - 8 - int.from_bytes(data[4:8], "little") <= _TRAILING_BYTES
    end = b"\xff\xd9" if data.startswith(_JPEG) else b"IEND\xae\x42\x60\x82"
    return end in data[-_TRAILING_BYTES:]


def _is_frame(marker: int) -> bool:
    return 0xC0 <= marker <= 0xCF and marker not in _NOT_SOF


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yields marker, start and end of the contents of JPEG segments, up to the first scan."""
    place = 2
    for _ in range(_MAX_SEGMENTS):
        while data[place] == 0xFF and data[place + 1] == 0xFF:  # fill bytes
            place += 1
        if data[place] != 0xFF:
            return
        marker, (length,) = data[place + 1], struct.unpack_from(">H", data, place + 2)
        yield marker, place + 4, place + 2 + length
        if marker == _SCAN:
            return
        place += 2 + length


def _plain_jpeg(data: bytes) -> bool:
    frames = 0
    scan: int | None = None
    try:
        for marker, start, end in _segments(data):
            if _is_frame(marker):
                frames += 1
                if data[start] != 8 or data[start + 5] not in (1, 3):
                    return False
            elif 0xE0 <= marker <= 0xEF and not plain_segment(marker, data[start:end]):
                return False
            elif marker == _SCAN:
                scan = start
    except (IndexError, struct.error):
        return False
    # A reader such as Pillow goes on where the walk over the segments ended early, and finds more of them.
    return frames == 1 and scan is not None and not has_late_metadata(data, scan)


def _webp_size(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        return (int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF
