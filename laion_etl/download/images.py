"""Which images are accepted and what is stored of them. Pure functions that run in the decoder processes.

The original's rules: JPEG, PNG and WebP only, at least 5,000 bytes, at most 89,478,484 pixels, RGB. A plain
file (RGB or grey, upright, no location data, of the wanted size) is stored unchanged; any other is stored as
a new file: turned upright, converted to sRGB, transparency laid over white, 16 bits reduced to 8, resized.
`plain_size` alone decides, from the file, which of the two it is, whether or not the image is decoded as
well. Orientation is that of Exif, as in browsers; XMP's is ignored.
"""

import io
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageFile, PngImagePlugin

from laion_etl.core.funnel import DownloadStatus
from laion_etl.download.hashes import pdq_hash, perceptual_hash
from laion_etl.download.image_header import SNIFF_BYTES, ImageRules, plain_size, sniff, too_many_scans
from laion_etl.download.image_metadata import without_extras
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

_PNG = b"\x89PNG\r\n\x1a\n"

ImageFile.LOAD_TRUNCATED_IMAGES = False
PngImagePlugin.MAX_TEXT_CHUNK = 1 << 24  # of a colour profile; texts are left out before Pillow sees them


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
    pdq_quality: int | None


def decode(data: bytes, settings: ImageSettings) -> StoredImage | DownloadStatus:
    """Returns the image to store, or why it is refused. Every pixel is decoded: a truncated image fails."""
    if len(data) < settings.rules.min_bytes:
        return DownloadStatus.TOO_FEW_BYTES
    if (refused := sniff(data[:SNIFF_BYTES])) is not None:
        return refused
    if too_many_scans(data):
        return DownloadStatus.TOO_MANY_SCANS
    readable = without_extras(data) if data.startswith(_PNG) else data
    with warnings.catch_warnings(action="ignore"):  # Pillow warns about odd metadata
        try:
            with Image.open(io.BytesIO(readable), formats=("JPEG", "PNG", "WEBP")) as image:
                refused = _refused_by_header(image, settings.rules)
                return refused if refused is not None else _stored(image, data, settings)
        except DECODE_ERRORS:
            return DownloadStatus.DECODE_FAILED


def undecoded(data: bytes, settings: ImageSettings) -> StoredImage | None:
    """Returns an image that its header shows can be stored unchanged; None if it has to be decoded."""
    if settings.perceptual_hashes or too_many_scans(data) or (size := plain_size(data)) is None:
        return None
    if settings.rules.refuse(*size) is not None or settings.resize.plan(size) is not None:
        return None
    extension = "jpg" if data[0] == 0xFF else "png" if data[0] == 0x89 else "webp"
    return StoredImage(data, extension, *size, *size, None, None, None)


def _refused_by_header(image: Image.Image, rules: ImageRules) -> DownloadStatus | None:
    """Applies the checks that need no decoded pixels."""
    # An MPO (two-lens JPEG) counts frames too, but its first one is an ordinary JPEG.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        return DownloadStatus.ANIMATED
    return rules.refuse(*image.size)


def _stored(image: Image.Image, data: bytes, settings: ImageSettings) -> StoredImage:
    extension = EXTENSIONS[image.format or ""]
    _narrow_key(image)
    if image.format == "PNG":
        image.load()  # its Exif may follow the pixels
    orientation = _orientation(image)
    original = image.size if orientation not in _TURNS_SIDES else image.size[::-1]
    change = settings.resize.plan(original)
    plain = change is None and plain_size(data) is not None
    needed = change.scale_to if change is not None else _HASHED_SIZE if plain else None
    if needed is not None and image.format == "JPEG":
        # libjpeg downscales by a power of two while it decodes; the result is still at least this large.
        image.draft(None, needed if orientation not in _TURNS_SIDES else needed[::-1])
    image.load()
    if plain:
        phash, pdq, quality = _hashes(image, settings)
        return StoredImage(data, extension, *original, *original, phash, pdq, quality)
    upright = _flat(image)
    if orientation in _TURNS:
        upright = upright.transpose(_TURNS[orientation])
    if change is not None:
        upright = change.apply(upright)
    buffer = io.BytesIO()
    encoding, quality = ENCODINGS[settings.encode_format], settings.encode_quality
    upright.save(buffer, encoding, quality=quality, exif=b"", icc_profile=None)
    stored = buffer.getvalue()
    phash, pdq, quality = _hashes(upright, settings)
    return StoredImage(stored, settings.encode_format, *upright.size, *original, phash, pdq, quality)


def _hashes(image: Image.Image, settings: ImageSettings) -> tuple[str | None, str | None, int | None]:
    """Returns phash, PDQ and its quality of a decoded image."""
    if not settings.perceptual_hashes:
        return None, None, None
    grey = image.convert("L")
    pdq = pdq_hash(grey)
    return perceptual_hash(grey), pdq.hash, pdq.quality


def _orientation(image: Image.Image) -> int:
    """Returns the orientation by Exif alone: Pillow's `getexif` falls back to XMP. 1 if it cannot be read."""
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))
        orientation = exif.get(ExifTags.Base.Orientation, 1)
    except DECODE_ERRORS:
        return 1
    return orientation if orientation in _TURNS else 1


def _flat(image: Image.Image) -> Image.Image:
    """Converts to sRGB, then lays transparency over white: the profile describes colours without it."""
    colours, alpha = _separated(image)
    opaque = _to_srgb(colours, image.info.get("icc_profile"))
    if alpha is None:
        return opaque
    white = Image.new("RGB", opaque.size, "white")
    white.paste(opaque, mask=alpha)
    return white


def _separated(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Returns the colours in 8 bits, in a mode without alpha, and the alpha if there is any."""
    key = image.info.get("transparency")
    if image.mode in ("I;16", "I;16B", "I", "F"):
        alpha = None
        if isinstance(key, int):  # the one value that is transparent
            alpha = Image.fromarray((np.asarray(image) != key).astype(np.uint8) * np.uint8(255))
        return _eight_bits(image), alpha
    if image.mode in ("PA", "RGBA", "La", "RGBa") or (key is not None and image.mode != "L"):
        coloured = image.convert("RGBA")
        return coloured.convert("RGB"), coloured.getchannel("A")
    if image.mode == "LA" or key is not None:
        grey = image.convert("LA")
        return grey.convert("L"), grey.getchannel("A")
    if image.mode in ("P", "1"):
        return image.convert("RGB" if image.mode == "P" else "L"), None
    return image, None


def _narrow_key(image: Image.Image) -> None:
    """Of an RGB PNG of 16 bits Pillow keeps the high bytes, but not those of the transparent colour."""
    key = image.info.get("transparency")
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    if isinstance(key, tuple) and tiles and tiles[0].args == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in key)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Reduces a 16-bit grey PNG to the high byte of each pixel."""
    return image.convert("I").point(lambda value: value * (1 / 257)).convert("L")


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    if profile and image.mode in ("RGB", "CMYK", "L"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(
                image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
        except (ImageCms.PyCMSError, OSError, ValueError):
            converted = None  # ignore a broken profile, or one of another colour space
        if converted is not None:
            return converted
    return image if image.mode == "RGB" else image.convert("RGB")  # convert() would copy it
