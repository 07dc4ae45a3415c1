"""Heads of one's own: their columns travel from scoring to the dataset, and mistakes are refused."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import laion_etl as le
from laion_etl.core.errors import InputError, InternalError, ModelError, SettingsError
from laion_etl.core.head_columns import HeadColumn
from laion_etl.core.schemas import DATASET_SCHEMA, SCORED_SCHEMA
from laion_etl.dataset.manifest import current_manifest
from laion_etl.io.storage import Store
from laion_etl.io.tarshard import read_members
from laion_etl.minicrawl.scenes import Scene
from laion_etl.publish.diff import diff_versions
from laion_etl.publish.stage import publish_dataset
from laion_etl.publish.verify import verify_version
from laion_etl.score import head_registry
from laion_etl.score.head import HeadInput, score_all
from laion_etl.score.head_registry import load_custom_heads
from laion_etl.score.model import ClipModel
from laion_etl.score.scorer import load_scorer
from laion_etl.score.stage import score_shards
from laion_etl.settings import SafetySettings, Settings, load_settings
from tests.score.conftest import CRAWL, TINY_SETTINGS, TOOLS, fitting, read_parquet, score, write_shard

HERE = __name__
SCENES = [Scene(color, "star", "beach", "single") for color in ("red", "blue", "green")]


class Brightness:
    """Two columns, of the embedding and of the caption."""

    columns = (
        HeadColumn("brightness", "first number of the embedding, doubled | <b>"),
        HeadColumn("caption_words", "number of words of the caption", "int32"),
    )
    identity = "brightness 1"

    def __init__(self, settings: SafetySettings, model: ClipModel) -> None:
        assert isinstance(settings, SafetySettings)
        assert model.embed_texts(["a text"]).shape == (1, model.dim)

    def score(self, samples: HeadInput) -> Mapping[str, Any]:
        words = [len(caption.split()) for caption in samples.captions]
        return {"brightness": samples.images[:, 0] * 2, "caption_words": words}


class Brighter(Brightness):
    identity = "brightness 2"


def no_head(_settings: object, _model: object) -> str:
    return "a head"


class NoIdentity(Brightness):
    identity = ""


class TakenColumn(Brightness):
    columns = (HeadColumn("aesthetic", "another aesthetic score"),)


class TakenPublishedColumn(Brightness):
    columns = (HeadColumn("url", "URL in the dataset, if capitals are the same"),)


class NoColumns(Brightness):
    columns = ()


def with_heads(*names: str) -> Settings:
    safety = SafetySettings(heads=tuple(f"{HERE}:{name}" for name in names))
    return replace(TINY_SETTINGS, safety=safety)


def test_columns_of_a_head_are_in_every_file_with_their_meaning(store: Store) -> None:
    write_shard(store, [fitting(scene, seed=seed) for seed, scene in enumerate(SCENES)])
    plain = score(store)
    before = read_parquet(store)
    stats = score(store, with_heads("Brightness"))
    assert stats.fingerprint != plain.fingerprint
    with store.open(f"scored/{CRAWL}/000000003.parquet") as file:
        table = pq.read_table(file)
    assert table.column_names == [*SCORED_SCHEMA.names, "brightness", "caption_words"]
    assert table.schema.field("caption_words").type == pa.int32()
    assert table.schema.field("brightness").metadata[b"laion_etl.head"] == b"brightness 1"
    assert table.select(SCORED_SCHEMA.names).to_pylist() == before
    image = np.load(io.BytesIO(store.read(f"scored/{CRAWL}/000000003_img_emb.npy")))
    assert np.allclose(table["brightness"].to_numpy(), image[:, 0].astype(np.float32) * 2, atol=1e-2)
    words = [len(row["caption"].split()) for row in table.to_pylist()]
    assert table["caption_words"].to_pylist() == words
    with store.open(f"scored/{CRAWL}/000000003.tar") as tar:
        notes = [json.loads(data) for name, data in read_members(tar) if name.endswith(".json")]
    assert [note["caption_words"] for note in notes] == words


def test_columns_of_a_head_are_published_and_described(store: Store) -> None:
    settings = with_heads("Brightness")
    write_shard(store, [fitting(scene, seed=seed) for seed, scene in enumerate(SCENES)])
    score(store, settings)
    publish_dataset(CRAWL, settings, store)
    dataset = le.Dataset(current_manifest("laion", store), store, settings)  # type: ignore[arg-type]
    table = pa.concat_tables(dataset.rows())
    assert table.column_names == [*DATASET_SCHEMA.names, "brightness", "caption_words"]
    scored = {row["key"]: row["brightness"] for row in read_parquet(store)}
    assert dict(zip(table["key"].to_pylist(), table["brightness"].to_pylist(), strict=True)) == scored
    assert verify_version("laion", "", store).problems == []
    document = dataset.manifest.document
    assert document["schema"][-2:] == [
        {
            "name": "brightness",
            "type": "float",
            "nullable": True,
            "meaning": "first number of the embedding, doubled | <b>",
            "head": "brightness 1",
        },
        {
            "name": "caption_words",
            "type": "int32",
            "nullable": True,
            "meaning": "number of words of the caption",
            "head": "brightness 1",
        },
    ]
    assert [column.name for column in dataset.manifest.parts[0].columns] == ["brightness", "caption_words"]
    card = store.read(f"dataset/laion/{CRAWL}/README.md").decode()
    assert "| brightness | float | first number of the embedding, doubled \\| &lt;b> |" in card
    croissant = json.loads(store.read(f"dataset/laion/{CRAWL}/croissant.json"))
    fields = {field["name"]: field for field in croissant["recordSet"][0]["field"]}
    assert fields["caption_words"]["description"] == "number of words of the caption"
    assert fields["caption_words"]["dataType"] == "sc:Integer"


def test_a_version_with_a_head_differs_from_one_without(store: Store) -> None:
    write_shard(store, [fitting(scene, seed=seed) for seed, scene in enumerate(SCENES)])
    for settings in (TINY_SETTINGS, with_heads("Brightness")):
        score(store, settings)
        publish_dataset(CRAWL, settings, store)
    found = diff_versions("laion", CRAWL, f"{CRAWL}.2", store)
    en = next(change for change in found.subsets if change.subset == "laion-en")
    assert (en.added, en.removed, en.changed, en.unchanged) == (0, 0, 0, 3)
    assert found.columns_added == ("brightness", "caption_words")
    assert [change.setting for change in found.settings] == ["safety.heads"]


def test_batches_of_different_heads_are_not_published_together(store: Store) -> None:
    for batch, head in ((3, "Brightness"), (4, "Brighter")):
        write_shard(store, [fitting(SCENES[0])], batch)
        score(store, with_heads(head), batch)
    with pytest.raises(InputError, match=r"have the column brightness from different heads; score"):
        publish_dataset(CRAWL, TINY_SETTINGS, store)
    assert store.list("dataset") == []


def test_a_batch_without_the_head_has_no_values(store: Store) -> None:
    for batch, settings in ((3, TINY_SETTINGS), (4, with_heads("Brightness"))):
        write_shard(store, [fitting(SCENES[batch - 3], seed=batch)], batch)
        score(store, settings, batch)
    publish_dataset(CRAWL, TINY_SETTINGS, store)
    dataset = le.Dataset(current_manifest("laion", store), store, TINY_SETTINGS)  # type: ignore[arg-type]
    table = pa.concat_tables(dataset.rows())
    assert table["brightness"].is_valid().to_pylist() == [False, True]
    assert verify_version("laion", "", store).problems == []


def test_a_file_with_a_column_that_no_head_described_is_refused(store: Store) -> None:
    write_shard(store, [fitting(SCENES[0])])
    stats = score(store, with_heads("Brightness"))
    plain = replace(stats, details={name: stats.details[name] for name in stats.details if name != "columns"})
    store.write_stats(f"scored/{CRAWL}/000000003_stats.json", plain)
    with pytest.raises(InputError, match="does not have the columns of a scored shard"):
        publish_dataset(CRAWL, TINY_SETTINGS, store)


@pytest.mark.parametrize(
    ("names", "cause"),
    [
        (["no_head"], r"without the method score\(samples\)"),
        (["NoIdentity"], "its `identity` is not a name"),
        (["NoColumns"], "its `columns` are not a tuple of HeadColumn"),
        (["TakenColumn"], "there is a column 'aesthetic' already"),
        (["TakenPublishedColumn"], "there is a column 'url' already"),
        (["Brightness", "Brighter"], "there is a column 'brightness' already"),
        (["no_such_head"], "has no function no_such_head"),
    ],
)
def test_what_is_no_head_is_refused_before_any_work(
    names: list[str], cause: str, tiny_model: ClipModel
) -> None:
    with pytest.raises(SettingsError, match=f"LAION_ETL_SAFETY_HEADS.*{cause}"):
        load_custom_heads(with_heads(*names), tiny_model)


def test_a_malformed_name_is_refused_when_settings_are_loaded() -> None:
    with pytest.raises(SettingsError, match=r"LAION_ETL_SAFETY_HEADS.*is not module:factory"):
        load_settings({"LAION_ETL_SAFETY_HEADS": "gore"})


@pytest.mark.parametrize(
    ("column", "cause"),
    [
        ({"name": "Gore"}, "other characters"),
        ({"name": "gore\n"}, "other characters"),
        ({"meaning": ""}, "no meaning"),
        ({"meaning": "two\nlines"}, "no meaning"),
        ({"type": "float16"}, "'float16' is not a type; use float32"),
    ],
)
def test_a_column_needs_a_plain_name_a_meaning_and_a_known_type(column: dict[str, str], cause: str) -> None:
    with pytest.raises(SettingsError, match=cause):
        HeadColumn(**{"name": "gore", "meaning": "probability of gore", **column})


class Fixed:
    """Returns what it is given."""

    identity = "fixed"

    def __init__(self, values: Any, *types: str) -> None:
        self.columns = tuple(HeadColumn(f"c{i}", "a number", kind) for i, kind in enumerate(types))
        self._values = values

    def score(self, _samples: HeadInput) -> Any:
        return self._values


def given(count: int = 2) -> HeadInput:
    return HeadInput(np.ones((count, 4), np.float32), ["a"] * count)


@pytest.mark.parametrize(
    ("values", "kind", "cause"),
    [
        ([0.5, np.nan], "float32", "not finite as c0"),
        ([0.5, np.inf], "float32", "not finite as c0"),
        ([0.5, 1e300], "float32", "not finite as c0"),
        ([0.5], "float32", r"values of shape \(1,\) for 2 samples"),
        ([[0.5], [0.5]], "float32", r"values of shape \(2, 1\) for 2 samples"),
        ([0.5, 0.5], "int32", "float64 values.*a column of int32"),
        ([1, 2**40], "int32", "too large for int32"),
        ([None, 0.5], "float32", "object values"),
        (["yes", "no"], "bool", "a column of bool"),
        ({"c1": [1.0, 1.0]}, "float32", r"it returned \['c1'\] for its columns \['c0'\]"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_values_that_a_column_cannot_hold_are_refused(values: Any, kind: str, cause: str) -> None:
    with pytest.raises(ModelError, match=f"cannot use the head Fixed: .*{cause}"):
        score_all([Fixed(values, kind)], given())


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([1, 2**40], "int64", [1, 2**40]),
        (np.array([True, False]), "bool", [True, False]),
        (["a", "bc"], "string", ["a", "bc"]),
        ({"c0": None}, "float32", [None, None]),
        (np.array([0.5, 0.25], np.float64), "float32", [0.5, 0.25]),
    ],
)
def test_values_become_plain_ones_of_the_type(values: Any, kind: str, expected: Sequence[Any]) -> None:
    assert score_all([Fixed(values, kind)], given()) == {"c0": expected}


def test_a_later_head_replaces_the_column_of_an_earlier_one() -> None:
    assert score_all([Fixed([1.0, 1.0], "float32"), Fixed([2.0, 2.0], "float32")], given()) == {"c0": [2, 2]}


def test_a_sample_whose_embedding_is_not_finite_has_no_scores_and_costs_no_other() -> None:
    class Sum:
        columns = (HeadColumn("total", "sum of the embedding"),)
        identity = "sum"

        def score(self, samples: HeadInput) -> np.ndarray:
            assert samples.captions == ["b"]
            return samples.images.sum(axis=1)

    images = np.ones((3, 4), np.float32)
    images[0, 1], images[2, 3] = np.nan, np.inf
    assert score_all([Sum()], HeadInput(images, ["a", "b", "c"])) == {"total": [None, 4.0, None]}
    assert score_all([Sum()], HeadInput(images[:1], ["a"])) == {"total": [None]}


def test_a_built_in_head_may_add_a_column_that_no_schema_has(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a new one touches its module and the list of heads."""
    built_in = (*head_registry.BUILT_IN, lambda settings, model: Brightness(settings.safety, model))
    monkeypatch.setattr(head_registry, "BUILT_IN", built_in)
    scorer = load_scorer(TINY_SETTINGS)
    assert [(column.name, column.head) for column in scorer.columns] == [
        ("brightness", "brightness 1"),
        ("caption_words", "brightness 1"),
    ]
    write_shard(store, [fitting(SCENES[0])])
    tools = replace(TOOLS, scorer=lambda _: scorer)
    [stats] = score_shards(CRAWL, [3], TINY_SETTINGS, store, tools=tools)
    assert [column["name"] for column in stats.details["columns"]] == ["brightness", "caption_words"]
    assert read_parquet(store)[0]["caption_words"] > 2


class Picky(Brightness):
    """Raises for a word, whatever comes with it."""

    def score(self, samples: HeadInput) -> Mapping[str, Any]:
        if any("blue" in caption for caption in samples.captions):
            raise ZeroDivisionError("blue divides nothing")
        return super().score(samples)


class Broken(Brightness):
    def score(self, _samples: HeadInput) -> Mapping[str, Any]:
        raise RuntimeError("the weights are missing")


def test_an_exception_of_a_head_costs_its_values_for_the_sample(store: Store) -> None:
    write_shard(store, [fitting(scene, seed=seed) for seed, scene in enumerate(SCENES)])
    score(store, with_heads("Brightness"))
    before = read_parquet(store)
    stats = score(store, with_heads("Picky"))
    rows = read_parquet(store)
    blue = [number for number, row in enumerate(rows) if "blue" in row["caption"]]
    assert len(blue) == 1
    own = ("brightness", "caption_words")
    for number, (row, whole) in enumerate(zip(rows, before, strict=True)):
        assert row == (whole | dict.fromkeys(own) if number in blue else whole)
    assert (stats.kept, stats.details["internal_error"]) == (3, 1)
    key = rows[blue[0]]["key"]
    error = "ZeroDivisionError: blue divides nothing"
    assert stats.details["internal_errors"] == [{"key": key, "head": "Picky", "error": error}]


def test_a_head_that_fails_for_too_many_samples_ends_the_stage(store: Store) -> None:
    write_shard(store, [fitting(SCENES[0], seed=seed) for seed in range(11)])
    with pytest.raises(
        InternalError, match="the head Broken raised exceptions for 11 of 11 samples, such as"
    ):
        score(store, with_heads("Broken"))
    assert store.list("scored") == []


def test_an_exception_of_a_head_that_judges_safety_is_not_contained() -> None:
    head = Fixed([0.5], "float32")
    head.columns = (HeadColumn("punsafe", "probability that the image is unsafe"),)
    head.score = lambda _: 1 / 0  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        score_all([head], given(1), lambda *_: None)
