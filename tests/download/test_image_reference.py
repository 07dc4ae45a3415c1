"""Two hundred images of all modes, profiles and orientations against Pillow's own way to sRGB on white."""

import io
import itertools
import random

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, ImageOps

from laion_etl.download.images import StoredImage
from tests.download.image_files import SRGB, encoded, exchanged, judged, linear_grey, pixels

SIZE = (24, 16)
PROFILES = {"none": None, "sRGB": SRGB, "colour": exchanged(), "grey": linear_grey()}
# Modes of Pillow, with the formats that have them.
MODES = {
    "1": ("PNG",),
    "L": ("PNG", "JPEG"),
    "LA": ("PNG",),
    "P": ("PNG",),
    "PA": ("PNG",),
    "RGB": ("PNG", "JPEG", "WEBP"),
    "RGBA": ("PNG", "WEBP"),
    "CMYK": ("JPEG",),
    "I;16": ("PNG",),
}
CASES = sorted(
    (mode, format_, profile, orientation)
    for mode, formats in MODES.items()
    for format_, profile, orientation in itertools.product(formats, PROFILES, range(1, 9))
)
CHOSEN = random.Random(1).sample(CASES, 200)


def made(mode: str, format_: str, profile: str, orientation: int) -> bytes:
    """An image of smooth colours, whose alpha has all values from clear to opaque."""
    across, down = np.meshgrid(np.linspace(0, 1, SIZE[0]), np.linspace(0, 1, SIZE[1]))
    planes = np.stack([across, down, 1 - across, (across + down) / 2], -1) * 255
    colours = Image.fromarray(planes.astype(np.uint8))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    options = {"exif": exif.tobytes(), "icc_profile": PROFILES[profile]}
    if format_ == "WEBP":
        options["lossless"] = True
    if mode == "I;16":
        grey = (across * 0xFFFF).astype(np.uint16)
        return encoded(Image.fromarray(grey), format_, **options)
    if mode in ("P", "PA"):
        image = colours.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE, colors=60)
        if mode == "PA":
            options["transparency"] = bytes(range(0, 240, 4))
        return encoded(image, format_, **options)
    return encoded(colours.convert(mode), format_, **options)


def reference(data: bytes) -> np.ndarray:
    """What Pillow's documented functions make of a file: colours to sRGB, then over white, then upright."""
    image = Image.open(io.BytesIO(data))
    profile = image.info.get("icc_profile")
    image.load()
    exif = image.getexif()
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) / 257).astype(np.uint8))
    elif image.mode in ("1", "LA"):
        image = image.convert("L")
    elif image.mode in ("P", "RGBA"):
        image = image.convert("RGBA").convert("RGB")
    if profile:
        try:
            of = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            image = ImageCms.profileToProfile(image, of, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except ImageCms.PyCMSError:  # of another colour space
            pass
    image = image.convert("RGB")
    if alpha is not None:
        image = Image.composite(image, Image.new("RGB", image.size, "white"), alpha)
    image.getexif()[ExifTags.Base.Orientation] = exif.get(ExifTags.Base.Orientation, 1)
    return np.asarray(ImageOps.exif_transpose(image)).astype(int)


@pytest.mark.parametrize("mode", MODES)
def test_what_is_stored_has_the_pixels_of_the_reference(mode: str) -> None:
    cases = [case for case in CHOSEN if case[0] == mode]
    assert cases
    for case in cases:
        data = made(*case)
        expected = reference(data)
        for stored in judged(data, encode_format="png", resize_mode="no"):
            assert isinstance(stored, StoredImage), case
            found = pixels(stored)
            assert found.shape == expected.shape, case
            assert np.abs(found - expected).max() <= 2, case
