"""Models laid out as on Hugging Face's hub."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

from laion_etl.core.errors import ModelError
from laion_etl.score import demo_model
from laion_etl.score.hub import in_folder
from laion_etl.score.model import ClipModel, embedding_dim, load_model
from laion_etl.score.weights_origin import channels_of
from laion_etl.settings import ClipSettings
from tests.score.conftest import TINY


@pytest.fixture
def folder(tmp_path: Path, tiny_model: ClipModel) -> Path:
    """The demo's model, laid out as open_clip publishes models, with its own preprocessing."""
    config = {
        "model_cfg": json.loads(demo_model.CONFIG_FILE.read_text()),
        "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "resize_mode": "squash"},
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    save_file(tiny_model.network.state_dict(), tmp_path / "open_clip_model.safetensors")
    return tmp_path


def of(model: str) -> ClipSettings:
    return replace(TINY, model=model)


def test_a_folder_gives_the_model_with_its_own_preparation(folder: Path, tiny_model: ClipModel) -> None:
    model = load_model(of(f"local-dir:{folder}"))
    texts = ["two red stars", "a house"]
    assert np.allclose(model.embed_texts(texts), tiny_model.embed_texts(texts), atol=1e-6)
    assert model.weights_sha256 == tiny_model.weights_sha256
    assert model.name == f"local-dir:{folder}"
    assert model.pixel_plan.squash
    assert list(model.network.visual.preprocess_cfg["std"]) == [0.25] * 3  # type: ignore[union-attr, index]
    assert not model.is_tiny
    assert embedding_dim(of(f"local-dir:{folder}")) == model.dim


@pytest.mark.parametrize(
    ("value", "found"),
    [(0.5, [0.5] * 3), ([0.5], [0.5] * 3), ((0.5, 0.4, 0.3), [0.5, 0.4, 0.3]), (1, [1, 1, 1])],
)
def test_one_number_is_that_of_all_channels(value: object, found: list[float]) -> None:
    assert channels_of({"mean": value, "std": 0.25}) == (found, [0.25] * 3)


@pytest.mark.parametrize(
    ("name", "value"),
    [("mean", [0.5, 0.5]), ("mean", "a"), ("mean", None), ("std", [0.2, 0, 0.2]), ("std", float("nan"))],
)
def test_a_mean_or_deviation_of_another_form_is_refused(name: str, value: object) -> None:
    with pytest.raises(ModelError, match=f"the {name} .*set LAION_ETL_CLIP_{name.upper()}"):
        channels_of({"mean": 0.5, "std": 0.25, name: value})


def test_a_model_with_one_mean_for_all_channels_is_loaded(folder: Path) -> None:
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["preprocess_cfg"] |= {"mean": 0.5, "std": 0.25}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    mean, deviation = load_model(of(f"local-dir:{folder}")).channels
    assert (mean.flatten().tolist(), deviation.flatten().tolist()) == ([0.5] * 3, [0.25] * 3)


def test_what_is_no_such_folder_is_named(folder: Path) -> None:
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"has no weights; expected one of open_clip_model\.safetensors"):
        load_model(of(f"local-dir:{folder}"))
    with pytest.raises(ModelError, match=r"it has no open_clip_config\.json"):
        load_model(of("local-dir:/nowhere"))


def test_a_hub_id_that_cannot_be_had_is_one_line() -> None:
    with pytest.raises(ModelError, match="cannot download hf-hub:a/b/c") as caught:
        in_folder(of("hf-hub:a/b/c"))  # not an id: refused before any request
    assert "\n" not in str(caught.value)
