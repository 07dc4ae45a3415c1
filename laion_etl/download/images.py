"""Which images are accepted and what is stored of them. Pure functions that run in the decoder processes.

The original's rules: JPEG, PNG and WebP only, at least 5,000 bytes, at most 89,478,484 pixels, RGB. A plain
file (RGB or grey, upright, no location data, of the wanted size) is stored unchanged; any other is stored as
a new file: turned upright, converted to sRGB, transparency laid over white, 16 bits reduced to 8, resized.
"""

import io
import warnings
from dataclasses import dataclass

from PIL import ExifTags, Image, ImageCms, ImageFile

from laion_etl.core.funnel import DownloadStatus
from laion_etl.download.hashes import pdq_hash, perceptual_hash
from laion_etl.download.image_header import SNIFF_BYTES, ImageRules, ends_cleanly, plain_size, sniff
from laion_etl.download.resize import Resize
from laion_etl.sandbox.pillow_safety import DECODE_ERRORS
from laion_etl.settings import DownloadSettings

EXTENSIONS = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp"}
ENCODINGS = {"jpg": "JPEG", "webp": "WEBP", "png": "PNG", "avif": "AVIF"}

# Exif orientation -> the operation that turns the image upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_HASHED_SIZE = (512, 512)  # the size the reference implementation of PDQ scales to first
_TURNS_SIDES = frozenset({5, 6, 7, 8})  # width and height are swapped

ImageFile.LOAD_TRUNCATED_IMAGES = False


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """The download settings that a decoder needs."""

    rules: ImageRules
    resize: Resize
    encode_format: str
    encode_quality: int
    perceptual_hashes: bool = True

    @classmethod
    def from_settings(cls, settings: DownloadSettings) -> "ImageSettings":
        return cls(
            ImageRules.from_settings(settings),
            Resize.from_settings(settings),
            settings.encode_format,
            settings.encode_quality,
            settings.perceptual_hashes,
        )


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A stored image: its bytes and extension, stored size, original size after orientation, hashes."""

    data: bytes
    format: str
    width: int
    height: int
    original_width: int
    original_height: int
    phash: str | None
    pdq: str | None


def decode(data: bytes, settings: ImageSettings) -> StoredImage | DownloadStatus:
    """Returns the image to store, or why it is refused. Every pixel is decoded: a truncated image fails."""
    if len(data) < settings.rules.min_bytes:
        return DownloadStatus.TOO_FEW_BYTES
    if (refused := sniff(data[:SNIFF_BYTES])) is not None:
        return refused
    with warnings.catch_warnings(action="ignore"):  # Pillow warns about odd metadata
        try:
            with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as image:
                refused = _refused_by_header(image, settings.rules)
                return refused if refused is not None else _stored(image, data, settings)
        except DECODE_ERRORS:
            return DownloadStatus.DECODE_FAILED


def undecoded(data: bytes, settings: ImageSettings) -> StoredImage | None:
    """Returns an image that its header shows can be stored unchanged; None if it has to be decoded."""
    if settings.perceptual_hashes or (size := plain_size(data)) is None:
        return None
    if settings.rules.refuse(*size) is not None or settings.resize.plan(size) is not None:
        return None
    extension = "jpg" if data[0] == 0xFF else "png" if data[0] == 0x89 else "webp"
    return StoredImage(data, extension, *size, *size, None, None)


def _refused_by_header(image: Image.Image, rules: ImageRules) -> DownloadStatus | None:
    """Applies the checks that need no decoded pixels."""
    # An MPO (two-lens JPEG) counts frames too, but its first one is an ordinary JPEG.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        return DownloadStatus.ANIMATED
    return rules.refuse(*image.size)


def _stored(image: Image.Image, data: bytes, settings: ImageSettings) -> StoredImage:
    extension = EXTENSIONS[image.format or ""]
    exif = image.getexif()
    orientation = exif.get(ExifTags.Base.Orientation, 1)
    original = image.size if orientation not in _TURNS_SIDES else image.size[::-1]
    change = settings.resize.plan(original)
    plain = (
        change is None
        and image.mode in ("RGB", "L")
        and "transparency" not in image.info
        and orientation not in _TURNS
        and ExifTags.IFD.GPSInfo not in exif
        and image.format != "MPO"
        and ends_cleanly(data)
    )
    needed = change.scale_to if change is not None else _HASHED_SIZE if plain else None
    if needed is not None and image.format == "JPEG":
        # libjpeg downscales by a power of two while it decodes; the result is still at least this large.
        image.draft(None, needed if orientation not in _TURNS_SIDES else needed[::-1])
    image.load()
    if plain:
        return StoredImage(data, extension, *original, *original, *_hashes(image, settings))
    upright = _flat(image)
    if orientation in _TURNS:
        upright = upright.transpose(_TURNS[orientation])
    if change is not None:
        upright = change.apply(upright)
    buffer = io.BytesIO()
    encoding, quality = ENCODINGS[settings.encode_format], settings.encode_quality
    upright.save(buffer, encoding, quality=quality, exif=b"", icc_profile=None)
    stored = buffer.getvalue()
    return StoredImage(stored, settings.encode_format, *upright.size, *original, *_hashes(upright, settings))


def _hashes(image: Image.Image, settings: ImageSettings) -> tuple[str | None, str | None]:
    """Returns phash and PDQ of a decoded image."""
    if not settings.perceptual_hashes:
        return None, None
    grey = image.convert("L")
    return perceptual_hash(grey), pdq_hash(grey)


def _flat(image: Image.Image) -> Image.Image:
    """Converts to sRGB: transparency over white, 16 bits to 8, CMYK and colour profiles."""
    if image.mode in ("I;16", "I;16B", "I", "F"):
        image = _eight_bits(image)
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        coloured = image.convert("RGBA")
        white = Image.new("RGBA", coloured.size, "white")
        white.alpha_composite(coloured)
        return white.convert("RGB")
    return _to_srgb(image)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Reduces a 16-bit grey PNG to the high byte of each pixel."""
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
            converted = None  # ignore a broken profile
        if converted is not None:
            return converted
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy it
