"""PDQ and its blocklist."""

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from laion_etl.blocklists.image_hashes import PdqBlocklist
from laion_etl.blocklists.turned_hashes import TURNS, turned
from laion_etl.core.errors import InputError
from laion_etl.core.pdq_quality import MIN_QUALITY
from laion_etl.download.hashes import pdq_hash, turned_pdq_hashes


def noise_image(seed: int, size: tuple[int, int]) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def distance(a: str, b: str) -> int:
    return (int(a, 16) ^ int(b, 16)).bit_count()


@pytest.mark.parametrize(
    ("seed", "size", "reference", "max_distance"),
    [  # by the reference implementation, which sees the colours before they are rounded to grey
        (0, (341, 256), "e3ee03aa43be282a18fdd289dc8f237223722976e30f98d5bc41783de91112fd", 0),
        (1, (256, 256), "57d5164529e658b538f407f1762989d689d6f40e470ba74ad6b1c93e702859be", 0),
        (2, (512, 384), "79a2c38d19e4306f96dd58a8e90c29a316f3a7576922d790f61b3876a75018fd", 2),
        (4, (64, 64), "fff9e0bcfb7e206bf836f202a748e2085cb709fd83c9c094dd81a353f206e904", 2),
        (5, (500, 131), "f244432857b0d68e47ee3876e30c18f34db3ef09b851296998c709ff3873e90d", 2),
        (6, (1200, 900), "d2f6b2d209f6c392e9055cb089c9b2b2f636a34f16fa386df609692c6d0b83d1", 2),
    ],
)
def test_pdq_agrees_with_the_reference(
    seed: int, size: tuple[int, int], reference: str, max_distance: int
) -> None:
    found = pdq_hash(noise_image(seed, size).convert("L"))
    assert distance(found.hash, reference) <= max_distance
    assert found.quality == 100


def photograph(seed: int, size: tuple[int, int]) -> Image.Image:
    """Noise with the spectrum of photographs, mode L."""
    width, height = size
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :])
    phases = np.exp(2j * np.pi * np.random.default_rng(seed).random((height, width)))
    waves = np.fft.ifft2(phases / np.maximum(frequency, 1 / max(size))).real
    return Image.fromarray(np.clip(waves / waves.std() * 50 + 128, 0, 255).astype(np.uint8))


POSITIONS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "as it is": lambda image: image,
    **{turn.name: partial(Image.Image.transpose, method=turn) for turn in Image.Transpose},
}


@pytest.mark.parametrize("position", POSITIONS)
def test_the_hashes_of_an_image_have_those_of_its_mirrored_and_turned_forms(position: str) -> None:
    for seed, size in ((0, (341, 256)), (1, (500, 700)), (2, (1_024, 768))):
        image = photograph(seed, size)
        other = pdq_hash(POSITIONS[position](image)).hash
        quality, hashes = turned_pdq_hashes(image)
        assert (quality, hashes[0]) == (pdq_hash(image).quality, pdq_hash(image).hash)
        assert len(set(hashes)) == len(hashes) == TURNS
        assert min(distance(one, other) for one in hashes) <= 31
        from_bits = turned(np.frombuffer(bytes.fromhex(hashes[0]), np.uint8)[None])
        assert from_bits[0].tobytes().hex() == hashes[0]
        assert min(distance(one.tobytes().hex(), other) for one in from_bits) <= 31


def test_a_large_image_is_averaged_first_which_hardly_changes_its_hash() -> None:
    fine = np.random.default_rng(7).integers(0, 256, (90, 120), dtype=np.uint8)
    image = Image.fromarray(fine).resize((2_000, 1_500), Image.Resampling.BICUBIC)
    reference = "9e7a7f0b1e51fc1683727d22e5370d531c12360a3b29d50e581a17baf3a2d6d4"
    assert distance(pdq_hash(image).hash, reference) <= 10


def drawing(circles: int) -> Image.Image:
    """Black circles on white: the more there are, the higher is the quality."""
    image = Image.new("L", (240, 180), "white")
    draw = ImageDraw.Draw(image)
    for number in range(circles):
        left, top = number % 8 * 30 + 4, number // 8 * 30 + 4
        draw.ellipse((left, top, left + 20, top + 20), fill="black")
    return image


@pytest.mark.parametrize(("circles", "quality"), [(0, 0), (1, 28), (3, 86), (6, 100)])
def test_the_quality_is_that_of_the_reference(circles: int, quality: int) -> None:
    assert pdq_hash(drawing(circles)).quality == quality


@pytest.mark.parametrize("size", [(4, 300), (300, 4), (1, 1)])
def test_the_quality_of_an_image_of_a_few_pixels_is_nothing(size: tuple[int, int]) -> None:
    assert pdq_hash(Image.effect_noise(size, 90)).quality == 0


def test_a_gradient_and_a_blank_image_are_of_low_quality() -> None:
    assert pdq_hash(Image.linear_gradient("L")).quality < MIN_QUALITY
    assert pdq_hash(Image.new("L", (300, 200), "white")).quality == 0


def test_pdq_agrees_with_the_package_of_the_reference(shared_data: Path) -> None:
    """Where pdqhash, which has to be compiled, is installed."""
    reference = pytest.importorskip("pdqhash")
    compared = 0
    for path in sorted((shared_data / "images").glob("*.jpg")):
        try:
            image = Image.open(path).convert("RGB")
        except OSError:
            continue
        bits, quality = reference.compute(np.ascontiguousarray(np.asarray(image)))
        found = pdq_hash(image.convert("L"))
        assert abs(found.quality - quality) <= 1, path.name
        if quality >= 80:
            assert distance(found.hash, f"{int(''.join(map(str, bits)), 2):064x}") <= 10, path.name
            compared += 1
    assert compared


def test_pdq_survives_scaling_and_distinguishes_images() -> None:
    for seed in range(5):
        image = noise_image(seed, (400, 300)).convert("L")
        found = pdq_hash(image).hash
        assert distance(found, pdq_hash(image.resize((256, 192))).hash) <= 31
        assert distance(found, pdq_hash(noise_image(seed + 50, (400, 300)).convert("L")).hash) > 60


def flipped(value: bytes, bits: list[int]) -> bytes:
    number = int.from_bytes(value, "big")
    for bit in bits:
        number ^= 1 << bit
    return number.to_bytes(len(value), "big")


@pytest.mark.parametrize("max_distance", [0, 5, 31, 40])
def test_a_near_hash_is_blocked_and_a_farther_one_is_not(max_distance: int) -> None:
    rng = random.Random(max_distance)
    blocked = [rng.randbytes(32) for _ in range(2_000)]
    listed = PdqBlocklist(blocked, max_distance)
    for _ in range(200):
        bits = rng.sample(range(256), max_distance + 1)
        near = rng.choice(blocked)
        assert listed.matches(flipped(near, bits[:max_distance]))
        assert not listed.matches(flipped(near, bits))


def test_a_list_of_hashes_is_read_and_an_invalid_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pdq.txt"
    path.write_text(f"# known\n{'ab' * 32}\n")
    listed = PdqBlocklist.load(str(path), 31)
    assert len(listed) == 1
    assert listed.matches(bytes.fromhex("ab" * 32))
    assert not PdqBlocklist.load("", 31).matches(bytes(32))
    path.write_text("ab" * 16)
    with pytest.raises(InputError, match=r"line 1: .* is not a PDQ hash in hexadecimal"):
        PdqBlocklist.load(str(path), 31)
