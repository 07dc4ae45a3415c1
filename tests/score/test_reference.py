"""Known weights are compared with recorded embeddings: another function of the same weights shows."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from laion_etl.cli import app
from laion_etl.core.errors import ModelError
from laion_etl.score.fixed_inputs import CAPTIONS, fixed_images, fixed_pixels
from laion_etl.score.model import ClipModel, load_model
from laion_etl.score.pixels import PixelPlan
from laion_etl.score.reference import FOLDER, compare, warn_of_difference, write
from scripts.record_reference import record
from tests.score.conftest import TINY, set_environment


def test_the_demos_model_agrees_with_its_record(tiny_model: ClipModel) -> None:
    found = compare(tiny_model)
    assert found is not None
    assert found.agrees
    found.check(tiny_model.name)


def test_the_shipped_record_is_what_the_script_makes(tiny_model: ClipModel, tmp_path: Path) -> None:
    path = record(TINY, tmp_path)
    assert (FOLDER / path.name).is_file()
    found = compare(tiny_model, tmp_path)
    assert found is not None
    assert max(found.images, found.captions) < 1e-6


@pytest.mark.parametrize(
    "function",
    [
        {"quick_gelu": "yes"},
        {"mean": (0.0, 0.0, 0.0)},
        {"std": (0.25, 0.25, 0.25)},
        {"interpolation": "bilinear"},
        {"resize_mode": "squash"},
    ],
    ids=str,
)
def test_another_function_of_known_weights_is_found(
    function: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    model = load_model(replace(TINY, **function))
    found = compare(model)
    assert found is not None
    assert not found.agrees
    with pytest.raises(ModelError, match=r"cannot rely on the model laion-etl-tiny/scenes: it differs from"):
        found.check(model.name)
    with caplog.at_level(logging.WARNING):
        warn_of_difference(model)
    assert "differs from the recorded embeddings of these weights" in caplog.text


def test_lower_precision_is_allowed_more(tiny_model: ClipModel) -> None:
    found = compare(load_model(replace(TINY, precision="bf16")))
    assert found is not None
    assert found.agrees
    assert found.images > 1e-6


def test_weights_without_a_record_are_unknown(tiny_model: ClipModel) -> None:
    assert compare(replace(tiny_model, weights_sha256="0" * 64)) is None


def test_a_damaged_record_and_one_of_another_shape_are_named(tiny_model: ClipModel, tmp_path: Path) -> None:
    path = record(TINY, tmp_path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelError, match=rf"cannot compare with .*{path.name}"):
        compare(tiny_model, tmp_path)
    nothing = np.zeros((1, 2), np.float32)
    write(tmp_path, "laion-etl-tiny-scenes", tiny_model.weights_sha256, nothing, nothing)
    with pytest.raises(ModelError, match="it has embeddings of the shapes"):
        compare(tiny_model, tmp_path)


def test_the_command_fails_where_a_model_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, tmp_path)
    monkeypatch.setenv("LAION_ETL_CLIP_DEVICE", "cpu")
    result = CliRunner().invoke(app, ["model", "check", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["reference"]["agrees"] is True
    assert "reference: agrees with the recorded embeddings" in result.stderr
    monkeypatch.setenv("LAION_ETL_CLIP_OTHER_MODEL", "laion-etl-tiny")
    monkeypatch.setenv("LAION_ETL_CLIP_OTHER_PRETRAINED", "scenes")
    result = CliRunner().invoke(app, ["model", "check", "--json"])
    assert json.loads(result.stdout)["other"]["reference"]["agrees"] is True
    monkeypatch.setenv("LAION_ETL_CLIP_OTHER_PRETRAINED", str(tmp_path / "none.pt"))
    result = CliRunner().invoke(app, ["model", "check"])
    assert isinstance(result.exception, ModelError), result.output
    monkeypatch.delenv("LAION_ETL_CLIP_OTHER_MODEL")
    monkeypatch.delenv("LAION_ETL_CLIP_OTHER_PRETRAINED")
    monkeypatch.setenv("LAION_ETL_CLIP_QUICK_GELU", "yes")
    result = CliRunner().invoke(app, ["model", "check", "--json"])
    assert result.exit_code != 0
    assert json.loads(result.stdout)["reference"]["agrees"] is False


def test_the_fixed_inputs_are_always_the_same() -> None:
    """Recorded embeddings are of these: a change needs another VERSION and new records."""
    pixels = fixed_pixels(PixelPlan(8))
    assert pixels.shape == (len(fixed_images()), 8, 8, 3)
    assert pixels.reshape(len(pixels), -1).sum(axis=1).tolist() == [24383, 26560, 22709, 24913]
    assert len(CAPTIONS) == 8
