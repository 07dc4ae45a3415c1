"""Published samples of many scored shards joined into tars: same samples, order, rows and embeddings."""

import io
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from laion_etl.cli import app
from laion_etl.core.errors import InputError
from laion_etl.core.ids import batch_name
from laion_etl.core.stage_stats import Output
from laion_etl.dataset import joined_samples
from laion_etl.dataset.joined_samples import EMBEDDINGS, IMAGE_EMBEDDINGS, PARQUET, TAR
from laion_etl.dataset.manifest import current_manifest
from laion_etl.dataset.subsets import LANGUAGE_SUBSETS, DataFile
from laion_etl.io.storage import Guard, LocalStore, NewFile, Store
from laion_etl.io.tarshard import finish, read_members, write_member
from laion_etl.publish.stage import publish_dataset, publish_variants
from laion_etl.publish.verify import verify_version
from laion_etl.publish.verify_ranges import merge_reports, verify_range
from laion_etl.publish.verify_samples import SamplesCheck
from laion_etl.removal.lists import read_list
from laion_etl.removal.stage import remove
from laion_etl.settings import Settings, Stage, shaping
from tests.publish.world import CRAWL, World, build_world, changed, draw_image, write_world

BOTH = ("research", "research-safe")
DATASETS = dict(zip(BOTH, ("laion", "laion-research-safe"), strict=True))
PER_TAR = 25
DIM = 8


@pytest.fixture(scope="module")
def world() -> World:
    """Five batches; the fourth is rejected as a whole, and the third has an image of the first."""
    made = build_world(batches=5, samples=24)
    made.batches[2][0]["sha256"] = made.batches[0][0]["sha256"]
    for row in made.batches[3]:
        row["reason"] = "low_similarity"
    return made


def joining(batches_per_range: int = 100, **publish: Any) -> Settings:
    return changed(Settings(), batches_per_range=batches_per_range, reshard=PER_TAR, **publish)


def write(world: World, store: Store, ending: tuple[str, ...] = EMBEDDINGS) -> None:
    """Scored shards as the score stage writes them: with embeddings, and stats that name all files."""
    write_world(world, store)
    for batch, rows in world.batches.items():
        kept = [row["key"] for row in rows if row["reason"] is None]
        for kind in ending:
            matrix = np.stack([vector(key, kind) for key in kept]) if kept else np.empty((0, DIM), "<f2")
            write_embeddings(batch, kind, matrix, store)
        describe(batch, store)


def vector(key: str, kind: str) -> Any:
    rng = random.Random(key + kind)
    return np.array([rng.random() for _ in range(DIM)], np.float16)


def write_embeddings(batch: int, kind: str, matrix: Any, store: Store) -> None:
    with store.create(f"scored/{CRAWL}/{batch_name(batch)}{kind}") as file:
        np.save(file, matrix, allow_pickle=False)


def describe(batch: int, store: Store) -> None:
    """Write the digests of a batch's files into its stats."""
    stem = f"scored/{CRAWL}/{batch_name(batch)}"
    found = [stem + ending for ending in (TAR, PARQUET, *EMBEDDINGS) if store.exists(stem + ending)]
    outputs = tuple(Output.from_bytes(name, store.read(name)) for name in found)
    store.write_stats(f"{stem}_stats.json", replace(store.read_stats(f"{stem}_stats.json"), outputs=outputs))


def stems(store: Store, dataset: str) -> list[str]:
    manifest = current_manifest(dataset, store)
    assert manifest is not None
    tars = [file.name for file in manifest.files if file.name.endswith(TAR)]
    assert [file.rows for file in manifest.files if file.name.endswith(TAR)] == [None] * len(tars)
    return [name.removesuffix(TAR) for name in tars]


def table_of(name: str, store: Store) -> pa.Table:
    return pq.read_table(pa.BufferReader(store.read(name)))


def published(store: Store, dataset: str) -> pa.Table:
    """All rows of the language subsets, by SAMPLE_ID."""
    manifest = current_manifest(dataset, store)
    assert manifest is not None
    files = [file for name in LANGUAGE_SUBSETS for file in manifest.data_files(name, CRAWL)]
    return pa.concat_tables([table_of(file.name, store) for file in files]).sort_by("SAMPLE_ID")


def check_joined(store: Store, dataset: str, rows: pa.Table, kinds: tuple[str, ...] = EMBEDDINGS) -> None:
    """The tars have the samples of these rows, in their order, each with its row and embeddings."""
    found = []
    for stem in stems(store, dataset):
        table = table_of(stem + PARQUET, store)
        members = list(read_members(io.BytesIO(store.read(stem + TAR))))
        assert members == [
            member
            for key, text in zip(table["key"].to_pylist(), table["TEXT"].to_pylist(), strict=True)
            for member in ((f"{key}.jpg", draw_image(key)), (f"{key}.txt", text.encode()))
        ]
        for kind in EMBEDDINGS:
            assert store.exists(stem + kind) == (kind in kinds)
        for kind in kinds:
            matrix = np.load(io.BytesIO(store.read(stem + kind)))
            expected = np.stack([vector(key, kind) for key in table["key"].to_pylist()])
            assert matrix.dtype == np.float16
            np.testing.assert_array_equal(matrix, expected)
        found.append(table)
    assert pa.concat_tables(found).equals(rows)


@pytest.mark.parametrize("batches_per_range", [100, 1, 2, 3])
def test_tars_have_the_published_samples_in_order_whatever_the_ranges(
    world: World, tmp_path: Path, batches_per_range: int
) -> None:
    store = LocalStore(tmp_path)
    write(world, store)
    settings = joining(batches_per_range, variants=BOTH, duplicates="exact")
    publish_variants(CRAWL, settings, store)
    for variant, dataset in DATASETS.items():
        rows = published(store, dataset)
        check_joined(store, dataset, rows)
        assert ("NSFW" in rows["NSFW"].to_pylist()) == (variant == "research")
        assert rows.num_rows < len(world.kept), "a sample is a duplicate"
        counts = [table_of(stem + PARQUET, store).num_rows for stem in stems(store, dataset)]
        assert max(counts) <= PER_TAR
        document = json.loads(store.read(f"dataset/{dataset}/{CRAWL}/manifest.json"))
        assert document["samples"] == {
            "per_tar": PER_TAR, "joined": rows.num_rows,
            "left_out": 0, "batches_left_out": 0, "errors": [], "damaged": [],
        }  # fmt: skip
        assert verify_version(dataset, "", store).problems == []
        parts = [verify_range(dataset, "", number, 2, store) for number in (1, 2)]
        assert merge_reports(parts, store).problems == []
    if batches_per_range == 100:
        assert counts[:-1] == [PER_TAR] * (len(counts) - 1)
        assert stems(store, "laion")[1] == f"dataset/laion/{CRAWL}/samples/{CRAWL}-00001"
    else:
        assert stems(store, "laion")[0] == f"dataset/laion/{CRAWL}/samples/{CRAWL}-00001-00000"


def test_on_s3_the_tars_are_those_of_a_folder(world: World, tmp_path: Path, s3_store: Store) -> None:
    local, settings = LocalStore(tmp_path), joining(2)
    for store in (local, s3_store):
        write(world, store)
        publish_dataset(CRAWL, settings, store)
    assert stems(local, "laion")
    assert contents(s3_store) == contents(local)


class Meeting(LocalStore):
    """Opens the tars of the first two batches for the first time only when both are wanted."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._both = Barrier(2, timeout=240)
        self._waiting = {f"scored/{CRAWL}/{batch_name(batch)}{TAR}" for batch in (0, 1)}

    def open(self, name: str) -> BinaryIO:
        if name in self._waiting:
            self._waiting.remove(name)
            self._both.wait()
        return super().open(name)


def test_a_shard_is_read_while_the_one_before_is_joined(world: World, tmp_path: Path) -> None:
    write(world, LocalStore(tmp_path))
    stats = publish_dataset(CRAWL, joining(), Meeting(tmp_path))
    assert stats.details["samples"]["joined"] == stats.kept


def test_without_the_setting_nothing_is_written_and_no_fingerprint_changes(
    world: World, tmp_path: Path
) -> None:
    store = LocalStore(tmp_path)
    write(world, store)
    plain = publish_dataset(CRAWL, Settings(), store)
    assert not store.list(f"dataset/laion/{CRAWL}/samples")
    assert "samples" not in plain.details
    assert "reshard" not in shaping(Settings(), Stage.PUBLISH)["publish"]
    assert b'"reshard"' not in store.read(f"dataset/laion/{CRAWL}/manifest.json")
    joined = publish_dataset(CRAWL, joining(), store)
    assert joined.unit == f"laion/{CRAWL}.2"
    assert publish_dataset(CRAWL, joining(), store) == joined


def test_embeddings_end_where_shards_have_none_and_one_tar_never_mixes_both(
    world: World, tmp_path: Path
) -> None:
    store = LocalStore(tmp_path)
    write(world, store, (IMAGE_EMBEDDINGS,))
    publish_dataset(CRAWL, joining(), store)
    check_joined(store, "laion", published(store, "laion"), (IMAGE_EMBEDDINGS,))

    store.delete(f"scored/{CRAWL}/{batch_name(1)}{IMAGE_EMBEDDINGS}")
    describe(1, store)
    publish_dataset(CRAWL, joining(), store)
    tables = {stem: table_of(stem + PARQUET, store)["key"].to_pylist() for stem in stems(store, "laion")}
    for stem, keys in tables.items():
        batches = {int(key[:-5]) for key in keys}
        assert (1 in batches) == (not store.exists(stem + IMAGE_EMBEDDINGS))
        assert batches == {1} or 1 not in batches
    assert [key for keys in tables.values() for key in keys] == published(store, "laion")["key"].to_pylist()
    assert verify_version("laion", "", store).problems == []


def test_a_damaged_shard_costs_its_own_samples_and_is_named(world: World, tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    write(world, store)
    cut, gone = (f"scored/{CRAWL}/{batch_name(number)}{TAR}" for number in (0, 2))
    store.write(cut, store.read(cut)[:-20_000])
    store.delete(gone)
    write_embeddings(4, IMAGE_EMBEDDINGS, np.zeros((3, DIM), np.float16), store)
    describe(4, store)
    stats = publish_dataset(CRAWL, joining(), store)
    rows = published(store, "laion")
    assert rows.num_rows == stats.kept == len(world.kept), "rows are published all the same"
    left = rows.filter(pa.array([int(key[:-5]) == 1 for key in rows["key"].to_pylist()]))
    check_joined(store, "laion", left)
    samples = stats.details["samples"]
    assert (samples["joined"], samples["left_out"]) == (left.num_rows, rows.num_rows - left.num_rows)
    assert [(one["batch"], one["error"].partition("cannot be used, ")[2]) for one in samples["errors"]] == [
        (0, "it is not the file that its stats describe; score the batch again"),
        (2, "it is missing; score the batch again"),
        (4, f"it has float16 (3, {DIM}), the tar has 22 samples; score the batch again"),
    ]
    assert samples["damaged"] == [[0, 2, 3]]
    assert str(tmp_path) not in json.dumps(samples)
    assert verify_version("laion", "", store).problems == []


@pytest.mark.parametrize("batches_per_range", [100, 3])
def test_a_restored_shard_is_noticed_also_where_its_error_is_not_named(
    world: World, tmp_path: Path, batches_per_range: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joined_samples, "_MAX_ERRORS", 0)
    store, settings = LocalStore(tmp_path), joining(batches_per_range)
    write(world, store)
    name = f"scored/{CRAWL}/{batch_name(0)}{TAR}"
    whole = store.read(name)
    store.write(name, whole[:-20_000])
    damaged = publish_dataset(CRAWL, settings, store)
    assert damaged.details["samples"]["batches_left_out"] == 1
    assert damaged.details["samples"]["errors"] == []
    assert publish_dataset(CRAWL, settings, store) == damaged
    store.write(name, whole)
    restored = publish_dataset(CRAWL, settings, store)
    assert restored.unit == f"laion/{CRAWL}.2"
    check_joined(store, "laion", published(store, "laion"))
    assert publish_dataset(CRAWL, settings, store) == restored


def test_a_tar_that_lacks_a_sample_costs_its_batch(world: World, tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    write(world, store, ())
    name = f"scored/{CRAWL}/{batch_name(1)}{TAR}"
    members = list(read_members(io.BytesIO(store.read(name))))
    with store.create(name) as file:
        for member, data in members[2:]:
            write_member(file, member, data)
        finish(file)
    describe(1, store)
    stats = publish_dataset(CRAWL, joining(), store)
    [error] = stats.details["samples"]["errors"]
    assert publish_dataset(CRAWL, joining(), store) == stats  # its shard is as it was
    key = members[0][0].partition(".")[0]
    assert error == {"batch": 1, "error": f"the tar of its scored shard lacks 1 sample, first {key}"}
    joined = [
        key for stem in stems(store, "laion") for key in table_of(stem + PARQUET, store)["key"].to_pylist()
    ]
    assert {int(key[:-5]) for key in joined} == {0, 2, 4}


class _Broken(BaseException):
    """What ends a process at any place."""


class _BreakingStore(LocalStore):
    """Ends in the middle of a file whose name ends like this."""

    ending = ""

    @contextmanager
    def create(self, name: str, guard: Guard | None = None) -> Iterator[NewFile]:
        with super().create(name, guard) as file:
            yield file
            if self.ending and name.endswith(self.ending):
                raise _Broken


@pytest.mark.parametrize("ending", [TAR, PARQUET, IMAGE_EMBEDDINGS])
def test_broken_off_at_any_file_and_published_again_the_bytes_are_the_same(
    world: World, tmp_path: Path, ending: str
) -> None:
    calm, broken = LocalStore(tmp_path / "calm"), _BreakingStore(tmp_path / "broken")
    for store in (calm, broken):
        write(world, store)
    publish_dataset(CRAWL, joining(2), calm)
    broken.ending = f"{CRAWL}-00002-00000{ending}"
    with pytest.raises(_Broken):
        publish_dataset(CRAWL, joining(2), broken)
    assert not [name for name in broken.list("dataset") if name.endswith(broken.ending)]
    broken.ending = ""
    publish_dataset(CRAWL, joining(2), broken)
    assert contents(broken) == contents(calm)


def contents(store: Store) -> dict[str, bytes]:
    return {name: store.read(name) for folder in ("dataset", "publish") for name in store.list(folder)}


def test_a_removed_sample_is_in_no_tar_of_the_next_version(world: World, tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    write(world, store)
    publish_dataset(CRAWL, joining(), store)
    victim = world.kept[30]
    request = read_list(victim["sha256"].encode(), "list")
    remove(request, joining(), store, purge=True)
    rows = published(store, "laion")
    assert victim["key"] not in rows["key"].to_pylist()
    check_joined(store, "laion", rows)
    assert verify_version("laion", "", store).problems == []
    held = [name for name in store.list("dataset") if victim["caption"].encode() in store.read(name)]
    assert held == []


def test_the_command_joins_samples_of_ranges_with_the_same_option_for_each_step(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path)
    write(world, store)
    monkeypatch.setenv("LAION_ETL_STORE", str(tmp_path))
    monkeypatch.setenv("LAION_ETL_PUBLISH_BATCHES_PER_RANGE", "3")
    command = ["stage", "publish", "--crawl", CRAWL]
    runner = CliRunner()
    for step in (["--prepare"], ["--range", "1/2"], ["--range", "2/2"], ["--finish"]):
        result = runner.invoke(app, [*command, *step, "--reshard", str(PER_TAR)])
        assert result.exit_code == 0, result.output
    check_joined(store, "laion", published(store, "laion"))
    other = runner.invoke(app, [*command, "--range", "1/2"])
    assert isinstance(other.exception, InputError)
    assert "it was prepared with other settings" in str(other.exception)


def test_webdataset_reads_the_tars(world: World, tmp_path: Path) -> None:
    import webdataset

    store = LocalStore(tmp_path)
    write(world, store)
    publish_dataset(CRAWL, joining(), store)
    tars = [store.uri(stem + TAR) for stem in stems(store, "laion")]
    found = list(webdataset.WebDataset(tars, shardshuffle=False).to_tuple("__key__", "jpg", "txt"))
    rows = published(store, "laion").to_pylist()
    assert found == [(row["key"], draw_image(row["key"]), row["TEXT"].encode()) for row in rows]


def test_verify_finds_samples_and_embeddings_that_are_not_those_of_the_rows(
    world: World, tmp_path: Path
) -> None:
    store = LocalStore(tmp_path)
    write(world, store)
    publish_dataset(CRAWL, joining(), store)
    stem = stems(store, "laion")[0]
    data = {ending: store.read(stem + ending) for ending in (PARQUET, TAR, *EMBEDDINGS)}
    members = list(read_members(io.BytesIO(data[TAR])))
    tar = io.BytesIO()
    for name, content in members[2:] + members[:2]:
        write_member(tar, name, content)
    finish(tar)
    short = io.BytesIO()
    np.save(short, np.zeros((PER_TAR - 1, DIM), np.float16))

    assert problems(data, set(data)) == []
    assert problems(data | {TAR: tar.getvalue()}, set(data)) == [
        (TAR, f"has other samples, or in another order, than the {PER_TAR} rows")
    ]
    assert problems(data | {IMAGE_EMBEDDINGS: short.getvalue()}, set(data)) == [
        (IMAGE_EMBEDDINGS, f"has {PER_TAR - 1} embeddings of {PER_TAR} samples in float16")
    ]
    assert problems(data | {IMAGE_EMBEDDINGS: data[IMAGE_EMBEDDINGS][:-2]}, set(data)) == [
        (IMAGE_EMBEDDINGS, f"has -1 embeddings of {PER_TAR} samples in float16")
    ]
    [(ending, what)] = problems(data | {TAR: data[TAR][:700]}, set(data))
    assert (ending, "cut off in the member" in what) == (TAR, True)
    assert problems({PARQUET: data[PARQUET]}, {PARQUET}) == [(PARQUET, "has no .tar file in the manifest")]

    store.delete(stem + TAR)
    store.write(stem.replace("-00000", "-00099") + TAR, b"")
    found = {one.file.rpartition("/")[2]: one.what for one in verify_version("laion", "", store).problems}
    assert found == {f"{CRAWL}-00000.tar": "is missing", f"{CRAWL}-00099.tar": "is not in the manifest"}


def problems(data: dict[str, bytes], listed: set[str]) -> list[tuple[str, str]]:
    stem = f"dataset/laion/{CRAWL}/samples/{CRAWL}-00000"
    found: list[tuple[str, str]] = []
    check = SamplesCheck(
        {stem + ending for ending in listed},
        lambda name, what: found.append((name.removeprefix(stem), what)),
    )
    for ending, content in data.items():
        file = DataFile(stem + ending, "", None, len(content), "", CRAWL)
        check.check(file, io.BytesIO(content))
    return found
