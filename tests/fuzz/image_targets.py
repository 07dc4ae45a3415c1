"""Targets for what is read of images: files by our own readers of headers, and whole by Pillow."""

import io
import json
import struct
from collections.abc import Callable
from contextlib import suppress

from PIL import ExifTags, Image, ImageCms

from laion_etl.core.funnel import DownloadStatus
from laion_etl.download.content_opt_out import opted_out_by_metadata
from laion_etl.download.decoder_process import answer
from laion_etl.download.decoder_protocol import ANSWER
from laion_etl.download.decoders import _decoded
from laion_etl.download.icc_profile import is_srgb
from laion_etl.download.image_header import ImageRules, dimensions, is_plain, refused_by_beginning
from laion_etl.download.images import ImageSettings, StoredImage, undecoded
from laion_etl.download.jpeg_segments import too_many_scans
from laion_etl.download.jpeg_structure import has_every_coefficient
from laion_etl.download.png_chunks import without_extras
from laion_etl.download.resize import Resize
from laion_etl.download.webp_chunks import with_right_length
from laion_etl.sandbox.pillow_safety import DECODE_ERRORS
from laion_etl.settings import DownloadSettings

_RULES = ImageRules(min_bytes=1, max_pixels=1 << 14, min_side=1, max_aspect_ratio=0, avif=True)
_SETTINGS = ImageSettings(
    _RULES, Resize.from_settings(DownloadSettings()), "jpg", 90, perceptual_hashes=False
)
_LEVELS = (13, 26, 51, 89, 128, 166, 204, 242)  # about where curves are compared
_MOST_OFF = 12
_MADE_PROFILE_BYTES = 400  # of colours that a PNG declares in numbers


def images(data: bytes) -> None:
    """Headers and metadata of images, whole or cut off: a size that was there, and never an error."""
    refused_by_beginning(data, _RULES)
    dimensions(data)
    is_plain(data)
    opted_out_by_metadata(data)
    too_many_scans(data)
    has_every_coefficient(data)
    with_right_length(data)
    with suppress(ValueError):  # a chunk that cannot be left out
        assert len(without_extras(data)) <= len(data) + _MADE_PROFILE_BYTES


def decoded(data: bytes) -> None:
    """A file through a decoder: a reason, or an image that others can read, upright and without a place."""
    framed = answer(data, _SETTINGS, opt_out=True)
    text_length, data_length = ANSWER.unpack_from(framed)
    text, stored = framed[ANSWER.size :][:text_length], framed[ANSWER.size + text_length :]
    assert len(stored) == data_length
    found = _decoded(json.loads(text), stored or data).found
    unchanged = undecoded(data, _SETTINGS)
    if isinstance(found, StoredImage):
        _check(found)
    if unchanged is None or found is DownloadStatus.OPTED_OUT_METADATA:
        return
    _check(unchanged)
    # Only a decoder sees that pixels are missing.
    assert found in (unchanged, DownloadStatus.DECODE_FAILED)


def _check(stored: StoredImage) -> None:
    assert not opted_out_by_metadata(stored.data)
    with Image.open(io.BytesIO(stored.data), formats=("JPEG", "PNG", "WEBP")) as image:
        image.load()
        assert image.size == (stored.width, stored.height)
        assert image.mode in ("RGB", "L")
        exif = Image.Exif()
        with suppress(*DECODE_ERRORS):
            exif.load(image.info.get("exif", b""))
            assert not exif.get_ifd(ExifTags.IFD.GPSInfo)
            assert exif.get(ExifTags.Base.Orientation, 1) == 1


def profiles(data: bytes) -> None:
    """A colour profile: where it counts as sRGB, a colour library makes the same greys with it as without."""
    if not is_srgb(data):
        return
    mode = "L" if data[16:20] == b"GRAY" else "RGB"
    greys = Image.new(mode, (len(_LEVELS), 1))
    greys.putdata([level if mode == "L" else (level,) * 3 for level in _LEVELS])
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        made = ImageCms.profileToProfile(greys, profile, _SRGB, outputMode="RGB")
    except (OSError, ImageCms.PyCMSError):  # then readers ignore it
        return
    found = struct.iter_unpack("3B", made.tobytes()) if made is not None else ()
    for level, channels in zip(_LEVELS, found, strict=True):
        assert max(abs(channel - level) for channel in channels) <= _MOST_OFF


_SRGB = ImageCms.createProfile("sRGB")

IMAGES: tuple[Callable[[bytes], None], ...] = (images, decoded, profiles)
