"""What is not finite is never safe: refused when it is loaded, or counted as not scored."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from laion_etl.core.errors import InternalError, ModelError
from laion_etl.core.head_columns import HeadColumn
from laion_etl.dataset.variants import unsafe_reasons
from laion_etl.io.storage import Store
from laion_etl.score import encode
from laion_etl.score.head import HeadInput
from laion_etl.score.head_registry import load_heads
from laion_etl.score.heads import load_anchors, load_head
from laion_etl.score.model import ClipModel, load_model
from laion_etl.score.nsfw_head import load_nsfw_head
from laion_etl.score.scorer import load_scorer
from laion_etl.score.stage import score_shards
from laion_etl.score.watermark import read_watermark_model, save_ours, small_network
from laion_etl.settings import PublishSettings, SafetySettings
from tests.score.conftest import (
    CRAWL,
    TINY,
    TINY_SETTINGS,
    TOOLS,
    fitting,
    read_parquet,
    score,
    write_shard,
)
from tests.score.test_published_heads import small_head
from tests.score.test_stage import STAR

SCORES = ("similarity", "nsfw_tag", "punsafe", "aesthetic")


def spoilt(model: ClipModel, path: Path, change: Callable[[torch.Tensor], None]) -> str:
    """A checkpoint of the model with a change to the projection of images."""
    state = {name: value.clone() for name, value in model.network.state_dict().items()}
    change(state["visual.proj"])
    torch.save(state, path)
    return str(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_tower_with_weights_that_are_not_finite_is_refused_by_name(
    tiny_model: ClipModel, tmp_path: Path, value: float
) -> None:
    path = spoilt(tiny_model, tmp_path / "spoilt.pt", lambda weight: weight[0, 0].fill_(value))
    with pytest.raises(ModelError, match=r"spoilt\.pt: visual\.proj has values that are not finite"):
        load_model(replace(TINY, pretrained=path))


def test_a_tower_whose_finite_weights_overflow_is_refused(tiny_model: ClipModel, tmp_path: Path) -> None:
    path = spoilt(tiny_model, tmp_path / "large.pt", lambda weight: weight.fill_(3e38))
    with pytest.raises(ModelError, match="its embedding of an image is zero or not finite"):
        load_model(replace(TINY, pretrained=path))


def test_heads_with_weights_that_are_not_finite_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "head"
    torch.save({"weight": torch.ones(1, 8), "bias": torch.tensor([float("nan")])}, path)
    with pytest.raises(ModelError, match="bias has values that are not finite"):
        load_head(path, 8)
    texts = np.ones((2, 8), np.float32)
    texts[1, 3] = np.inf
    np.save(tmp_path / "texts.npy", texts)
    with pytest.raises(ModelError, match="a text embedding has values that are not finite"):
        load_anchors(tmp_path / "texts.npy", 8)
    np.save(tmp_path / "texts.npy", np.zeros((2, 8), np.float32))
    with pytest.raises(ModelError, match="one of them is zero"):
        load_anchors(tmp_path / "texts.npy", 8)
    replace(small_head(8), mean=np.full(8, np.nan, np.float32)).save(path)
    with pytest.raises(ModelError, match="mean has values that are not finite"):
        load_nsfw_head(path, 8)
    replace(small_head(8), variance=np.full(8, -1, np.float32)).save(path)
    with pytest.raises(ModelError, match="a variance is negative"):
        load_nsfw_head(path, 8)
    network = small_network((4,))
    network[0].weight.data.fill_(float("nan"))
    save_ours(network, 16, tmp_path / "marks.safetensors")
    with pytest.raises(ModelError, match=r"0\.weight has values that are not finite"):
        read_watermark_model(tmp_path / "marks.safetensors", "cpu")


def test_heads_whose_scores_overflow_or_are_all_the_same_are_refused(
    tiny_model: ClipModel, tmp_path: Path
) -> None:
    dim = tiny_model.dim
    large, flat, dead = tmp_path / "large", tmp_path / "flat", tmp_path / "dead"
    torch.save({"weight": torch.full((1, dim), 3e38), "bias": torch.tensor([3e38])}, large)
    torch.save({"weight": torch.full((1, dim), 1e-12), "bias": torch.tensor([5.0])}, flat)
    # After the first layer nothing passes the ReLU: the rest sees zeros only.
    shapes = {0: (4, dim), 3: (4, 4), 6: (4, 4), 9: (4, 4), 11: (1, 4)}
    state = {f"layers.{n}.weight": torch.ones(shape) for n, shape in shapes.items()}
    state |= {
        f"layers.{n}.bias": torch.full((shape[0],), -1e6 if n == 0 else 1.0) for n, shape in shapes.items()
    }
    torch.save(state, dead)
    unsafe = small_head(dim)
    replace(unsafe, biases=(np.full(4, -1e6, np.float32), unsafe.biases[1])).save(
        tmp_path / "nsfw.safetensors"
    )
    for safety, cause in (
        (SafetySettings(aesthetic_head=str(large)), "its scores are not finite"),
        (SafetySettings(aesthetic_head=str(flat)), "it gives every image the same score"),
        (SafetySettings(aesthetic_head=str(dead)), "it gives every image the same score"),
        (SafetySettings(nsfw_head=str(tmp_path / "nsfw.safetensors")), "it gives every image the same score"),
    ):
        with pytest.raises(ModelError, match=cause):
            load_heads(replace(TINY_SETTINGS, safety=safety), tiny_model)


class NanForFirst:
    """A built-in head, by its column, that fails for the first sample it sees."""

    columns = (HeadColumn("aesthetic", "aesthetic score"),)
    identity = "nan"

    def score(self, samples: HeadInput) -> np.ndarray:
        values = np.ones(len(samples.images), np.float32)
        values[0] = np.nan
        return values


def test_a_score_that_is_not_finite_is_counted_and_the_sample_is_not_kept(store: Store) -> None:
    write_shard(store, [fitting(STAR), fitting(STAR, seed=1)])
    scorer = load_scorer(TINY_SETTINGS)
    tools = replace(TOOLS, scorer=lambda _: replace(scorer, heads=(*scorer.heads, NanForFirst())))
    [stats] = score_shards(CRAWL, [3], TINY_SETTINGS, store, tools=tools)
    assert (stats.kept, stats.dropped) == (1, {"not_scored": 1})
    first, second = read_parquet(store)
    assert (first["reason"], second["reason"]) == ("not_scored", None)
    assert [first[name] for name in SCORES] == [None] * len(SCORES)


def test_a_similarity_that_is_not_finite_is_not_a_low_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shard(store, [fitting(STAR)])
    monkeypatch.setattr(encode, "row_products", lambda left, _right: np.full(len(left), np.nan))
    assert score(store).dropped == {"not_scored": 1}
    assert [read_parquet(store)[0][name] for name in SCORES] == [None] * len(SCORES)


def test_a_shard_without_finite_scores_is_not_done(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shard(store, [fitting(STAR)] * 11)
    monkeypatch.setattr(encode, "row_products", lambda left, _right: np.full(len(left), np.nan))
    with pytest.raises(InternalError, match="11 of 11 samples have a score that is not finite"):
        score(store)
    assert store.list("scored") == []


@pytest.mark.parametrize("limit", [0.2, 1.0])
def test_research_safe_has_no_row_whose_punsafe_is_missing_or_nan(limit: float) -> None:
    rows = pa.RecordBatch.from_pydict(
        {
            "nsfw_tag": ["UNLIKELY"] * 3 + [None],
            "punsafe": pa.array([0.1, None, float("nan"), 0.1], pa.float32()),
        }
    )
    reasons = unsafe_reasons(rows, PublishSettings(safe_max_punsafe=limit)).to_pylist()
    assert reasons == [None] + ["not_checked_for_safety"] * 3
