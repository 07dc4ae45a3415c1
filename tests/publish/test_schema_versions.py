"""A version that was published before a column was added, and one that a newer laion-etl published."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from laion_etl.api.datasets import open_dataset
from laion_etl.core.errors import InputError, StorageError
from laion_etl.core.published_columns import PUBLISHED_COLUMNS, PublishedColumn, added_since
from laion_etl.core.schema_history import SchemaHistory
from laion_etl.core.schemas import BATCH_FILES, DATASET_FILES, PAIR_FILES, SCORED_FILES
from laion_etl.dataset import subsets
from laion_etl.dataset.manifest import NAME, current_manifest
from laion_etl.dataset.row_streams import read_rows
from laion_etl.dataset.scored import find_scored, read_batch
from laion_etl.dataset.versions import Release, read_versions, write_versions
from laion_etl.io.storage import LocalStore
from laion_etl.publish import card, croissant
from laion_etl.publish.diff import diff_versions
from laion_etl.publish.stage import publish_dataset, render_report
from laion_etl.publish.verify import verify_version
from laion_etl.removal.lists import read_list
from laion_etl.removal.stage import remove
from laion_etl.search.rows import open_rows, row_files
from laion_etl.settings import Settings
from tests.publish.world import CRAWL, World, build_world, write_world

NEXT = f"{CRAWL}.2"
PART = f"dataset/laion/{CRAWL}/laion-en/part-00000.parquet"
NEWER = "of a newer laion-etl, this one reads up to 2; upgrade laion-etl"


@pytest.fixture(scope="module")
def world() -> World:
    return build_world(batches=1)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, world: World) -> Path:
    store = LocalStore(tmp_path_factory.mktemp("yesterday"))
    write_world(world, store)
    publish_dataset(CRAWL, Settings(), store)
    return store.root


@pytest.fixture
def yesterday(tmp_path: Path, published: Path) -> LocalStore:
    shutil.copytree(published, tmp_path / "store")
    return LocalStore(tmp_path / "store")


def add_column(files: SchemaHistory, name: str, patch: pytest.MonkeyPatch, *, in_file: bool) -> None:
    """Do what a change of core/schemas.py does that adds a column."""
    fields = [*files.schema, pa.field(name, pa.string())]
    added = {**files.added, files.number + 1: (name,)}
    grown = SchemaHistory(files.what, fields, added=added, in_file=in_file)
    for attribute, value in vars(grown).items():
        patch.setattr(files, attribute, value)


@pytest.fixture
def today(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The dataset has the column phash from today on."""
    phash = PublishedColumn("phash", pa.string(), "a perceptual hash", "phash", nullable=True, since=3)
    add_column(DATASET_FILES, "phash", monkeypatch, in_file=False)
    for module in (subsets, card, croissant):
        monkeypatch.setattr(module, "PUBLISHED_COLUMNS", (*PUBLISHED_COLUMNS, phash))
    return monkeypatch


def rewrite(store: LocalStore, change: Callable[[pa.Table], pa.Table], version: str, name: str) -> None:
    """Replace the rows of a file of a version, and adapt its manifest and the list of versions."""
    table = change(pq.read_table(io.BytesIO(store.read(name))))
    with store.create(name) as file:
        pq.write_table(table, file)
    entry = {"rows": table.num_rows, "bytes": file.output.bytes, "sha256": file.output.sha256}
    folder = Release("laion", version).folder
    change_manifest(store, version, lambda document: [
        known.update(entry) for known in document["files"] if f"{folder}/{known['name']}" == name
    ])  # fmt: skip


def change_manifest(store: LocalStore, version: str, change: Callable[[dict[str, Any]], object]) -> None:
    name = Release("laion", version).file(NAME)
    document = json.loads(store.read(name))
    change(document)
    manifest = store.write(name, json.dumps(document).encode())
    write_versions(read_versions("laion", store).with_manifest(version, manifest), store)


def test_an_older_version_is_verified_and_read(
    yesterday: LocalStore, world: World, today: pytest.MonkeyPatch
) -> None:
    assert verify_version("laion", "", yesterday).problems == []
    dataset = open_dataset(yesterday.root / "dataset/laion")
    rows = pa.concat_tables(dataset.rows())
    assert rows.schema == DATASET_FILES.schema
    assert rows["phash"].null_count == rows.num_rows == len(world.kept)
    chosen = pa.concat_tables(dataset.rows(columns=["phash", "URL"]))
    assert chosen.column_names == ["phash", "URL"]
    assert sorted(chosen["URL"].to_pylist()) == sorted(row["url"] for row in world.kept)
    assert b"<html" in render_report(CRAWL, Settings(), yesterday)


def test_rows_are_removed_from_an_older_version(
    yesterday: LocalStore, world: World, today: pytest.MonkeyPatch
) -> None:
    gone = world.kept[0]
    done = remove(read_list(gone["url"].encode(), "list"), Settings(), yesterday)
    assert [stats.unit for stats in done.published] == [f"laion/{NEXT}"]
    assert all(verify_version("laion", version, yesterday).problems == [] for version in (CRAWL, NEXT))
    rows = pa.concat_tables(open_dataset(yesterday.root / "dataset/laion").rows())
    assert gone["url"] not in rows["URL"].to_pylist()
    assert set(rows["phash"].to_pylist()) == {""}  # as the scored shards have it
    found = diff_versions("laion", CRAWL, NEXT, yesterday)
    assert (found.columns_added, found.columns_removed) == (("phash",), ())
    assert {change.changed for change in found.subsets} == {0}
    assert sum(change.removed for change in found.subsets if change.subset == "laion-en") == 1

    today.undo()
    refused = f"{NEXT}/manifest.json: it was written by schema 3 {NEWER}"
    [problem] = verify_version("laion", NEXT, yesterday).problems
    assert refused in problem.what
    with pytest.raises(InputError, match=refused):
        current_manifest("laion", yesterday)


def without(name: str) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.drop_columns([name])


def in_64_bits(table: pa.Table) -> pa.Table:
    place = table.schema.get_field_index("WIDTH")
    field = pa.field("WIDTH", pa.int64(), nullable=False)
    return table.set_column(place, field, table["WIDTH"].cast(pa.int64()))


@pytest.mark.parametrize("change", [without("page_url"), without("punsafe"), in_64_bits])
def test_an_older_version_with_other_columns_is_refused(
    yesterday: LocalStore, today: pytest.MonkeyPatch, change: Callable[[pa.Table], pa.Table]
) -> None:
    rewrite(yesterday, change, CRAWL, PART)
    found = {problem.file: problem.what for problem in verify_version("laion", "", yesterday).problems}
    assert found == {PART: "does not have the columns of a published file"}
    manifest = current_manifest("laion", yesterday)
    assert manifest is not None
    with pytest.raises(InputError, match="it does not have the columns of a published file"):
        list(read_rows(manifest.data_files("laion-en", CRAWL), yesterday))
    with pytest.raises(InputError, match="it does not have the columns of a published file"):
        list(open_dataset(yesterday.root / "dataset/laion").rows("laion-en"))


def test_a_file_without_the_column_that_its_version_names_is_damaged(
    store: LocalStore, world: World, today: pytest.MonkeyPatch
) -> None:
    write_world(world, store)
    publish_dataset(CRAWL, Settings(), store)
    assert verify_version("laion", "", store).problems == []
    rewrite(store, without("phash"), CRAWL, PART)
    found = {problem.file: problem.what for problem in verify_version("laion", "", store).problems}
    assert found == {PART: "does not have the columns of a published file"}


def test_an_older_scored_shard_is_published_and_a_newer_one_is_refused(
    yesterday: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored = find_scored(CRAWL, yesterday)
    with monkeypatch.context() as today:
        add_column(SCORED_FILES, "faces", today, in_file=True)
        [rows] = read_batch(scored, scored.batches[0], yesterday)
        assert rows.schema == SCORED_FILES.schema
        assert rows.column("faces").null_count == rows.num_rows
        with yesterday.create(scored.shard_name(0, ".parquet")) as file:
            pq.write_table(pa.Table.from_batches([rows]), file)
    with pytest.raises(InputError, match=f"000000000.parquet: it was written by format 3 {NEWER}"):
        list(read_batch(scored, scored.batches[0], yesterday))


def test_a_scored_shard_without_the_quality_of_hashes_is_read(yesterday: LocalStore) -> None:
    scored = find_scored(CRAWL, yesterday)
    name = scored.shard_name(0, ".parquet")
    with yesterday.open(name) as file:
        first = (
            pq.read_table(file).drop_columns(["pdq_quality", "caption_source"]).cast(SCORED_FILES.columns(1))
        )
    with yesterday.create(name) as file:
        pq.write_table(first, file)
    [rows] = read_batch(scored, scored.batches[0], yesterday)
    assert rows.schema == SCORED_FILES.schema
    assert rows.column("pdq_quality").null_count == rows.num_rows == len(first)


def test_an_older_index_is_searched(tmp_path: Path, today: pytest.MonkeyPatch) -> None:
    files = row_files()
    row = dict.fromkeys(files.columns(1).names) | {"SAMPLE_ID": 7}
    table = pa.Table.from_pylist([row], files.columns(1))
    with pa.ipc.new_file(str(tmp_path / "rows"), table.schema) as writer:
        writer.write_table(table)
    opened, node_of_row = open_rows(tmp_path / "rows", 1, nodes=1)
    assert node_of_row.tolist() == [0]  # every row was a node
    assert opened.select(["SAMPLE_ID", "phash", "domain"]).to_pylist() == [
        {"SAMPLE_ID": 7, "phash": None, "domain": None}
    ]


@pytest.mark.parametrize(
    ("name", "known"),
    [("versions.json", 1), (f"{CRAWL}/manifest.json", 2), (f"{CRAWL}/_stats.json", 2)],
)
def test_a_newer_format_is_refused_in_one_line(yesterday: LocalStore, name: str, known: int) -> None:
    name = f"dataset/laion/{name}"
    document = json.loads(yesterday.read(name)) | {"format": known + 1}
    if name.endswith(NAME):
        change_manifest(yesterday, CRAWL, lambda manifest: manifest.update(document))
    else:
        yesterday.write(name, json.dumps(document).encode())
    message = (
        rf"^cannot read .*{name}: it was written by format {known + 1} of a newer laion-etl, this one reads "
        f"up to {known}; upgrade laion-etl$"
    )
    with pytest.raises(InputError, match=message):
        publish_dataset(CRAWL, Settings(), yesterday)


@pytest.mark.parametrize("number", ["two", 0, True])
def test_a_format_that_is_no_number_is_damage(yesterday: LocalStore, number: object) -> None:
    name = f"dataset/laion/{CRAWL}/_stats.json"
    document = json.loads(yesterday.read(name))
    yesterday.write(name, json.dumps(document | {"format": number}).encode())
    with pytest.raises(StorageError, match="not a stats file"):
        yesterday.read_stats(name)
    del document["format"]  # as versions up to 0.1.0 wrote it
    yesterday.write(name, json.dumps(document).encode())
    assert yesterday.read_stats(name).kept


def test_renamed_and_added_columns_of_every_format() -> None:
    fields = [pa.field("a", pa.int32(), nullable=False), pa.field("b", pa.string())]
    files = SchemaHistory("tests", fields, added={3: ("b",)}, renamed={2: {"a": "z"}})
    assert [files.columns(number).names for number in (1, 2, 3)] == [["z"], ["a"], ["a", "b"]]
    assert [files.number_of(files.columns(number)) for number in (1, 2, 3)] == [1, 2, 3]
    assert files.number_of(pa.schema([pa.field("z", pa.int64(), nullable=False)])) is None
    assert files.upgraded(pa.table({"z": pa.array([1], pa.int32())})).to_pylist() == [{"a": 1, "b": None}]
    with pytest.raises(ValueError, match="make it nullable"):
        SchemaHistory("tests", fields, added={2: ("a",)})
    for files in (PAIR_FILES, BATCH_FILES):
        assert [files.columns(number).names[2] for number in (1, 2)] == ["alt", "caption"]
        assert files.columns(2).names == [n for n in files.schema.names if n not in files.added[3]]


def test_a_published_column_names_the_format_that_added_it() -> None:
    assert added_since(PUBLISHED_COLUMNS) == {2: ["caption_source", "sha256", "pair_id"]}
    newer = [
        PublishedColumn(name, pa.string(), "", nullable=True, since=n) for n, name in ((3, "c"), (2, "b"))
    ]
    assert added_since((*PUBLISHED_COLUMNS, *newer)) == {
        2: ["caption_source", "sha256", "pair_id", "b"],
        3: ["c"],
    }
