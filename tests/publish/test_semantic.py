"""Samples left out by their embeddings: semantic duplicates, and samples near an evaluation set."""

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from laion_etl.cli import app
from laion_etl.core.errors import InputError, StoreOutageError
from laion_etl.core.ids import batch_name
from laion_etl.core.parquet_bounds import BoundedParquet
from laion_etl.dataset.evaluation_sets import EvaluationSet, read_set, write_set
from laion_etl.io.storage import Guard, LocalStore, NewFile, Store
from laion_etl.publish import clusters, semantic_compare, sorted_keys
from laion_etl.publish.band_files import key_numbers
from laion_etl.publish.batch_vectors import unit
from laion_etl.publish.compared_ranges import compare_ranges
from laion_etl.publish.ranges import hash_range, publish_range
from laion_etl.publish.semantic_compare import SCHEMA, are_redundant, redundant_keys
from laion_etl.publish.sorted_keys import SortedKeys
from laion_etl.publish.spools import Spool
from laion_etl.publish.stage import finish_variants, prepare_variants, publish_variants
from laion_etl.removal.lists import read_list
from laion_etl.removal.stage import remove
from laion_etl.settings import Settings
from tests.publish.test_ranges import documents_of, rows_of, settings_of
from tests.publish.world import CRAWL, WEIGHTS, Row, World, build_world, write_world

ONE = ("research",)
FOLDER = f"dataset/laion/{CRAWL}"
COSINE = 0.9
DIM = 16
Vectors = dict[int, NDArray[np.float16]]


def embeddings_of(world: World) -> Vectors:
    """Return the embeddings of the kept samples of each batch: families of vectors near each other."""
    rng = np.random.default_rng(3)
    families = rng.normal(size=(20, DIM))
    found = {}
    for batch, rows in world.batches.items():
        kept = sum(row["reason"] is None for row in rows)
        spread = rng.choice((0.0, 0.05, 0.2, 0.6), (kept, 1))
        vectors = families[rng.integers(0, 20, kept)] + spread * rng.normal(size=(kept, DIM))
        found[batch] = unit(vectors.astype(np.float32)).astype(np.float16)
    return found


def write_with_embeddings(world: World, store: Store) -> Vectors:
    write_world(world, store)
    found = embeddings_of(world)
    for batch, vectors in found.items():
        stem = f"scored/{CRAWL}/{batch_name(batch)}"
        with store.create(f"{stem}_img_emb.npy") as file:
            np.save(file, vectors)
        stats = store.read_stats(f"{stem}_stats.json")
        store.write_stats(f"{stem}_stats.json", replace(stats, outputs=(*stats.outputs, file.output)))
    return found


@pytest.fixture(scope="module")
def world() -> World:
    return build_world(batches=5, samples=24)


def best_first(world: World, vectors: Vectors) -> list[tuple[Row, NDArray[np.float32]]]:
    """Return the kept samples from best to worst, each with its embedding."""
    rows = [
        (row, vector)
        for batch, found in world.batches.items()
        for row, vector in zip(
            [one for one in found if one["reason"] is None], unit(vectors[batch]), strict=True
        )
    ]
    rows.sort(
        key=lambda one: (
            -np.float32(one[0]["similarity"]),
            -one[0]["original_width"] * one[0]["original_height"],
            one[0]["key"],
        )
    )
    return rows


def duplicates_by_hand(world: World, vectors: Vectors, cosine: float) -> set[str]:
    """Compare every sample with all better ones."""
    kept: list[NDArray[np.float32]] = []
    redundant = set()
    for row, vector in best_first(world, vectors):
        if any(float(vector @ other) >= cosine for other in kept):
            redundant.add(row["key"])
        else:
            kept.append(vector)
    return redundant


def check_rule(world: World, vectors: Vectors, redundant: set[int]) -> None:
    """Check what several clusters leave out: samples near a better one, and most of these."""
    rows = best_first(world, vectors)
    left_out = {row["key"] for row, _ in rows if key_numbers(np.asarray([row["key"]], "S"))[0] in redundant}
    assert len(left_out) == len(redundant)
    near = {
        row["key"]
        for place, (row, vector) in enumerate(rows)
        if any(float(vector @ better) >= COSINE for _, better in rows[:place])
    }
    assert left_out <= near
    assert len(left_out) > 0.8 * len(duplicates_by_hand(world, vectors, COSINE))


def published_keys(store: Store, version: str = CRAWL) -> set[str]:
    rows = rows_of(store, f"dataset/laion/{version}")
    return {row["key"] for subset in ("laion-en", "laion-multi", "laion-nolang") for row in rows[subset]}


@pytest.fixture
def few_in_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "SAMPLES_PER_CLUSTER", 12)
    monkeypatch.setattr(clusters, "SAMPLE_PER_CLUSTER", 2)
    monkeypatch.setattr(semantic_compare, "_CLUSTERS_PER_CHECKPOINT", 3)
    monkeypatch.setattr(semantic_compare, "_SPOOLED_AT_ONCE", 30)


def publish_in_ranges(store: Store, batches_per_range: int, **publish: Any) -> None:
    settings = settings_of(batches_per_range, variants=ONE, **publish)
    count = prepare_variants(CRAWL, settings, store)
    assert isinstance(count, int)
    for number in range(count, 0, -1):
        hash_range(CRAWL, number, count, settings, store, ONE)
    compare_ranges(CRAWL, settings, store, ONE)
    for number in range(count, 0, -1):
        publish_range(CRAWL, number, count, settings, store, ONE)
    finish_variants(CRAWL, settings, store)
    assert isinstance(prepare_variants(CRAWL, settings, store), list), "nothing has changed"


def test_of_near_embeddings_the_best_sample_is_published(world: World, tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    vectors = write_with_embeddings(world, store)
    settings = settings_of(100, variants=ONE, semantic_duplicates=COSINE)
    [stats] = publish_variants(CRAWL, settings, store)
    redundant = duplicates_by_hand(world, vectors, COSINE)
    assert published_keys(store) == {row["key"] for row in world.kept} - redundant
    assert stats.dropped == {"semantic_duplicate_image": len(redundant)}
    card = store.read(f"{FOLDER}/README.md").decode()
    assert f"| semantic duplicate image (publish) | {len(redundant)} |" in card
    manifest = json.loads(store.read(f"{FOLDER}/manifest.json"))
    assert manifest["settings"]["publish"]["semantic_duplicates"] == COSINE
    assert f"{len(redundant)}" in store.read(f"{FOLDER}/report/index.html").decode()


class LostStore(LocalStore):
    """Refuses new files for which `refuses` returns True."""

    refuses: Callable[[str], bool] = staticmethod(lambda _: False)

    @contextmanager
    def create(self, name: str, guard: Guard | None = None) -> Iterator[NewFile]:
        if self.refuses(name):
            raise StoreOutageError(f"cannot write {name}: the store is lost")
        with super().create(name, guard) as file:
            yield file


@pytest.mark.usefixtures("few_in_a_cluster")
def test_a_comparison_that_was_killed_goes_on_where_it_was(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, settings = LostStore(tmp_path), settings_of(3, variants=ONE, semantic_duplicates=COSINE)
    vectors = write_with_embeddings(world, store)
    assert prepare_variants(CRAWL, settings, store) == 2
    for number in (1, 2):
        hash_range(CRAWL, number, 2, settings, store, ONE)
    monkeypatch.setattr(store, "refuses", lambda name: name.endswith("00002.slice"))
    with pytest.raises(StoreOutageError):
        compare_ranges(CRAWL, settings, store, ONE)
    with pytest.raises(InputError, match=r"semantic duplicates of .* are not compared.* --compare"):
        publish_range(CRAWL, 1, 2, settings, store, ONE)
    monkeypatch.setattr(store, "refuses", lambda name: name.endswith(("00000.slice", "00001.slice")))
    [stats] = compare_ranges(CRAWL, settings, store, ONE)
    monkeypatch.undo()
    assert compare_ranges(CRAWL, settings, store, ONE) == [stats]
    parts = [publish_range(CRAWL, number, 2, settings, store, ONE)[0] for number in (1, 2)]
    assert sum(part.dropped["semantic_duplicate_image"] for part in parts) == stats.kept > 9
    redundant = set(pq.ParquetFile(store.root / stats.outputs[0].name).read()["key"].to_pylist())
    check_rule(world, vectors, redundant)
    store.delete(stats.outputs[0].name)
    store.delete(f"publish/laion/{CRAWL}/semantic.json")
    assert compare_ranges(CRAWL, settings, store, ONE)[0].outputs == stats.outputs


def test_blocks_and_parts_do_not_change_what_is_redundant(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    samples = np.zeros(300, clusters.Clusters(np.zeros((1, 8), np.float32)).record_type)
    samples["key"], samples["similarity"] = rng.permutation(300), rng.choice((0.3, 0.4, 0.5), 300)
    samples["vector"] = rng.normal(size=(12, 8))[rng.integers(0, 12, 300)]
    samples["vector"] += rng.normal(size=(300, 8)) * 0.2
    whole = set(redundant_keys(samples, COSINE).tolist())
    assert 100 < len(whole) < 300
    monkeypatch.setattr(semantic_compare, "_BLOCK", 7)
    monkeypatch.setattr(semantic_compare, "_KEPT_AT_ONCE", 5)
    assert set(redundant_keys(samples[rng.permutation(300)], COSINE).tolist()) == whole


@pytest.mark.parametrize("parts", [0, 1, 7])
def test_keys_of_redundant_samples_ascend_and_few_are_in_memory(
    parts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sorted_keys, "_AT_ONCE", 64)
    rng = np.random.default_rng(parts)
    added = [rng.integers(0, 1_000 + 10**part, 300) for part in range(parts)]
    with (tmp_path / "keys").open("w+b") as file:
        keys = SortedKeys(Spool(file, np.dtype(np.int64)))
        for some in (*added, np.empty(0, np.int64)):
            keys.add(some)
        found = list(keys.ascending())
    assert max(map(len, found), default=0) <= 128
    expected = np.unique(np.concatenate([np.empty(0, np.int64), *added]))
    assert np.array_equal(np.concatenate([np.empty(0, np.int64), *found]), expected)


def test_a_range_reads_only_the_redundant_keys_between_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path)
    redundant = np.arange(0, 1_000, 3)
    with store.create("semantic.parquet") as file:
        pq.write_table(pa.table([redundant], schema=SCHEMA), file, row_group_size=10)
    read: list[int] = []
    batches = BoundedParquet.iter_batches

    def counted(self: BoundedParquet, rows: int, columns: list[str], groups: list[int]) -> Any:
        read.extend(groups)
        return batches(self, rows, columns, groups)

    monkeypatch.setattr(BoundedParquet, "iter_batches", counted)
    own = np.arange(300, 600)
    found = are_redundant(own, file.output, store)
    assert np.array_equal(own[found], redundant[(redundant >= 300) & (redundant < 600)])
    assert read == list(range(10, 20))  # of 34
    assert len(are_redundant(own[:0], file.output, store)) == 0


def test_a_damaged_comparison_is_named_with_the_command_that_makes_it_again(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    damaged = store.write("publish/laion/C/semantic.parquet", b"PAR1")
    with pytest.raises(
        InputError, match=r"cannot read .*; run `laion-etl stage publish --crawl C --compare`"
    ):
        are_redundant(np.arange(3), damaged, store)


def test_embeddings_that_are_not_those_of_the_stats_are_refused(world: World, tmp_path: Path) -> None:
    store, settings = LocalStore(tmp_path), settings_of(100, variants=ONE, semantic_duplicates=COSINE)
    write_with_embeddings(world, store)
    name = f"scored/{CRAWL}/000000003_img_emb.npy"
    store.write(name, store.read(name)[:-2])
    with pytest.raises(InputError, match=r"embeddings of batch 000000003: .*; score the batch again"):
        publish_variants(CRAWL, settings, store)
    store.delete(name)
    with pytest.raises(InputError, match=r"embeddings of batch 000000003: .*; score the batch again"):
        publish_variants(CRAWL, settings, store)


def test_embeddings_of_several_models_are_not_compared(world: World, tmp_path: Path) -> None:
    store, settings = LocalStore(tmp_path), settings_of(100, variants=ONE, semantic_duplicates=COSINE)
    write_with_embeddings(world, store)
    name = f"scored/{CRAWL}/000000001_stats.json"
    stats = store.read_stats(name)
    store.write_stats(name, replace(stats, details={**stats.details, "weights_sha256": "cd" * 32}))
    with pytest.raises(
        InputError, match=r"of several models, test-model, weights abab\S+ and test-model, .*cdcd"
    ):
        publish_variants(CRAWL, settings, store)
    with pytest.raises(InputError, match="embeddings of 4 dimensions with others of 2"):
        clusters.Clusters(np.eye(2, dtype=np.float32)).nearest(np.eye(4, dtype=np.float32))


def written_set(vectors: NDArray[np.float16], store: Store, **changed: Any) -> EvaluationSet:
    made = EvaluationSet("val", "test-model", str(WEIGHTS["weights_sha256"]), vectors)
    return write_set(replace(made, **changed), store)


@pytest.mark.usefixtures("few_in_a_cluster")
def test_samples_near_an_evaluation_set_are_left_out_and_named_whatever_the_ranges(
    world: World, tmp_path: Path
) -> None:
    together, apart = LocalStore(tmp_path / "together"), LocalStore(tmp_path / "apart")
    wanted = {
        "evaluation_sets": ("val",),
        "evaluation_cosine": 0.98,
        "semantic_duplicates": COSINE,
        "duplicates": "exact",
    }
    for store in (together, apart):
        vectors = write_with_embeddings(world, store)
        found = written_set(vectors[2][:3], store)
    [stats] = publish_variants(CRAWL, settings_of(100, variants=ONE, **wanted), together)
    publish_in_ranges(apart, 4, **wanted)
    assert rows_of(apart, FOLDER) == rows_of(together, FOLDER)
    assert documents_of(apart, FOLDER) == documents_of(together, FOLDER)
    assert not [name for name in apart.list("publish") if name.endswith((".bands", ".slice"))]
    centroids = next(name for name in apart.list("publish") if "centroids" in name)
    assert len(np.load(io.BytesIO(apart.read(centroids)))) > 5, "there are several clusters"
    near = {
        row["key"]
        for batch, rows in world.batches.items()
        for row, vector in zip(
            [one for one in rows if one["reason"] is None], unit(vectors[batch]), strict=True
        )
        if (unit(vectors[2][:3]) @ vector).max() >= 0.98
    }
    assert len(near) > 3
    assert not published_keys(together) & near
    assert stats.dropped["near_evaluation_set"] == len(near)
    manifest = json.loads(together.read(f"{FOLDER}/manifest.json"))
    digest = hashlib.sha256(together.read("evaluation/val.parquet")).hexdigest()
    [described] = manifest["parts"][0]["evaluation_sets"]
    assert (described["name"], described["sha256"], described["images"]) == ("val", digest, 3)
    assert digest == found.sha256
    card = together.read(f"{FOLDER}/README.md").decode()
    assert f"(cosine of CLIP embeddings at least 0.98) were left out: {len(near)}." in card
    assert f"| `val` | 3 | {digest} |" in card


def test_a_removal_publishes_with_the_sets_and_limits_of_the_manifest(world: World, tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    vectors = write_with_embeddings(world, store)
    written_set(vectors[2][:3], store)
    wanted = {"evaluation_sets": ("val",), "semantic_duplicates": COSINE}
    publish_variants(CRAWL, settings_of(100, variants=ONE, **wanted), store)
    published = sorted(published_keys(store))
    url = next(row["url"] for row in world.rows if row["key"] == published[-1])
    remove(read_list(url.encode(), "list"), Settings(), store)
    [before, after] = [
        json.loads(store.read(f"dataset/laion/{version}/manifest.json"))["parts"][0]
        for version in (CRAWL, f"{CRAWL}.2")
    ]
    assert after["evaluation_sets"] == before["evaluation_sets"]
    assert after["settings"] == before["settings"]
    assert after["dropped"]["near_evaluation_set"] == before["dropped"]["near_evaluation_set"]
    left = published_keys(store, f"{CRAWL}.2")
    assert set(published) - left == {published[-1]}, "of its duplicates the best may be published now"


@pytest.mark.parametrize(
    ("duplicates", "cosine", "steps"),
    [("keep", 0, (False, False)), ("exact", 0, (True, False)), ("near", 0, (True, True)),
     ("keep", 0.9, (True, True)), ("exact", 0.9, (True, True))],
)  # fmt: skip
def test_ranges_are_hashed_and_compared_where_duplicates_are_looked_for(
    duplicates: str, cosine: float, steps: tuple[bool, bool]
) -> None:
    settings = settings_of(1, duplicates=duplicates, semantic_duplicates=cosine).publish
    assert (settings.looks_for_duplicates, settings.compares_ranges) == steps


def test_embeddings_of_a_file_become_an_evaluation_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path / "store")
    monkeypatch.setenv("LAION_ETL_STORE", str(store.root))
    vectors = unit(np.random.default_rng(2).normal(size=(5, DIM)).astype(np.float32)).astype(np.float16)
    np.save(tmp_path / "val.npy", vectors.astype(np.float32))
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIM).cast(pa.list_(pa.float16()))
    pq.write_table(pa.table({"image": lists}), tmp_path / "val.parquet")

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["dataset", "evaluation-set", *arguments])

    of_model = ("--model", "test-model", "--weights", "AB" * 32)
    for name, more in (("val.npy", ()), ("val.parquet", ("--column", "image"))):
        done = run(str(tmp_path / name), "--name", "val", *of_model, *more)
        assert done.exit_code == 0, done.exception
        found = read_set("val", store)
        assert found.is_of("test-model, weights abababababab, fp32 on cpu")
        assert not found.is_of("test-model-2, weights abababababab")
        assert np.array_equal(found.vectors, vectors)
    anonymous = run(str(tmp_path / "val.npy"), "--name", "val")
    assert "embeddings do not say which model made them" in str(anonymous.exception)
    np.save(tmp_path / "flat.npy", vectors[0])
    assert "a row for each image" in str(run(str(tmp_path / "flat.npy"), "--name", "x", *of_model).exception)
    whole = pq.read_table(io.BytesIO(store.read("evaluation/val.parquet")))
    spoiled = vectors.copy()
    spoiled[0, 0] = np.nan
    column = pa.FixedSizeListArray.from_arrays(pa.array(spoiled.ravel()), spoiled.shape[1])
    with store.create("evaluation/val.parquet") as file:
        pq.write_table(whole.set_column(0, whole.field(0).name, column), file)
    with pytest.raises(InputError, match="not finite numbers"):
        read_set("val", store)
    store.write("evaluation/val.parquet", b"PAR1")
    with pytest.raises(InputError, match="it is not an evaluation set"):
        read_set("val", store)


def test_an_evaluation_set_of_another_model_or_content_is_refused(world: World, tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    vectors = write_with_embeddings(world, store)
    settings = settings_of(100, variants=ONE, evaluation_sets=("val",))
    with pytest.raises(InputError, match=r"cannot find the evaluation set val: .* does not exist"):
        publish_variants(CRAWL, settings, store)
    written_set(vectors[0], store, weights_sha256="cd" * 32)
    with pytest.raises(InputError, match=r"set val: the batch was scored by test-model, weights abab.*cdcd"):
        publish_variants(CRAWL, settings, store)
    written_set(vectors[0][:, :3], store, name="short")
    written_set(vectors[0], store, name="right")
    for sets, cause in ((("short",), "of 16 dimensions with .* have 3"), (("right", "short"), "3 and 16")):
        with pytest.raises(InputError, match=cause):
            publish_variants(CRAWL, settings_of(100, variants=ONE, evaluation_sets=sets), store)
    with pytest.raises(InputError, match="a set of this name has other embeddings; choose another name"):
        written_set(vectors[1], store)
    with pytest.raises(InputError, match="it has no embeddings"):
        written_set(vectors[1] * np.float16(np.nan), store, name="broken")
