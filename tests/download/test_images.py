import io
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from laion_etl.blocklists.image_hashes import PdqBlocklist
from laion_etl.core.funnel import DownloadStatus as S
from laion_etl.download.hashes import pdq_hash, perceptual_hash
from laion_etl.download.image_header import sniff
from laion_etl.download.images import ImageSettings, StoredImage, decode, undecoded
from laion_etl.minicrawl.scenes import draw, random_scene
from laion_etl.settings import DownloadSettings
from tests.download.image_files import SRGB, encoded
from tests.download.test_hashes import photograph

LIMITS = ImageSettings.from_settings(DownloadSettings(min_bytes=100, max_pixels=2_000_000))


def with_settings(**changes: Any) -> ImageSettings:
    return ImageSettings.from_settings(
        DownloadSettings(**{"min_bytes": 100, "max_pixels": 2_000_000, **changes})
    )


def scene(seed: int, width: int = 320, height: int = 240) -> Image.Image:
    rng = random.Random(seed)
    return draw(random_scene(rng), width, height, rng)


def stored(data: bytes, limits: ImageSettings = LIMITS) -> tuple[StoredImage, Image.Image]:
    result = decode(data, limits)
    assert isinstance(result, StoredImage), result
    image = Image.open(io.BytesIO(result.data))
    image.load()
    assert image.size == (result.width, result.height)
    return result, image


def quadrants(image: Image.Image) -> list[tuple[int, ...]]:
    """Rounded colours of the four corners, by reading order."""
    rgb = image.convert("RGB").resize((2, 2), Image.Resampling.BOX)
    return [tuple(round(v / 128) for v in rgb.getpixel((x, y))) for y in range(2) for x in range(2)]  # type: ignore[union-attr]


def corners() -> Image.Image:
    """Red, green over blue, white."""
    pixels = np.zeros((80, 120, 3), np.uint8)
    pixels[:40, :60], pixels[:40, 60:], pixels[40:, :60], pixels[40:, 60:] = (
        (255, 0, 0),
        (0, 255, 0),
        (0, 0, 255),
        (255, 255, 255),
    )
    return Image.fromarray(pixels)


@pytest.mark.parametrize(("format_", "extension"), [("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp")])
def test_small_plain_images_are_stored_unchanged(format_: str, extension: str) -> None:
    data = encoded(scene(1), format_)
    result, _ = stored(data)
    assert result.data == data
    assert (result.format, result.width, result.height) == (extension, 320, 240)


def test_a_longer_short_side_is_scaled_down() -> None:
    result, image = stored(encoded(scene(1, 1200, 800)))
    assert (result.original_width, result.original_height) == (1200, 800)
    assert image.size == (384, 256)
    assert image.format == "JPEG"


def test_every_size_is_kept_when_the_limit_is_off() -> None:
    data = encoded(scene(1, 1200, 800))
    assert stored(data, with_settings(resize_mode="no"))[0].data == data


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(orientation: int) -> None:
    upright = corners()
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    turned = upright if undo is None else upright.transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    result, image = stored(encoded(turned, quality=95, exif=exif))
    assert (result.original_width, result.original_height) == (120, 80)
    assert quadrants(image) == quadrants(upright)


def test_location_data_is_never_stored() -> None:
    exif = Image.Exif()
    exif[0x8825] = {1: "N", 2: (47.0, 22.0, 0.0)}
    data = encoded(scene(1), exif=exif)
    result, image = stored(data)
    assert result.data != data
    assert not image.getexif()


@pytest.mark.parametrize(
    ("mode", "format_"), [("CMYK", "JPEG"), ("P", "PNG"), ("RGBA", "PNG"), ("RGBA", "WEBP")]
)
def test_other_modes_become_rgb(mode: str, format_: str) -> None:
    options = {"lossless": True} if format_ == "WEBP" else {}
    image = corners().convert(mode)
    _, found = stored(encoded(image, format_, **options), with_settings(min_bytes=50))
    assert found.mode == "RGB"
    assert quadrants(found) == quadrants(corners())


def test_sixteen_bits_keep_their_brightness() -> None:
    ramp = np.tile(np.linspace(0, 65535, 120, dtype=np.uint16), (80, 1))
    _, image = stored(encoded(Image.fromarray(ramp), "PNG"))
    row = np.asarray(image.convert("L"))[40].astype(int)
    assert abs(row[0] - 0) < 4
    assert abs(row[60] - 128) < 4
    assert abs(row[119] - 255) < 4


def test_transparency_lies_over_white() -> None:
    clear = Image.new("RGBA", (80, 80), (255, 0, 0, 0))
    _, image = stored(encoded(clear, "PNG"), with_settings(min_bytes=10))
    assert image.convert("RGB").getpixel((40, 40)) == (255, 255, 255)


def test_a_profile_becomes_srgb_when_converted() -> None:
    _, image = stored(encoded(scene(1, 900, 600), icc_profile=SRGB))
    assert "icc_profile" not in image.info


def test_a_broken_profile_is_ignored() -> None:
    assert stored(encoded(scene(1, 900, 600), icc_profile=b"no profile"))[1].size == (384, 256)


@pytest.mark.parametrize(
    ("made", "status"),
    [
        (lambda: b"", S.TOO_FEW_BYTES),
        (lambda: encoded(scene(1))[:99], S.TOO_FEW_BYTES),
        (lambda: b"<html>" * 100, S.NOT_AN_IMAGE),
        (lambda: encoded(scene(1), "GIF"), S.FORMAT_REFUSED),
        (lambda: encoded(scene(1), "BMP"), S.FORMAT_REFUSED),
        (lambda: encoded(scene(1), "TIFF"), S.FORMAT_REFUSED),
        (lambda: encoded(scene(1, 2000, 1001)), S.TOO_MANY_PIXELS),
        (lambda: encoded(scene(1))[:-500], S.DECODE_FAILED),
        (lambda: encoded(scene(1), "PNG")[:-500], S.DECODE_FAILED),
        (lambda: encoded(scene(1), "WEBP")[:-500], S.DECODE_FAILED),
        (lambda: encoded(scene(1))[:4] + bytes(5000), S.DECODE_FAILED),
        (lambda: b"\x89PNG\r\n\x1a\n" + bytes(5000), S.DECODE_FAILED),
        (lambda: b"RIFF\0\0\0\0WEBP" + bytes(5000), S.DECODE_FAILED),
        (lambda: encoded(scene(1), "PNG", save_all=True, append_images=[scene(2)]), S.ANIMATED),
        (lambda: encoded(scene(1), "WEBP", save_all=True, append_images=[scene(2)]), S.ANIMATED),
    ],
)
def test_a_refused_image_has_a_reason(made: Callable[[], bytes], status: S) -> None:
    assert decode(made(), LIMITS) is status


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"\xff\xd8\xff\xe0", None),
        (b"\x89PNG\r\n\x1a\n", None),
        (b"RIFF\x00\x10\x00\x00WEBPVP8 ", None),
        (b"RIFF\x00\x10\x00\x00WAVEfmt ", S.NOT_AN_IMAGE),
        (b"GIF89a", S.FORMAT_REFUSED),
        (b"\x00\x00\x00\x1cftypavif", S.FORMAT_REFUSED),
        (b"\x00\x00\x00\x1cftypisom", S.NOT_AN_IMAGE),
        (b"%PDF-1.7", S.NOT_AN_IMAGE),
        (b"", S.NOT_AN_IMAGE),
    ],
)
def test_the_first_bytes_decide(head: bytes, status: S | None) -> None:
    assert sniff(head) is status


def distance(a: str, b: str) -> int:
    return (int(a, 16) ^ int(b, 16)).bit_count()


def test_the_perceptual_hash_survives_scaling_and_compression() -> None:
    for seed in range(10):
        image = scene(seed, 640, 480)
        small = Image.open(io.BytesIO(encoded(image.resize((200, 150)), quality=60)))
        assert distance(perceptual_hash(image.convert("L")), perceptual_hash(small.convert("L"))) <= 6


def test_lists_are_compared_with_the_hash_of_the_original() -> None:
    listed = replace(with_settings(), listed_hashes=True, perceptual_hashes=False)
    for seed in range(5):
        image = scene(seed, 1_200, 900)
        data = encoded(image, quality=90)
        reference = pdq_hash(Image.open(io.BytesIO(data)).convert("L")).hash
        large, _ = stored(data, listed)
        assert large.pdq is None
        assert distance(large.original_pdqs[0], reference) <= 12
    small = encoded(scene(1, 200, 150))
    assert undecoded(small, with_settings(perceptual_hashes=False)) is not None
    assert undecoded(small, listed) is None
    assert stored(small, listed)[0].original_pdqs[0] == stored(small)[0].pdq


@pytest.mark.parametrize("turn", Image.Transpose)
def test_lists_are_compared_with_mirrored_and_turned_images_too(turn: Image.Transpose) -> None:
    listed = replace(with_settings(), listed_hashes=True)
    image = photograph(3, (800, 600))
    known = PdqBlocklist([bytes.fromhex(pdq_hash(image).hash)], 31)
    found, _ = stored(encoded(image.transpose(turn), quality=85), listed)
    assert any(map(known.matches, found.compared_hashes))
    other, _ = stored(encoded(photograph(4, (800, 600)).transpose(turn), quality=85), listed)
    assert not any(map(known.matches, other.compared_hashes))


def test_different_images_have_distant_hashes() -> None:
    hashes = [perceptual_hash(scene(seed).convert("L")) for seed in range(20)]
    assert all(len(value) == 16 for value in hashes)
    distances = [distance(a, b) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert np.median(distances) > 16
