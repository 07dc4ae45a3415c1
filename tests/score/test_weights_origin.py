"""A checkpoint file gets the function that its weights were made for, or a warning."""

import hashlib
import json
import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.torch import save_file

from laion_etl.core.errors import ModelError, SettingsError
from laion_etl.score import weights_origin
from laion_etl.score.model import ClipModel, load_model
from laion_etl.score.openclip import open_clip
from laion_etl.score.scorer import SampleScorer, load_scorer
from laion_etl.score.weights import build_network
from laion_etl.score.weights_origin import description, function_of
from laion_etl.settings import ClipSettings, load_settings
from tests.score.conftest import TINY, TINY_SETTINGS

HALF = (0.5, 0.5, 0.5)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Stands for weights: only its name, folder and digest matter here."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights")
    return path


def of(model: str, path: Path, **settings: Any) -> dict[str, Any]:
    return function_of(ClipSettings(model=model, pretrained=str(path), **settings), path, {})


def test_weights_are_known_by_the_digest_that_open_clip_expects(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    digest = hashlib.sha256(b"weights").hexdigest()
    tags = {
        "others": {"url": f"https://github.com/mlfoundations/open_clip/x-{'0' * 8}.pt", "mean": HALF},
        "theirs": {"url": f"https://openaipublic.azureedge.net/clip/{digest}/B.pt", "quick_gelu": True},
    }
    known = SimpleNamespace(
        list_pretrained_tags_by_model=lambda _: list(tags), get_pretrained_cfg=lambda _, tag: tags[tag]
    )
    monkeypatch.setattr(weights_origin, "open_clip", lambda: known)
    assert of("ViT-B-32", file) == {"quick_gelu": True}
    tags["theirs"]["url"] = f"https://github.com/mlfoundations/open_clip/x-{digest[:8]}.pt"
    assert of("ViT-B-32", file) == {"quick_gelu": True}
    assert caplog.records == []


def test_the_digests_are_those_of_open_clips_own_urls() -> None:
    tags = open_clip().list_pretrained_tags_by_model("ViT-B-32")
    entries = {tag: open_clip().get_pretrained_cfg("ViT-B-32", tag) for tag in tags}
    digests = {tag: weights_origin._expected_sha256(entry) for tag, entry in entries.items()}
    assert len(digests["openai"]) == 64
    assert digests["laion400m_e32"] == "46683a32"
    assert digests["metaclip_400m"] == digests["laion2b_s34b_b79k"] == ""


@pytest.mark.parametrize(
    ("model", "folder", "quick_gelu"),
    [
        ("ViT-B-32", "models--timm--vit_base_patch32_clip_224.openai/snapshots/1", True),
        ("ViT-B-32", "vit_base_patch32_clip_224.metaclip_400m", True),
        ("ViT-B-32", "models--laion--CLIP-ViT-B-32-laion2B-s34B-b79K/snapshots/1", None),
        ("ViT-B-32-quickgelu", "models--laion--CLIP-ViT-B-32-laion2B-s34B-b79K/snapshots/1", False),
        ("ViT-B-32-quickgelu", "models--timm--vit_base_patch32_clip_224.openai/snapshots/1", True),
    ],
)
def test_weights_are_known_by_their_folder_of_the_hub(
    tmp_path: Path, model: str, folder: str, quick_gelu: bool | None, caplog: pytest.LogCaptureFixture
) -> None:
    """The weights are not read for that: here there are none."""
    path = tmp_path / folder / "open_clip_model.safetensors"
    assert of(model, path).get("quick_gelu") is quick_gelu
    assert caplog.records == []


def test_a_config_next_to_weights_of_the_hub_decides(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = file.rename(file.with_name("open_clip_model.safetensors"))
    config = path.parent / "open_clip_config.json"
    config.write_text(json.dumps({"model_cfg": {"quick_gelu": True}, "preprocess_cfg": {"mean": HALF}}))
    assert of("ViT-B-32", path) == {"quick_gelu": True, "mean": list(HALF)}
    assert caplog.records == []
    config.write_text("[]")
    with pytest.raises(ModelError, match=r"cannot read .*open_clip_config\.json"):
        of("ViT-B-32", path)


def test_siglip_weights_of_any_name_get_their_preprocessing(file: Path) -> None:
    """All of open_clip's weights for the architecture agree."""
    found = of("ViT-B-16-SigLIP", file)
    assert (found["mean"], found["std"], found["resize_mode"]) == (HALF, HALF, "squash")
    mobile = of("MobileCLIP-S1", file)
    assert (mobile["mean"], mobile["std"], mobile["interpolation"]) == ((0.0,) * 3, (1.0,) * 3, "bilinear")
    assert of("RN50", file)["quick_gelu"] is True


def test_where_the_tags_differ_a_warning_names_the_setting(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert "quick_gelu" not in of("ViT-B-32", file)
    assert "differ in quick_gelu, and nothing says which these are" in caplog.text
    assert "LAION_ETL_CLIP_QUICK_GELU" in caplog.text
    caplog.clear()
    assert of("ViT-B-32", file, quick_gelu="yes")["quick_gelu"] is True
    assert of("ViT-B-32", file, quick_gelu="no")["quick_gelu"] is False
    assert caplog.records == []


def test_settings_take_precedence_over_a_tag(file: Path) -> None:
    tag = open_clip().get_pretrained_cfg("ViT-B-32", "openai")
    settings = ClipSettings(mean=HALF, std=HALF, resize_mode="squash", interpolation="bilinear")
    assert function_of(settings, file, tag) == {
        "quick_gelu": True,
        "mean": HALF,
        "std": HALF,
        "resize_mode": "squash",
        "interpolation": "bilinear",
    }


def test_a_mean_has_three_numbers() -> None:
    with pytest.raises(SettingsError, match="a number for each of red, green and blue"):
        load_settings({"LAION_ETL_CLIP_MEAN": "0.5,0.5"})
    assert load_settings({"LAION_ETL_CLIP_MEAN": "0.5,0.4,0.3"}).clip.mean == (0.5, 0.4, 0.3)


def test_a_network_has_the_function_it_was_asked_for() -> None:
    wanted = {"quick_gelu": True, "mean": HALF, "std": HALF, "resize_mode": "squash"}
    found = description(build_network(TINY.model, wanted))
    assert (found["activation"], found["mean"], found["resize_mode"]) == (
        "QuickGELU()",
        list(HALF),
        "squash",
    )
    plain = description(build_network(TINY.model, {"quick_gelu": False}))
    assert plain["activation"] == "GELU(approximate='none')"


def test_another_function_of_the_same_weights_is_another_fingerprint(
    tiny_model: ClipModel, tmp_path: Path
) -> None:
    """Of a folder, whose config is not a setting: its activation, mean, and number of attention heads."""
    folder = tmp_path / "model"
    folder.mkdir()
    save_file(tiny_model.network.state_dict(), folder / "open_clip_model.safetensors")
    plain = open_clip().get_model_config(TINY.model)
    heads = {**plain, "text_cfg": {**plain["text_cfg"], "heads": plain["text_cfg"]["heads"] // 2}}
    scorer = load_scorer(TINY_SETTINGS)
    found = []
    for model_cfg, mean in (
        (plain, HALF),
        ({**plain, "quick_gelu": True}, HALF),
        (plain, (0, 0, 0)),
        (heads, HALF),
    ):
        config = {"model_cfg": model_cfg, "preprocess_cfg": {"mean": mean, "std": HALF}}
        (folder / "open_clip_config.json").write_text(json.dumps(config))
        model = load_model(replace(TINY, model=f"local-dir:{folder}"))
        assert model.weights_sha256 == tiny_model.weights_sha256
        found.append(replace(scorer, model=model).fingerprint)
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("change", [{"precision": "bf16"}, {"device": "cuda:1"}])
def test_another_precision_or_kind_of_device_is_another_fingerprint(change: dict[str, str]) -> None:
    """`precision=auto` is bf16 on a GPU and fp32 on a CPU."""
    scorer = load_scorer(TINY_SETTINGS)

    def with_model(**changes: str) -> SampleScorer:
        return replace(scorer, model=replace(scorer.model, **changes))

    assert with_model(**change).fingerprint != scorer.fingerprint
    assert with_model(device="cuda:1").fingerprint == with_model(device="cuda:0").fingerprint


def test_the_function_is_in_the_log_only_where_it_is_unknown(
    tiny_model: ClipModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """open_clip has no weights for the demo's architecture, so a file of it raises no warning."""
    path = tmp_path / "weights.safetensors"
    save_file(tiny_model.network.state_dict(), path)
    with caplog.at_level(logging.WARNING):
        assert load_model(replace(TINY, pretrained=str(path))).identity == tiny_model.identity
    assert "nothing says which" not in caplog.text
