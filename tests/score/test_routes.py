"""Pairs in other languages are scored by a separate model."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from laion_etl.core.errors import ModelError
from laion_etl.io.storage import Store
from laion_etl.score.model import ClipModel, load_model
from laion_etl.score.openclip import create_network, open_clip
from laion_etl.settings import Settings
from tests.score.conftest import TINY, TINY_SETTINGS, fitting, read_parquet, score, write_shard
from tests.score.test_stage import HEART, MOON, STAR

ENTRIES = [fitting(STAR), fitting(HEART, "de", 1), fitting(MOON, "fr", 2), fitting(MOON)]


def checkpoint(path: Path, model: ClipModel, changed: Callable[[str], bool]) -> Settings:
    """Settings with a second model, whose weights differ a little where `changed` says so."""
    torch.manual_seed(1)
    state = {
        name: value + 0.02 * torch.randn_like(value) if changed(name) and value.is_floating_point() else value
        for name, value in model.network.state_dict().items()
    }
    torch.save(state, path)
    return replace(
        TINY_SETTINGS, clip=replace(TINY, other_model="laion-etl-tiny", other_pretrained=str(path))
    )


@pytest.mark.parametrize("of_images", [False, True])
def test_each_language_is_scored_by_its_model(
    tmp_path: Path, store: Store, tiny_model: ClipModel, of_images: bool
) -> None:
    changed = (lambda _: True) if of_images else (lambda name: not name.startswith("visual."))
    settings = checkpoint(tmp_path / "other.pt", tiny_model, changed)
    write_shard(store, ENTRIES)
    score(store)
    by_one = [row["similarity"] for row in read_parquet(store)]
    stats = score(store, settings)
    rows = read_parquet(store)
    by_two = [row["similarity"] for row in rows]
    assert stats.details["other_model"] == "laion-etl-tiny/other.pt"
    assert stats.details["other_weights_sha256"] != stats.details["weights_sha256"]
    assert stats.details["other_function"] == stats.details["function"]
    assert np.allclose([by_two[0], by_two[3]], [by_one[0], by_one[3]], atol=1e-6)
    other = load_model(replace(settings.clip, pretrained=settings.clip.other_pretrained))
    assert (other.image_sha256 != tiny_model.image_sha256) is of_images
    from io import BytesIO

    from PIL import Image

    for place in (1, 2):
        entry = ENTRIES[place]
        assert entry.image is not None
        assert entry.text is not None
        image = other.embed_images([other.preprocess(Image.open(BytesIO(entry.image)))])
        expected = float((image * other.embed_texts([entry.text.decode()])).sum())
        assert np.isclose(by_two[place], expected, atol=1e-3)
        assert not np.isclose(by_two[place], by_one[place], atol=1e-4)


def test_a_second_model_that_takes_other_pixels_is_refused(tmp_path: Path, store: Store) -> None:
    write_shard(store, ENTRIES)
    config = open_clip().get_model_config("laion-etl-tiny")
    config["vision_cfg"]["image_size"] = 32
    (tmp_path / "smaller-eyes.json").write_text(json.dumps(config))
    open_clip().add_model_config(tmp_path / "smaller-eyes.json")
    torch.save(create_network("smaller-eyes").state_dict(), tmp_path / "weights.pt")
    clip = replace(TINY, other_model="smaller-eyes", other_pretrained=str(tmp_path / "weights.pt"))
    with pytest.raises(ModelError, match=r"weights\.pt for other languages: it has 32 pixels a side and 64"):
        score(store, replace(TINY_SETTINGS, clip=clip))
