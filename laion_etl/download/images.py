"""Which images are accepted and what is stored of them. Pure functions that run in the decoder processes.

The original's rules: JPEG, PNG and WebP only, at least 5,000 bytes, at most 89,478,484 pixels, RGB. A plain
file (RGB or grey, in sRGB, upright, no location data, of the wanted size) is stored unchanged; any other is
stored as a new file: turned upright, converted to sRGB, transparency laid over white, 16 bits reduced to 8,
resized. `is_plain` alone decides, from the file, which of the two it is, whether or not the image is
decoded as well. Orientation is that of Exif, as in browsers; XMP's is ignored.

What browsers show without doubt is taken: a JPEG of which only the end marker is missing, a PNG with damaged
comments, a WebP whose container has the wrong length. A file that lacks pixels is refused.
"""

import io
import warnings
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image, ImageFile, PngImagePlugin

from laion_etl.core.funnel import DownloadStatus
from laion_etl.core.pdq_quality import is_compared
from laion_etl.download import jpeg_segments
from laion_etl.download.colours import declare_colours, in_srgb_without_alpha, scale_key
from laion_etl.download.hashes import pdq_hash, perceptual_hash, turned_pdq_hashes
from laion_etl.download.image_header import (
    CONTAINER_HEAD_BYTES,
    JPEG,
    PNG,
    ImageRules,
    dimensions,
    is_plain,
    sniff,
)
from laion_etl.download.jpeg_end import is_cut_off, with_end
from laion_etl.download.jpeg_structure import lacks_bytes, lacks_scans
from laion_etl.download.orientation import TURNS, TURNS_SIDES, orientation_of
from laion_etl.download.png_chunks import MAX_PROFILE_BYTES, without_extras
from laion_etl.download.png_pixels import lacks_rows, with_right_checksum
from laion_etl.download.resize import Resize
from laion_etl.download.webp_chunks import ends_in_frame, with_clear_canvas, with_right_length
from laion_etl.sandbox.pillow_safety import DECODE_ERRORS

if TYPE_CHECKING:  # a decoder does without
    from laion_etl.settings import DownloadSettings

EXTENSIONS = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp"}
ENCODINGS = {"jpg": "JPEG", "webp": "WEBP", "png": "PNG", "avif": "AVIF"}

_NOT_AS_IT_CAME = b""  # in place of a file that is not to be stored
_HASHED_SIZE = (512, 512)  # the size the reference implementation of PDQ scales to first
_LONGEST_SIDES = {"jpg": 65_500, "webp": 16_383, "avif": 65_536}  # that their encoders take

ImageFile.LOAD_TRUNCATED_IMAGES = False
# Of a colour profile; texts are left out before Pillow sees them.
PngImagePlugin.MAX_TEXT_CHUNK = MAX_PROFILE_BYTES


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """The download settings that a decoder needs."""

    rules: ImageRules
    resize: Resize
    encode_format: str
    encode_quality: int
    perceptual_hashes: bool = True
    listed_hashes: bool = False  # the original is hashed, too, to be compared with lists

    @classmethod
    def from_settings(cls, settings: "DownloadSettings") -> "ImageSettings":
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
    original_pdqs: tuple[str, ...] = ()  # before it was scaled, in all positions, to be compared with lists

    @property
    def compared_hashes(self) -> list[bytes]:
        """The PDQ hashes that the image is recognised by."""
        stored = self.pdq if is_compared(self.pdq_quality) else None
        return [bytes.fromhex(found) for found in (stored, *self.original_pdqs) if found]


def decode(data: bytes, settings: ImageSettings) -> StoredImage | DownloadStatus:
    """Returns the image to store, or why it is refused. Every pixel is decoded: a truncated image fails."""
    if len(data) < settings.rules.min_bytes:
        return DownloadStatus.TOO_FEW_BYTES
    if (refused := sniff(data[:CONTAINER_HEAD_BYTES], avif=settings.rules.avif)) is not None:
        return refused
    if data.startswith(JPEG) and jpeg_segments.too_many_scans(data):
        return DownloadStatus.TOO_MANY_SCANS
    if data.startswith(JPEG) and lacks_scans(data):
        return DownloadStatus.DECODE_FAILED
    if data.startswith(b"RIFF") and ends_in_frame(data):
        return DownloadStatus.DECODE_FAILED
    with warnings.catch_warnings(action="ignore"):  # Pillow warns about odd metadata
        try:
            return _decoded(_readable(data), data, settings)
        except DECODE_ERRORS:
            mended = _mended_png if data.startswith(PNG) else _mended_jpeg
            return mended(data, settings) if data.startswith((JPEG, PNG)) else DownloadStatus.DECODE_FAILED


def _mended_png(data: bytes, settings: ImageSettings) -> StoredImage | DownloadStatus:
    """Returns the result for a PNG of which only the checksum behind its pixels is wrong."""
    with suppress(*DECODE_ERRORS):
        if (mended := with_right_checksum(without_extras(data))) is not None:
            return _decoded(mended, _NOT_AS_IT_CAME, settings)
    return DownloadStatus.DECODE_FAILED


def _mended_jpeg(data: bytes, settings: ImageSettings) -> StoredImage | DownloadStatus:
    """Returns the result for a JPEG of which only metadata, or the end marker, are cut off."""
    with suppress(*DECODE_ERRORS):
        return _decoded(jpeg_segments.without_extras(data), data, settings)
    with suppress(*DECODE_ERRORS):
        if (ended := with_end(jpeg_segments.without_extras(data))) is not None:
            return _decoded(ended, data, settings)
    return DownloadStatus.DECODE_FAILED


def undecoded(data: bytes, settings: ImageSettings) -> StoredImage | None:
    """Returns a JPEG that its segments show can be stored unchanged; None if it has to be decoded.

    Damage within the pixels is only found by a decoder, whose checksums other formats have.
    """
    hashed = settings.perceptual_hashes or settings.listed_hashes
    if hashed or not data.startswith(JPEG) or len(data) < settings.rules.min_bytes:
        return None
    if (size := dimensions(data)) is None:
        return None
    # What takes a look at the whole file comes last: most images are resized.
    if settings.rules.refuse(*size) is not None or settings.resize.plan(size) is not None:
        return None
    if not is_plain(data):
        return None
    return StoredImage(data, "jpg", *size, *size, None, None, None)


def _readable(data: bytes) -> bytes:
    """Returns the file without faults that browsers pass over and Pillow does not."""
    if data.startswith(PNG):
        return without_extras(data)
    return with_right_length(with_clear_canvas(data)) if data.startswith(b"RIFF") else data


def _decoded(readable: bytes, data: bytes, settings: ImageSettings) -> StoredImage | DownloadStatus:
    formats = ("JPEG", "PNG", "WEBP", "AVIF") if settings.rules.avif else ("JPEG", "PNG", "WEBP")
    with Image.open(io.BytesIO(readable), formats=formats) as image:
        if (refused := _refused_by_header(image, settings.rules)) is not None:
            return refused
        is_jpeg = data.startswith(JPEG)
        if is_jpeg and lacks_bytes(readable, image.width * image.height):
            return DownloadStatus.DECODE_FAILED
        scale_key(image, readable)
        declare_colours(image, readable)
        found = _stored(image, data, settings)
        lacks_pixels = is_cut_off if is_jpeg else lacks_rows if image.format == "PNG" else None
        if lacks_pixels is not None and lacks_pixels(readable, image):
            return DownloadStatus.DECODE_FAILED
        return found


def _refused_by_header(image: Image.Image, rules: ImageRules) -> DownloadStatus | None:
    """Applies the checks that need no decoded pixels."""
    # An MPO (two-lens JPEG) counts frames too, but its first one is an ordinary JPEG.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        return DownloadStatus.ANIMATED
    return rules.refuse(*image.size)


def _stored(image: Image.Image, data: bytes, settings: ImageSettings) -> StoredImage | DownloadStatus:
    if image.format == "PNG":
        image.load()  # its Exif may follow the pixels
    turned = orientation_of(image)
    original = image.size if turned not in TURNS_SIDES else image.size[::-1]
    change = settings.resize.plan(original)
    plain = change is None and is_plain(data)
    size = original if change is None else change.size
    if not plain and max(size) > _LONGEST_SIDES.get(settings.encode_format, max(size)):
        return DownloadStatus.SIDE_TOO_LONG
    needed = change.scale_to if change is not None else _HASHED_SIZE if plain else None
    if needed is not None and image.format == "JPEG":
        # libjpeg downscales by a power of two while it decodes; the result is still at least this large.
        image.draft(None, needed if turned not in TURNS_SIDES else needed[::-1])
    image.load()
    if plain:
        extension = EXTENSIONS[image.format or ""]
        original_hashes = _original_hashes(image, settings)
        phash, pdq, hash_quality = _hashes(image, settings)
        return StoredImage(data, extension, *original, *original, phash, pdq, hash_quality, original_hashes)
    upright = in_srgb_without_alpha(image)
    if turned in TURNS:
        upright = upright.transpose(TURNS[turned])
    original_hashes = _original_hashes(upright, settings)
    if change is not None:
        upright = change.apply(upright)
    upright.info = {}  # Pillow writes some of it, such as comments, into the new file
    buffer = io.BytesIO()
    encoding = ENCODINGS[settings.encode_format]
    upright.save(buffer, encoding, quality=settings.encode_quality, exif=b"", icc_profile=None)
    phash, pdq, hash_quality = _hashes(upright, settings)
    rest = (*upright.size, *original, phash, pdq, hash_quality, original_hashes)
    return StoredImage(buffer.getvalue(), settings.encode_format, *rest)


def _hashes(image: Image.Image, settings: ImageSettings) -> tuple[str | None, str | None, int | None]:
    """Returns phash, PDQ and its quality of a decoded image."""
    if not settings.perceptual_hashes:
        return None, None, None
    grey = image.convert("L")
    pdq = pdq_hash(grey)
    return perceptual_hash(grey), pdq.hash, pdq.quality


def _original_hashes(image: Image.Image, settings: ImageSettings) -> tuple[str, ...]:
    """Returns PDQ of an image that is not scaled yet, as it is, mirrored and turned, if lists need it.

    Lists hold hashes of originals. That of the image scaled to 256 pixels is up to 34 bits away (17 on
    average of 39 images), which is more than lists are searched for; that of the original as libjpeg decodes
    it for scaling is 12 at most. The stored hash remains that of the stored image: hashes of one image in
    several sizes are then closer to each other (87% within 10 bits, of originals 68%). Nothing also for an
    image of low quality, which no list is searched for.
    """
    if not settings.listed_hashes:
        return ()
    quality, found = turned_pdq_hashes(image.convert("L"))
    return tuple(found) if is_compared(quality) else ()
