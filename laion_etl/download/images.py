"""What is accepted as an image, and what of it is stored. Pure functions; decoding runs in worker processes.

Rules of the original: JPEG, PNG and WebP only, at least 5,000 bytes, at most 89,478,484 pixels, RGB. Stored
are the bytes as they came when they are plain (RGB or grey, upright, no location data, short side within the
limit), else a JPEG: turned upright, converted to sRGB, transparency laid over white, scaled down to the short
side.
"""

import io
import struct
import warnings
import zlib
from dataclasses import dataclass

from PIL import ExifTags, Image, ImageCms, ImageFile, UnidentifiedImageError

from laion_etl.download.phash import perceptual_hash
from laion_etl.funnel import DownloadStatus
from laion_etl.settings import DownloadSettings

EXTENSIONS = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp"}
SNIFF_BYTES = 16

_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG\r\n\x1a\n"

# Beginnings of images that are not wanted, to tell them from what is no image at all.
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
_HEIF_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1", b"hevc")

# Exif orientation -> what turns the picture upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# What Pillow raises on broken images, by its documentation and its bug reports.
_DECODE_ERRORS = (
    UnidentifiedImageError,
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    EOFError,
    OverflowError,
    MemoryError,
    ZeroDivisionError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)

Image.MAX_IMAGE_PIXELS = None  # our own limit is checked on the header
ImageFile.LOAD_TRUNCATED_IMAGES = False


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """The image rules of the download settings."""

    min_bytes: int
    max_pixels: int
    short_side: int
    jpeg_quality: int

    @classmethod
    def of(cls, settings: DownloadSettings) -> "ImageLimits":
        return cls(settings.min_bytes, settings.max_pixels, settings.short_side, settings.jpeg_quality)


@dataclass(frozen=True, slots=True)
class Picture:
    """A stored image: its bytes and extension, stored size, original size after orientation, hash."""

    data: bytes
    format: str
    width: int
    height: int
    original_width: int
    original_height: int
    phash: str


def sniff(head: bytes) -> DownloadStatus | None:
    """From the first 16 bytes: None for what may be a wanted image, else why it is none."""
    if head.startswith((_JPEG, _PNG)) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return None
    if head.startswith(_OTHER_IMAGES) or (head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS):
        return DownloadStatus.FORMAT_REFUSED
    return DownloadStatus.NOT_AN_IMAGE


def decode(data: bytes, limits: ImageLimits) -> Picture | DownloadStatus:
    """The stored form of an image, or why there is none. Everything is decoded: a truncated image fails."""
    if len(data) < limits.min_bytes:
        return DownloadStatus.TOO_FEW_BYTES
    if (refused := sniff(data[:SNIFF_BYTES])) is not None:
        return refused
    with warnings.catch_warnings(action="ignore"):  # Pillow warns about odd metadata
        try:
            with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as image:
                refused = _refused_by_header(image, limits)
                return refused if refused is not None else _stored(image, data, limits)
        except _DECODE_ERRORS:
            return DownloadStatus.DECODE_FAILED


def _refused_by_header(image: Image.Image, limits: ImageLimits) -> DownloadStatus | None:
    """Checks before any pixel is decoded."""
    if image.width * image.height > limits.max_pixels:
        return DownloadStatus.TOO_MANY_PIXELS
    # An MPO (two-lens JPEG) counts frames too, but its first one is an ordinary JPEG.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        return DownloadStatus.ANIMATED
    return None


def _stored(image: Image.Image, data: bytes, limits: ImageLimits) -> Picture:
    extension = EXTENSIONS[image.format or ""]
    exif = image.getexif()
    orientation = exif.get(ExifTags.Base.Orientation, 1)
    original = image.size if orientation not in (5, 6, 7, 8) else image.size[::-1]
    scale_to = _scaled(original, limits.short_side)
    plain = (
        scale_to == original
        and image.mode in ("RGB", "L")
        and "transparency" not in image.info
        and orientation not in _TURNS
        and ExifTags.IFD.GPSInfo not in exif
        and image.format != "MPO"
    )
    if not plain and image.format == "JPEG":
        image.draft(None, _draft_size(image.size, limits.short_side))
    image.load()
    if plain:
        return Picture(data, extension, *original, *original, perceptual_hash(image))
    upright = _flat(image)
    if orientation in _TURNS:
        upright = upright.transpose(_TURNS[orientation])
    if upright.size != scale_to:
        upright = upright.resize(scale_to, Image.Resampling.LANCZOS, reducing_gap=3.0)
    buffer = io.BytesIO()
    upright.save(buffer, "JPEG", quality=limits.jpeg_quality, exif=b"", icc_profile=None)
    return Picture(buffer.getvalue(), "jpg", *scale_to, *original, perceptual_hash(upright))


def _scaled(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """The size with this short side; the same when it is small enough or 0 keeps every size."""
    shortest = min(size)
    if short_side == 0 or shortest <= short_side:
        return size
    width, height = (max(1, round(side * short_side / shortest)) for side in size)
    return width, height


def _draft_size(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """What the JPEG decoder may scale to by itself: twice the target, so that LANCZOS has something to do."""
    width, height = _scaled(size, 2 * short_side)
    return width, height


def _flat(image: Image.Image) -> Image.Image:
    """RGB in sRGB: transparency over white, 16 bits to 8, CMYK and profiles converted."""
    if image.mode in ("I;16", "I;16B", "I", "F"):
        image = _eight_bits(image)
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        coloured = image.convert("RGBA")
        white = Image.new("RGBA", coloured.size, "white")
        white.alpha_composite(coloured)
        return white.convert("RGB")
    return _to_srgb(image)


def _eight_bits(image: Image.Image) -> Image.Image:
    """A 16-bit grey PNG: the high byte of each pixel."""
    return image.convert("I").point(lambda value: value * (1 / 257)).convert("L")


def _to_srgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if profile and image.mode in ("RGB", "CMYK"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(
                image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
        except (ImageCms.PyCMSError, OSError, ValueError):
            converted = None  # a broken profile is as good as none
        if converted is not None:
            return converted
    return image.convert("RGB")
