"""Reads format, size and plainness of an image from its file, without a decoder.

A download is aborted as soon as its first bytes rule out a wanted image, and what its file shows to be plain
is stored unchanged. Only a few fixed fields are read, and every offset is checked.
"""

import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from laion_etl.core.funnel import DownloadStatus
from laion_etl.download.image_metadata import plain_jpeg, plain_png, plain_webp
from laion_etl.download.jpeg_segments import is_frame, segments

if TYPE_CHECKING:  # a decoder does without
    from laion_etl.settings import DownloadSettings

SNIFF_BYTES = 16

# What files of these formats begin with.
JPEG = b"\xff\xd8\xff"
PNG = b"\x89PNG\r\n\x1a\n"

# Signatures of image formats that are refused, to distinguish them from files that are not images.
_OTHER_IMAGES = {
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"\0\0\1\0": "ICO",
    b"8BPS": "PSD",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",  # its code stream
    b"\xff\x0a": "JPEG XL",  # its code stream
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP\x1a\x1a": "JPEG 2000",
    b"II\xbc": "JPEG XR",
    b"IIU\0": "RW2",
    **dict.fromkeys((b"IIRO", b"IIRS", b"MMOR"), "ORF"),
    b"FUJIFILMCCD-RAW": "RAF",
    b"icns": "ICNS",
    b"\xd7\xcd\xc6\x9a": "WMF",
    b"AT&TFORM": "DjVu",
    b"/* XPM */": "XPM",
    b"\x8aMNG": "MNG",
    b"\x8bJNG": "JNG",
    **dict.fromkeys((b"#?RADIANCE", b"#?RGBE"), "HDR"),
    b"v/1\x01": "EXR",
    b"FLIF": "FLIF",
    b"BPG\xfb": "BPG",
    b"gimp xcf": "XCF",
    **dict.fromkeys((b"P%d%c" % (kind, end) for kind in range(1, 8) for end in b"\n\r "), "PNM"),
    b"qoif": "QOI",
    b"DDS ": "DDS",
}
# SVG behind an XML declaration, comments, and whatever else stands before the first element.
_PROLOGUE = rb"(?:\xef\xbb\xbf)?(?:\s++|<\?[^>]*+>|<!--.*?-->)*+"
_SVG = re.compile(_PROLOGUE + rb"<(?:(?:[a-z]{1,9}:)?svg\b|!doctype svg\b)", re.IGNORECASE | re.DOTALL)
_MARKS_OF_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
# Brands of images in ISO's container (mp4ra.org). `mif1` and the like say no more than that it is an image.
_BRANDS = {
    **dict.fromkeys(b"avif avis avio".split(), "AVIF"),
    **dict.fromkeys(b"heic heix heim heis hevc hevx hevm hevs".split(), "HEIC"),
    **dict.fromkeys(b"mif1 mif2 mif3 msf1 miaf unif 1pic".split(), "HEIF"),
    **dict.fromkeys(b"avci avcs vvic vvis evbi evbs evmi evms jpeg jpgs jxsi".split(), "HEIF"),
    **dict.fromkeys(b"jxl".split(), "JPEG XL"),
    **dict.fromkeys(b"jp2 jpx jpm jph j2ki j2is".split(), "JPEG 2000"),
    **dict.fromkeys(b"crx".split(), "CR3"),
}
# TGA has no signature: at least its map of colours, kind and sides have to make sense.
_TGA = re.compile(
    rb".(?:\x00[\x02\x03\x0a\x0b]\x00{5}|\x01[\x01\x09]..(?!\x00\x00)..[\x0f\x10\x18\x20])"
    rb".{4}(?!\x00\x00)..(?!\x00\x00)..",
    re.DOTALL,
)
_CUR = re.compile(rb"\x00\x00\x02\x00(?!\x00\x00)...{3}\x00", re.DOTALL)  # how many, a size, nothing
CONTAINER_HEAD_BYTES = 256  # enough for the list of brands, which rarely has ten
_MARKUP = (b"<", b"\xef\xbb\xbf", *_MARKS_OF_UTF_16)  # which may turn out to be SVG

_MAX_SIDE = 65_500  # of JPEG in libjpeg


@dataclass(frozen=True, slots=True)
class ImageRules:
    """Limits on the size of wanted images, and whether AVIF is one of their formats."""

    min_bytes: int
    max_pixels: int
    min_side: int
    max_aspect_ratio: float
    avif: bool = False

    @classmethod
    def from_settings(cls, settings: "DownloadSettings") -> "ImageRules":
        return cls(
            settings.min_bytes,
            settings.max_pixels,
            settings.min_side,
            settings.max_aspect_ratio,
            settings.accept_avif,
        )

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


def sniff(head: bytes, *, avif: bool = False) -> DownloadStatus | None:
    """Returns why these first bytes are not a wanted image; None if they may be. 16 bytes are enough."""
    if head.startswith(PNG) and head[12:16] not in (b"IHDR", b""):  # CgBI: Apple's own
        return DownloadStatus.DECODE_FAILED
    if head.startswith((JPEG, PNG)) or (head.startswith(b"RIFF") and head[8:12] == b"WEBP"):
        return None
    name = other_format(head)
    if avif and (name == "AVIF" or (name == "HEIF" and len(head) < CONTAINER_HEAD_BYTES)):
        return None
    return DownloadStatus.FORMAT_REFUSED if name else DownloadStatus.NOT_AN_IMAGE


def other_format(head: bytes) -> str:
    """Returns the name of an image format other than JPEG, PNG and WebP; '' for anything else."""
    if head[4:8] == b"ftyp":
        major, *others = (_BRANDS.get(brand.rstrip(), "") for brand in _brands(head))
        if major != "HEIF":  # of other files, such as videos, the first brand decides
            return major
        return next((name for name in others if name not in ("HEIF", "")), major)
    text = head[2:].replace(b"\0", b"") if head.startswith(_MARKS_OF_UTF_16) else head
    if _SVG.match(text[:CONTAINER_HEAD_BYTES]):
        return "SVG"
    if _CUR.match(head):
        return "CUR"
    if _TGA.match(head):
        return "TGA"
    return next((name for start, name in _OTHER_IMAGES.items() if head.startswith(start)), "")


def _brands(head: bytes) -> list[bytes]:
    """Returns the major brand of a container, then those that it is compatible with, as far as they go."""
    size = int.from_bytes(head[:4], "big") or CONTAINER_HEAD_BYTES  # 0: up to the end of the file
    end = min(size, CONTAINER_HEAD_BYTES, len(head))
    return [head[8:12], *(head[place : place + 4] for place in range(16, end, 4))]


def refused_by_beginning(data: bytes, rules: ImageRules) -> DownloadStatus | bool:
    """Returns why a file with this beginning is refused; else whether more bytes could still decide it."""
    is_markup = data.startswith(_MARKUP) and len(data) < CONTAINER_HEAD_BYTES
    if len(data) < SNIFF_BYTES or is_markup:
        return True
    if (status := sniff(data, avif=rules.avif)) is not None:
        return status
    size = dimensions(data)
    if size is None:
        return True
    return rules.refuse(*size) or False


def dimensions(data: bytes) -> tuple[int, int] | None:
    """Returns width and height as stored; None if these bytes do not contain them."""
    try:
        if data.startswith(PNG):
            width, height = struct.unpack_from(">II", data, 16)
        elif data.startswith(JPEG):
            frame = next(offset for marker, offset, _ in segments(data) if is_frame(marker))
            height, width = struct.unpack_from(">HH", data, frame + 1)
        elif data.startswith(b"RIFF"):
            width, height = _webp_size(data)
        else:
            return None
    except (struct.error, StopIteration, IndexError):
        return None
    return (width, height) if width and height else None


def is_plain(data: bytes) -> bool:
    """Whether a file is a complete image that can be stored unchanged.

    Plain means: 8 bits, RGB or grey in sRGB, upright, no location data, no transparency, one frame, complete.
    """
    if data.startswith(JPEG):
        return plain_jpeg(data)
    if data.startswith(PNG):
        return plain_png(data)
    return data.startswith(b"RIFF") and plain_webp(data)


def _webp_size(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        return (int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF
