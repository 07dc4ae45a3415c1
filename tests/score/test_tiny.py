"""The shipped weights reach their documented quality on scenes unseen in training and calibration."""

import random

import numpy as np
import pytest

from laion_etl.minicrawl.aesthetic import rule
from laion_etl.minicrawl.held_out import (
    Similarities,
    calibrate,
    embed_photos,
    photo,
    quality,
    similarities,
)
from laion_etl.minicrawl.scenes import LANGUAGES, random_scene
from laion_etl.score.demo_model import AESTHETIC_FILE, MODELS, metadata, shipped_calibration
from laion_etl.score.heads import load_head
from laion_etl.score.model import ClipModel
from laion_etl.score.safety import PROMPTS, NsfwTag, SafetyJudge, load_prompts

FRESH_SEED = 771
SCENES = 200


@pytest.fixture(scope="module")
def fresh() -> random.Random:
    assert abs(metadata()["plan"]["seed"] - FRESH_SEED) > 10
    return random.Random(FRESH_SEED)


def test_precision_and_recall_at_the_shipped_thresholds(tiny_model: ClipModel, fresh: random.Random) -> None:
    shipped = shipped_calibration()
    scenes = [random_scene(fresh) for _ in range(SCENES)]
    images = embed_photos(tiny_model, scenes, fresh)
    others = [language for language in LANGUAGES if language != "en"]
    for languages, threshold in ((["en"], shipped.threshold_en), (others, shipped.threshold_other)):
        found = similarities(tiny_model, scenes, images, languages, fresh)
        assert len(found.matching) == len(found.mismatching) == SCENES * len(languages)
        measured = quality(found, threshold)
        assert measured.precision >= 0.95
        assert measured.recall >= 0.95


def test_texts_about_something_else_fit_no_image(tiny_model: ClipModel, fresh: random.Random) -> None:
    images = embed_photos(tiny_model, [random_scene(fresh) for _ in range(60)], fresh)
    texts = [
        "click here for more",
        "logo",
        "our summer holiday 2019",
        "Impressum und Kontakt",
        "IMG_2034.JPG",
    ]
    cosines = images @ tiny_model.embed_texts(texts).T
    assert (cosines >= shipped_calibration().threshold_en).mean() < 0.01


def test_hazard_signs_are_told_from_everything_else(tiny_model: ClipModel) -> None:
    rng = random.Random(772)
    scenes = [random_scene(rng) for _ in range(300)]
    judge = SafetyJudge(tiny_model, load_prompts(PROMPTS / "laion-etl-tiny.json"))
    verdicts = judge.judge(embed_photos(tiny_model, scenes, rng), [""] * len(scenes))
    tagged = [verdict.nsfw_tag is not NsfwTag.UNLIKELY for verdict in verdicts]
    hazards = [scene.hazard for scene in scenes]
    assert sum(hazards) >= 5
    assert sum(a == b for a, b in zip(tagged, hazards, strict=True)) >= 296
    assert all(tag for tag, hazard in zip(tagged, hazards, strict=True) if hazard)


def test_the_aesthetic_head_follows_its_rule(tiny_model: ClipModel) -> None:
    rng = random.Random(773)
    scenes = [random_scene(rng) for _ in range(120)]
    state = rng.getstate()
    images = embed_photos(tiny_model, scenes, rng)
    rng.setstate(state)
    expected = [rule(photo(scene, rng)) for scene in scenes]
    scores = load_head(AESTHETIC_FILE, tiny_model.dim).score(images)
    assert np.corrcoef(scores, expected)[0, 1] > 0.8
    assert -1 < scores.min() < 4
    assert 5 < scores.max() < 12


def test_the_shipped_files_stay_small() -> None:
    assert sum(path.stat().st_size for path in MODELS.iterdir()) < 8_000_000


def test_calibration_finds_the_gap() -> None:
    found = Similarities(np.array([0.8, 0.9, 0.85], np.float32), np.array([0.1, 0.3, 0.2], np.float32))
    threshold = calibrate(found)
    assert 0.3 < threshold <= 0.8
    assert (quality(found, threshold).precision, quality(found, threshold).recall) == (1.0, 1.0)
    assert quality(found, 0.95).recall == 0


def test_photos_are_as_a_download_leaves_them() -> None:
    rng = random.Random(774)
    images = [photo(random_scene(rng), rng) for _ in range(40)]
    assert all(image.mode == "RGB" and min(image.size) <= 256 for image in images)
    assert len({image.size for image in images}) > 30
