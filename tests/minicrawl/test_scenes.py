"""Drawn scenes: the same seed draws the same image; captions say what is there, in their language."""

import io
import random
from dataclasses import replace

import gcld3
import numpy as np
import pytest
from PIL import Image

from laion_etl.minicrawl.scenes import (
    BACKGROUNDS,
    COLOURS,
    LANGUAGES,
    LAYOUTS,
    SHAPES,
    Scene,
    caption,
    draw,
    random_scene,
)

STAR = Scene("red", "star", "beach", "two")


def test_the_same_seed_draws_the_same_image_and_another_seed_another() -> None:
    first, again, other = (draw(STAR, 200, 150, random.Random(seed)) for seed in (1, 1, 2))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


@pytest.mark.parametrize("size", [(64, 64), (64, 128), (300, 150), (1601, 1200)])
def test_every_size_is_drawn_in_rgb(size: tuple[int, int]) -> None:
    image = draw(STAR, *size, random.Random(3))
    assert (image.size, image.mode) == (size, "RGB")


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_jpegs_are_as_heavy_as_photographs(background: str) -> None:
    rng = random.Random(4)
    for size in ((200, 200), (200, 100)):
        file = io.BytesIO()
        draw(replace(STAR, background=background), *size, rng).save(file, "JPEG", quality=90)
        assert len(file.getvalue()) > 6_000


@pytest.mark.parametrize(
    "change", [{"colour": "blue"}, {"shape": "heart"}, {"layout": "grid"}, {"hazard": True}]
)
def test_every_part_of_a_scene_shows(change: dict[str, str | bool]) -> None:
    changed = replace(STAR, **change)  # type: ignore[arg-type]
    images = [draw(scene, 128, 128, random.Random(5)) for scene in (STAR, changed)]
    before, after = (np.asarray(image, np.int16) for image in images)
    assert (np.abs(before - after).max(axis=2) > 60).mean() > 0.02


def test_there_is_enough_to_tell_apart() -> None:
    assert len(COLOURS) >= 8
    assert len(SHAPES) >= 6
    assert len(BACKGROUNDS) >= 8
    assert len(LAYOUTS) >= 4
    rng = random.Random(6)
    scenes = [random_scene(rng) for _ in range(2_000)]
    assert len(set(scenes)) > 800
    assert 40 <= sum(scene.hazard for scene in scenes) <= 140


def test_captions_name_colour_shape_layout_and_background() -> None:
    text = caption(STAR, "en", random.Random(7)).lower()
    assert all(word in text for word in ("two", "red", "stars", "sandy beach"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_different_scenes_never_share_a_caption(language: str) -> None:
    scenes = {
        Scene(colour, shape, background, layout)
        for colour in COLOURS
        for shape in SHAPES
        for background in BACKGROUNDS
        for layout in LAYOUTS
    }
    assert len({caption(scene, language, random.Random(8)) for scene in scenes}) == len(scenes)


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("en", "hazard sign"),
        ("de", "gefahrenschild"),
        ("fr", "panneau de danger"),
        ("es", "señal de peligro"),
        ("ru", "знак опасности"),
    ],
)
def test_hazard_scenes_say_so(language: str, words: str) -> None:
    rng = random.Random(9)
    assert words in caption(replace(STAR, hazard=True), language, rng).lower()
    assert words not in caption(STAR, language, rng).lower()


@pytest.mark.parametrize("language", LANGUAGES)
def test_cld3_recognises_the_language_of_most_captions(language: str) -> None:
    identifier = gcld3.NNetLanguageIdentifier(min_num_bytes=5, max_num_bytes=2000)
    rng = random.Random(10)
    found = [identifier.FindLanguage(caption(random_scene(rng), language, rng)) for _ in range(300)]
    right = [result for result in found if result.language == language and result.is_reliable]
    assert len(right) >= 285


def test_a_big_image_opens_as_a_jpeg_of_its_size() -> None:
    file = io.BytesIO()
    draw(STAR, 3000, 1500, random.Random(11)).save(file, "JPEG")
    assert Image.open(file).size == (3000, 1500)
