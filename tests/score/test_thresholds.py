"""Which threshold is in force for which model and language."""

from dataclasses import replace

import pytest

from laion_etl.score.demo_model import shipped_calibration
from laion_etl.score.thresholds import thresholds, warn_of_other_thresholds
from laion_etl.settings import ClipSettings
from tests.score.conftest import TINY


def test_real_models_use_the_thresholds_of_the_paper() -> None:
    found = thresholds(ClipSettings())
    assert (found.of("en"), found.of("de"), found.of("")) == (0.28, 0.26, 0.26)


def test_the_tiny_model_brings_its_calibrated_thresholds() -> None:
    found, shipped = thresholds(TINY), shipped_calibration()
    assert (found.of("en"), found.of("ru")) == (shipped.threshold_en, shipped.threshold_other)
    assert 0.3 < found.of("en") < 0.95


def test_a_threshold_that_someone_set_is_obeyed() -> None:
    assert thresholds(replace(TINY, threshold_en=0.5)).of("en") == 0.5
    assert thresholds(replace(TINY, threshold_en=0.5)).of("fr") == 0.26
    assert thresholds(ClipSettings(threshold_other=0.3)).of("fr") == 0.3
    assert thresholds(replace(TINY, pretrained="other.pt")).of("en") == 0.28


@pytest.mark.parametrize(
    ("model", "settings", "warned"),
    [
        ("ViT-B-32/openai", ClipSettings(), False),
        ("ViT-B-32/model.safetensors", ClipSettings(), False),
        ("ViT-B-32/openai, weights 0123456789ab, bf16 on cuda", ClipSettings(), False),
        ("hf-hub:timm/vit_base_patch32_clip_224.openai", ClipSettings(), False),
        ("hf-hub:timm/vit_base_patch32_clip_224.openai, weights 0123456789ab", ClipSettings(), False),
        ("hf-hub:timm/vit_base_patch32_clip_224.laion2b_e16", ClipSettings(), True),
        ("hf-hub:timm/other_vit_base_patch32_clip_224.openai", ClipSettings(), True),
        ("ViT-B-32/laion2b_s34b_b79k", ClipSettings(), True),
        ("ViT-L-14/openai", ClipSettings(), True),
        ("ViT-L-14/openai", ClipSettings(threshold_en=0.2), True),
        ("ViT-L-14/openai", ClipSettings(threshold_other=0.2), True),
        ("ViT-L-14/openai", ClipSettings(threshold_en=0.2, threshold_other=0.2), False),
        ("laion-etl-tiny/scenes", TINY, False),
    ],
)
def test_thresholds_of_another_model_are_warned_of(
    model: str, settings: ClipSettings, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_other_thresholds(model, thresholds(settings))
    assert ("laion-etl model calibrate" in caplog.text) is warned


def test_thresholds_are_warned_of_for_the_model_that_they_are_used_with(
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = "xlm-roberta-base-ViT-B-32/laion5b_s13b_b90k"
    warn_of_other_thresholds("ViT-B-32/openai", thresholds(ClipSettings()), other)
    assert [record.getMessage().partition(" chosen")[0] for record in caplog.records] == [
        f"{other}: the threshold 0.26 was"
    ]
    caplog.clear()
    warn_of_other_thresholds("ViT-L-14/openai", thresholds(ClipSettings()))
    assert [record.getMessage().partition(" chosen")[0] for record in caplog.records] == [
        "ViT-L-14/openai: 0.28 and 0.26 were"
    ]
    caplog.clear()
    warn_of_other_thresholds("ViT-B-32/openai", thresholds(ClipSettings(threshold_other=0.3)), other)
    assert caplog.records == []
