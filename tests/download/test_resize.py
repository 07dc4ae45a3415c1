"""The resize modes and what they do to sizes and pixels."""

import pytest
from PIL import Image

from laion_etl.core.funnel import DownloadStatus as S
from laion_etl.download.image_header import dimensions, is_plain
from laion_etl.download.images import StoredImage, decode, undecoded
from tests.download.image_files import encoded
from tests.download.test_images import scene, stored, with_settings


@pytest.mark.parametrize(
    ("mode", "size", "expected"),
    [
        ("no", (1200, 800), (1200, 800)),
        ("keep_ratio", (1200, 800), (384, 256)),
        ("keep_ratio", (800, 1200), (256, 384)),
        ("keep_ratio_largest", (1200, 800), (256, 171)),
        ("center_crop", (1200, 800), (256, 256)),
        ("border", (1200, 800), (256, 256)),
        ("keep_ratio", (200, 100), (200, 100)),
        ("border", (200, 100), (200, 100)),
        ("keep_ratio_largest", (300, 100), (256, 85)),
    ],
)
def test_sizes(mode: str, size: tuple[int, int], expected: tuple[int, int]) -> None:
    result, image = stored(encoded(scene(1, *size)), with_settings(resize_mode=mode))
    assert image.size == expected
    assert (result.original_width, result.original_height) == size


def test_small_images_are_scaled_up_if_the_settings_say_so() -> None:
    grown = with_settings(resize_only_if_bigger=False)
    assert stored(encoded(scene(1, 200, 100)), grown)[1].size == (512, 256)


def test_a_border_is_white_and_a_crop_is_the_middle() -> None:
    red = encoded(Image.new("RGB", (600, 300), "red"))
    _, bordered = stored(red, with_settings(resize_mode="border"))
    assert min(bordered.convert("RGB").getpixel((128, 20))) > 240  # type: ignore[arg-type, type-var]
    stripes = Image.new("RGB", (900, 300), "blue")
    stripes.paste("red", (300, 0, 600, 300))
    _, cropped = stored(encoded(stripes), with_settings(resize_mode="center_crop"))
    for place in ((5, 128), (250, 128)):
        red_value, _, blue_value = cropped.convert("RGB").getpixel(place)  # type: ignore[misc]
        assert red_value > 200
        assert blue_value < 60


@pytest.mark.parametrize(
    ("name", "format_"), [("jpg", "JPEG"), ("webp", "WEBP"), ("png", "PNG"), ("avif", "AVIF")]
)
def test_output_formats(name: str, format_: str) -> None:
    result, image = stored(encoded(scene(1, 900, 600)), with_settings(encode_format=name))
    assert (result.format, image.format) == (name, format_)


def test_rules_of_size() -> None:
    data = encoded(scene(1, 400, 100))
    assert decode(data, with_settings(min_side=101)) is S.TOO_FEW_PIXELS
    assert decode(data, with_settings(max_aspect_ratio=3.9)) is S.ASPECT_RATIO
    assert isinstance(decode(data, with_settings(min_side=100, max_aspect_ratio=4.0)), StoredImage)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
def test_headers_agree_with_the_decoder(format_: str) -> None:
    data = encoded(scene(1, 321, 123), format_)
    assert dimensions(data) == (321, 123)
    assert is_plain(data)
    assert dimensions(data[:20]) is None


def turned(orientation: int, place: bool) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    if place:
        exif[0x8825] = {1: "N", 2: (47.0, 22.0, 0.0)}
    return encoded(scene(1), exif=exif)


def test_only_plain_images_stay_undecoded() -> None:
    kept = with_settings(resize_mode="no", perceptual_hashes=False)
    plain = encoded(scene(1))
    result = undecoded(plain, kept)
    assert result is not None
    assert (result.data, result.width, result.height, result.phash) == (plain, 320, 240, None)
    assert undecoded(turned(1, place=False), kept) is not None
    half_clear = scene(1)
    half_clear.putalpha(128)
    needs_work = [
        turned(6, place=False),
        turned(1, place=True),
        encoded(scene(1).convert("CMYK")),
        encoded(scene(1).convert("P"), "PNG"),
        encoded(scene(1).convert("RGBA"), "PNG"),
        encoded(half_clear, "WEBP"),
        plain[:-1_000],
        plain + b"PK" * 100,
    ]
    assert [undecoded(data, kept) for data in needs_work] == [None] * len(needs_work)
    assert undecoded(plain, with_settings(resize_mode="no")) is None
