"""The index on disk: its contents, reproducible bytes, growth by parts, and checks when it is read."""

import hashlib
import io
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from laion_etl.core.errors import DamagedFileError, InputError, MissingInputError, StorageError
from laion_etl.core.schemas import batch_name, plan_stats_name, scored_stem
from laion_etl.core.stage_stats import StageStats
from laion_etl.io.storage import LocalStore, Store
from laion_etl.io.tarshard import member_places, read_members
from laion_etl.publish.purge import purge_versions
from laion_etl.publish.stage import publish_dataset
from laion_etl.removal.lists import read_list
from laion_etl.removal.stage import remove
from laion_etl.search import stage
from laion_etl.search.current_index import CurrentIndex
from laion_etl.search.filters import Filters
from laion_etl.search.graph_file import erase
from laion_etl.search.hnsw import Graph, GraphWriter
from laion_etl.search.layout import index_stats
from laion_etl.search.masking import mask_removed
from laion_etl.search.published_rows import find_published
from laion_etl.search.query import OpenPart, SearchIndex, open_index
from laion_etl.search.query_encoder import QueryEncoder, stored_image
from laion_etl.search.stage import index_dataset, index_range
from laion_etl.search.web import SearchBackend
from laion_etl.settings import IndexSettings, PublishSettings, Settings
from tests.search.conftest import CRAWL, World


@pytest.fixture
def copy(world: World, tmp_path: Path) -> World:
    """A copy of the published dataset without its index, to be changed."""
    root = tmp_path / "store"
    shutil.copytree(world.store.root, root, ignore=shutil.ignore_patterns("index"))
    return replace(world, store=LocalStore(root))


def with_index(settings: Settings, **changes: object) -> Settings:
    return replace(settings, index=replace(settings.index, **changes))  # type: ignore[arg-type]


def build(world: World, version: str = "", **changes: object) -> StageStats:
    published = find_published("laion", version, world.store)
    return index_dataset(published, with_index(world.settings, **changes), world.store)


def hashes(store: Store) -> dict[str, str]:
    return {name: hashlib.sha256(store.read(name)).hexdigest() for name in store.list("index")}


def data_files(store: Store) -> set[str]:
    return {name for name in store.list("index") if not name.endswith("_stats.json")}


def sample_ids(index: SearchIndex) -> set[int]:
    return {sample for part in index.parts for sample in part.rows["SAMPLE_ID"].to_pylist()}


def publish_without_duplicates(world: World) -> None:
    """A second version, which lacks one of two samples of batch 1 with the same image."""
    publish = replace(world.settings.publish, duplicates="exact")
    publish_dataset(CRAWL, replace(world.settings, publish=publish), world.store)


def test_every_published_sample_is_indexed_with_its_embedding_and_its_image(
    world: World, opened: SearchIndex
) -> None:
    ids = np.concatenate([batch.ids for batch in world.published.batches(world.store)])
    [part] = opened.parts
    assert part.rows["SAMPLE_ID"].to_pylist() == ids.tolist()
    stored = [
        np.load(world.store.root / f"{scored_stem(CRAWL, n)}_img_emb.npy", allow_pickle=False) for n in (1, 2)
    ]
    assert np.array_equal(part.graph.vectors[part.nodes], np.concatenate(stored))
    assert len(part.graph.vectors) == len(np.unique(np.concatenate(stored), axis=0)) == 71
    with world.store.open(f"{scored_stem(CRAWL, 2)}.tar") as file:
        members = dict(read_members(file))
    row = part.row(part.rows.num_rows - 1)
    data = world.store.read_range(f"{scored_stem(CRAWL, 2)}.tar", row["picture_offset"], row["picture_bytes"])
    assert data == members[f"{row['key']}.{row['picture_ending']}"]


def test_member_places_are_where_the_members_are(world: World) -> None:
    name = f"{scored_stem(CRAWL, 1)}.tar"
    with world.store.open(name) as file:
        members = list(read_members(file))
        places = list(member_places(file))
    data = world.store.read(name)
    assert [(member, data[start : start + size]) for member, start, size in places] == members


def test_the_same_dataset_gives_the_same_bytes_and_a_finished_index_is_left_alone(copy: World) -> None:
    first = build(copy)
    before = hashes(copy.store)
    for name in before:
        copy.store.delete(name)
    assert build(copy) == first
    assert hashes(copy.store) == before
    times = {name: (copy.store.root / name).stat().st_mtime_ns for name in before}
    build(copy)
    assert {name: (copy.store.root / name).stat().st_mtime_ns for name in before} == times


def test_a_version_with_fewer_rows_shares_the_parts_that_lost_none(copy: World) -> None:
    one_batch = {"rows_per_part": 36}
    before = build(copy, **one_batch)
    assert [part["rows"] for part in before.details["parts"]] == [36, 36]
    publish_without_duplicates(copy)
    with pytest.raises(MissingInputError, match="laion-etl search index"):
        open_index(copy.published, copy.settings, copy.store)
    after = build(copy, **one_batch)
    assert (after.input, after.kept, after.dropped) == (72, 71, {"not_published": 1})
    assert after.details["parts"][0] != before.details["parts"][0]
    assert after.details["parts"][1] == before.details["parts"][1]
    both = {*before.outputs, *after.outputs}
    assert {output.name for output in both} == data_files(copy.store)
    was, now = (
        sample_ids(open_index(find_published("laion", name, copy.store), copy.settings, copy.store))
        for name in (CRAWL, f"{CRAWL}.2")
    )
    [left_out] = was - now
    with pytest.raises(MissingInputError, match="cannot find sample"):
        open_index(copy.published, copy.settings, copy.store).sample(left_out)


def test_parts_of_versions_that_are_gone_are_deleted(copy: World) -> None:
    build(copy)
    publish_without_duplicates(copy)
    after = build(copy)
    purge_versions("laion", frozenset({CRAWL}), copy.store)
    assert build(copy) == after
    assert {output.name for output in after.outputs} == data_files(copy.store)
    assert not copy.store.exists(f"index/laion/{CRAWL}/_stats.json")


def test_rows_published_again_are_not_searched_with_an_old_index(copy: World) -> None:
    build(copy)
    name = f"index/laion/{CRAWL}/_stats.json"
    stats = copy.store.read_stats(name)
    copy.store.write_stats(name, replace(stats, details={**stats.details, "published": "others"}))
    with pytest.raises(InputError, match="its rows have changed since it was indexed"):
        open_index(copy.published, copy.settings, copy.store)


def test_parts_together_find_what_one_part_finds(copy: World, opened: SearchIndex) -> None:
    build(copy, rows_per_part=1)
    index = open_index(copy.published, copy.settings, copy.store)
    assert len(index.parts) == 2
    vector = opened.parts[0].vector(7)
    for filters in (Filters(), Filters(languages=("de",), unsafe=True)):
        expected = opened.search(vector, 12, filters)
        assert [hit.sample_id for hit in index.search(vector, 12, filters)] == [
            hit.sample_id for hit in expected
        ]


def test_an_index_on_s3_finds_the_same_and_its_images(
    world: World, opened: SearchIndex, s3_store: Store, tmp_path: Path
) -> None:
    for name in world.store.list(""):
        if name.startswith(("dataset", "scored")):
            s3_store.write(name, world.store.read(name))
    settings = replace(world.settings, core=replace(world.settings.core, data_dir=str(tmp_path)))
    published = find_published("laion", "", s3_store)
    stats = index_dataset(published, settings, s3_store)
    assert stats == world.store.read_stats(f"index/laion/{CRAWL}/_stats.json")
    index = open_index(published, settings, s3_store)
    vector = opened.parts[0].vector(5)
    hits = index.search(vector, 9, Filters())
    assert hits == opened.search(vector, 9, Filters())
    assert stored_image(hits[0], s3_store) == stored_image(hits[0], world.store)


def test_a_removal_takes_its_rows_out_of_the_index_which_stays_usable(copy: World) -> None:
    build(copy)
    before = open_index(copy.published, copy.settings, copy.store)
    [part] = before.parts
    rows = part.rows.to_pylist()
    gone, vector = rows[3], part.graph.vectors[part.nodes[3]].tobytes()
    query = part.vector(3)
    near = [hit.sample_id for hit in before.search(query, 100, Filters(unsafe=True))]
    traces = [gone["URL"].encode(), vector]
    assert all(any(trace in copy.store.read(name) for name in data_files(copy.store)) for trace in traces)

    request = read_list(gone["URL"].encode(), "list")
    remove(request, copy.settings, copy.store)
    index = open_index(copy.published, copy.settings, copy.store)
    lost = {row["SAMPLE_ID"] for row in rows if row["URL"] == gone["URL"]}
    hits = index.search(query, 100, Filters(unsafe=True))
    assert [hit.sample_id for hit in hits] == [one for one in near if one not in lost]
    for hit in hits[:3]:  # their shard was rewritten, so the images have moved
        found = stored_image(hit, copy.store)
        assert found
        assert hashlib.sha256(found[1]).hexdigest() == hit.row["sha256"]
    with pytest.raises(MissingInputError, match="removed since"):
        stored_image(before.sample(gone["SAMPLE_ID"]), copy.store)
    assert not any(trace in copy.store.read(name) for name in copy.store.list("index") for trace in traces)

    masked = data_files(copy.store)
    remove(request, copy.settings, copy.store, purge=True)
    assert data_files(copy.store) == masked
    built = build(copy)
    assert data_files(copy.store) == {output.name for output in built.outputs}
    assert data_files(copy.store).isdisjoint(masked)
    again = open_index(copy.published, copy.settings, copy.store)
    assert again.search(query, 100, Filters(unsafe=True)) == hits
    with pytest.raises(MissingInputError, match="cannot find sample"):
        again.sample(gone["SAMPLE_ID"])


def test_a_removal_makes_no_index_from_vectors_of_other_scores(copy: World) -> None:
    build(copy)
    for batch in (1, 2):  # scored again: as many rows with the same ids, and other embeddings
        stem = scored_stem(CRAWL, batch)
        vectors = np.load(io.BytesIO(copy.store.read(f"{stem}_img_emb.npy")))
        with copy.store.create(f"{stem}_img_emb.npy") as file:
            np.save(file, vectors[::-1])
        stats = copy.store.read_stats(f"{stem}_stats.json")
        outputs = tuple(
            file.output if output.name == file.output.name else output for output in stats.outputs
        )
        copy.store.write_stats(
            f"{stem}_stats.json", replace(stats, fingerprint=f"again-{batch}", outputs=outputs)
        )
    publish_dataset(CRAWL, copy.settings, copy.store)
    assert (copy.published.release.version, copy.published.rows) == (f"{CRAWL}.2", 72)
    mask_removed("laion", (CRAWL,), copy.store)
    with pytest.raises(MissingInputError, match="laion-etl search index"):
        open_index(copy.published, copy.settings, copy.store)
    assert copy.store.list("index") == []


@pytest.mark.parametrize("what", ["published", "outputs"])
def test_a_removal_makes_no_index_from_one_of_other_rows(copy: World, what: str) -> None:
    build(copy)
    publish_without_duplicates(copy)
    name = f"index/laion/{CRAWL}/_stats.json"
    stats = copy.store.read_stats(name)
    others = {
        "published": replace(stats, details={**stats.details, "published": "others"}),
        "outputs": replace(stats, outputs=tuple(replace(one, sha256="0" * 64) for one in stats.outputs)),
    }
    copy.store.write_stats(name, others[what])
    mask_removed("laion", (CRAWL,), copy.store)
    assert copy.store.list("index") == []


def test_a_running_page_notices_a_removal_and_a_deleted_index(copy: World) -> None:
    build(copy)
    source = CurrentIndex("laion", "", copy.settings, copy.store, check_s=0)
    before = source.get()
    assert source.get() is before
    rows = before.parts[0].rows.to_pylist()
    remove(read_list(rows[3]["URL"].encode(), "list"), copy.settings, copy.store)
    after = source.get()
    assert after.release == copy.published.release != before.release
    assert rows[3]["SAMPLE_ID"] not in sample_ids(after)
    copy.store.delete(index_stats(after.release))
    for _ in range(2):  # what was removed may be in what it had: it is not a fallback
        with pytest.raises(MissingInputError, match="it has no index"):
            source.get()


def test_a_removal_elsewhere_leaves_the_indexes_of_all_versions(copy: World) -> None:
    build(copy)
    publish_without_duplicates(copy)
    build(copy)
    copy.store.write("index/laion/notes.txt", b"a stray file")
    before = hashes(copy.store)
    mask_removed("laion", ("CC-MAIN-2099-01",), copy.store)
    assert hashes(copy.store) == before
    mask_removed("laion", (CRAWL,), copy.store)
    assert 0 < len(hashes(copy.store)) < len(before), "the version before still has what was removed"


def test_a_running_page_refuses_an_index_of_another_model(copy: World, encoder: QueryEncoder) -> None:
    build(copy)
    source = CurrentIndex("laion", "", copy.settings, copy.store, check_s=0)
    backend = SearchBackend(source, encoder, copy.settings, copy.store)
    assert backend.by_text("a red star", 1, Filters())
    name = index_stats(copy.published.release)
    stats = copy.store.read_stats(name)
    copy.store.write_stats(name, replace(stats, details={**stats.details, "weights_sha256": "00" * 32}))
    with pytest.raises(InputError, match="it was scored by"):
        backend.by_text("a red star", 1, Filters())


def test_a_version_without_rows_has_nothing_to_index_or_to_search(copy: World) -> None:
    build(copy)
    remove(read_list(b"images.example", "list"), copy.settings, copy.store)
    assert copy.published.rows == 0
    assert data_files(copy.store) == set()
    for search in (open_index, lambda *_: CurrentIndex("laion", "", copy.settings, copy.store).get()):
        with pytest.raises(InputError, match=r"cannot search dataset/laion/.*: it has no rows"):
            search(copy.published, copy.settings, copy.store)
    assert build(copy).kept == 0


def test_a_missing_file_and_files_of_two_parts_are_errors_that_name_them(copy: World) -> None:
    build(copy, rows_per_part=36)
    for ending in (".usearch", ".arrow"):
        first, second = (name for name in copy.store.list("index") if name.endswith(ending))
        data = copy.store.read(first)
        copy.store.write(first, copy.store.read(second))
        with pytest.raises(InputError, match=f"cannot open .*{ending}: it is"):
            open_index(copy.published, copy.settings, copy.store)
        copy.store.delete(first)
        with pytest.raises(InputError, match=f"cannot open .*{ending}: it is missing"):
            open_index(copy.published, copy.settings, copy.store)
        copy.store.write(first, data)


def test_an_index_that_a_removal_cannot_read_is_deleted(
    copy: World, caplog: pytest.LogCaptureFixture
) -> None:
    build(copy)
    [rows] = [name for name in copy.store.list("index") if name.endswith(".arrow")]
    copy.store.delete(rows)
    remove(read_list(b"https://images.example/none.jpg", "list"), copy.settings, copy.store)
    mask_removed("laion", (CRAWL,), copy.store)
    assert copy.published.rows == 72
    publish_without_duplicates(copy)
    mask_removed("laion", (CRAWL,), copy.store)
    assert "index it again" in caplog.text
    assert copy.store.list("index") == []


def test_a_killed_build_leaves_no_index_and_the_next_one_finishes(
    copy: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(GraphWriter, "write", fail)
        with pytest.raises(KeyboardInterrupt):
            build(copy)
    assert copy.store.list("index") == []
    with pytest.raises(MissingInputError, match="laion-etl search index"):
        open_index(copy.published, copy.settings, copy.store)
    build(copy)
    open_index(copy.published, copy.settings, copy.store)


@pytest.mark.parametrize("ending", [".usearch", ".arrow"])
def test_a_damaged_part_is_an_error_that_names_it(copy: World, ending: str) -> None:
    build(copy)
    [name] = [name for name in copy.store.list("index") if name.endswith(ending)]
    data = copy.store.read(name)
    copy.store.write(name, data[:-64])
    with pytest.raises(InputError, match="missing or truncated"):
        open_index(copy.published, copy.settings, copy.store)
    middle = len(data) // 2
    for damaged in (bytes(len(data)), data[:middle] + bytes(64) + data[middle + 64 :]):
        copy.store.write(name, damaged)
        with pytest.raises(InputError, match=f"{ending}: it is damaged, its SHA-256"):
            open_index(copy.published, copy.settings, copy.store)
    copy.store.write(name, data)
    open_index(copy.published, copy.settings, copy.store)


def test_embeddings_that_are_gone_or_of_another_length_are_errors(copy: World) -> None:
    name = f"{scored_stem(CRAWL, 1)}_img_emb.npy"
    with copy.store.create(name) as file:
        np.save(file, np.zeros((3, 64), np.float16))
    with pytest.raises(InputError, match="3 rows for 36 samples"):
        build(copy)
    copy.store.write(name, b"\x80\x04junk of pickle")
    with pytest.raises(InputError, match="cannot read"):
        build(copy)
    copy.store.delete(f"{scored_stem(CRAWL, 1)}_stats.json")
    with pytest.raises(InputError, match=r"is published, but .* is gone"):
        build(copy)


def test_a_part_that_cannot_be_built_does_not_stop_the_others(copy: World) -> None:
    name = f"{scored_stem(CRAWL, 1)}_img_emb.npy"
    whole = copy.store.read(name)
    copy.store.delete(name)
    with pytest.raises(StorageError, match=f"{name}: it does not exist"):
        build(copy, rows_per_part=1, jobs=1)
    built = data_files(copy.store)
    assert {part.rpartition("/")[2][:9] for part in built} == {batch_name(2)}
    with pytest.raises(MissingInputError, match="laion-etl search index"):
        open_index(copy.published, copy.settings, copy.store)

    copy.store.write(name, whole)
    assert build(copy, rows_per_part=1).kept == copy.published.rows
    assert built < data_files(copy.store)


def clustered(rows: int, dim: int, seed: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((40, dim))
    made = centres[rng.integers(0, 40, rows)] + rng.standard_normal((rows, dim))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float16)


def graph_of(vectors: np.ndarray, dtype: str, path: Path) -> tuple[Graph, np.ndarray]:
    """A graph of vectors, added in two goes, and the node of each."""
    settings = IndexSettings(dtype=dtype)
    writer = GraphWriter(vectors.shape[1], settings)
    nodes = np.concatenate([writer.add(some) for some in np.array_split(vectors, 2)])
    with path.open("wb") as file:
        writer.write(file)
    return Graph.open(path, vectors.shape[1], writer.nodes, settings, dtype), nodes


@pytest.mark.parametrize(("dtype", "bytes_each", "least"), [("f16", 128, 0.95), ("i8", 64, 0.9)])
def test_the_graph_finds_nearly_what_comparing_with_every_vector_finds(
    tmp_path: Path, dtype: str, bytes_each: int, least: float
) -> None:
    vectors = clustered(4_000, 64)
    graph, _ = graph_of(vectors, dtype, tmp_path / "index.usearch")
    queries = clustered(100, 64, seed=4).astype(np.float32)
    exact = [set(graph.nearest_exact(query, 10, None)[0]) for query in queries]
    found = [set(graph.nearest(query, 10)[0]) for query in queries]
    recall = np.mean([len(one & other) / 10 for one, other in zip(exact, found, strict=True)])
    assert recall >= least
    assert graph.vectors.nbytes == bytes_each * len(vectors)
    brute = [set(np.argsort(-(vectors.astype(np.float32) @ query))[:10]) for query in queries]
    rounding = np.mean([len(one & other) / 10 for one, other in zip(exact, brute, strict=True)])
    assert rounding >= (1.0 if dtype == "f16" else 0.9)


def test_all_copies_of_an_image_are_found_and_hide_no_other(tmp_path: Path) -> None:
    """Half of all rows are copies of a few images, one of them 400 times; the copies lie anywhere."""
    different, rng = clustered(2_000, 64), np.random.default_rng(8)
    copied = np.concatenate([np.zeros(400, np.int64), rng.integers(0, 8, 1_600)])
    original = rng.permutation(np.concatenate([np.arange(2_000), copied]))
    graph, nodes = graph_of(different[original], "f16", tmp_path / "copies.usearch")
    rows = pa.table({"SAMPLE_ID": np.arange(len(original))})
    part = OpenPart("", graph, rows, nodes, 0, PublishSettings())
    everything = Filters(unsafe=True)
    assert len(graph.vectors) == 2_000

    found, cosines = part.nearest(different[0].astype(np.float32), 700, everything)
    copies = np.flatnonzero(original == 0)
    assert len(copies) > 500
    assert found[: len(copies)].tolist() == copies.tolist()
    assert len(found) == 700
    assert np.all(np.diff(cosines) <= 0)
    fewer, _ = part.nearest(different[0].astype(np.float32), 450, everything)
    assert fewer.tolist() == found[:450].tolist()

    alone, _ = graph_of(different, "f16", tmp_path / "alone.usearch")
    recalls = []
    for one in (graph, alone):
        hits = [
            (set(one.nearest(query, 10)[0]), set(one.nearest_exact(query, 10, None)[0]))
            for query in clustered(100, 64, seed=4).astype(np.float32)
        ]
        recalls.append(np.mean([len(near & exact) / 10 for near, exact in hits]))
    assert recalls[0] >= recalls[1] - 0.01


def test_an_index_is_built_range_by_range_and_ended_without_reading_rows(
    copy: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = StageStats("plan", CRAWL, "batches", "x", 0, 0, details={"batches": [1, 2]})
    copy.store.write_stats(plan_stats_name(CRAWL), planned)
    settings = replace(copy.settings, publish=replace(copy.settings.publish, batches_per_range=1))
    publish_dataset(
        CRAWL, replace(settings, publish=replace(settings.publish, aesthetic_min=4.0)), copy.store
    )
    published = find_published("laion", "", copy.store)
    assert [one.number for one in published.ranges] == [1, 2]
    counts = [index_range(published, number, 2, settings, copy.store) for number in (2, 1)]
    assert sum(counts) == published.rows
    parts = data_files(copy.store)
    assert index_range(published, 1, 2, settings, copy.store) == counts[1]
    monkeypatch.setattr(stage, "batches_of", None)
    stats = index_dataset(published, settings, copy.store)
    assert stats.kept == published.rows
    assert data_files(copy.store) == parts
    opened = open_index(published, settings, copy.store)
    assert sample_ids(opened) == {
        sample for batch in published.batches(copy.store) for sample in batch.ids.tolist()
    }
    assert [part.rows.num_rows for part in opened.parts] == counts[::-1]


@pytest.mark.parametrize("what", ["crawl", "unit"])
def test_an_index_that_names_parts_elsewhere_is_not_opened(copy: World, what: str) -> None:
    stats = build(copy)
    [part] = stats.details["parts"]
    changed = replace(stats, details={**stats.details, "parts": [{**part, what: "../../../secret"}]})
    copy.store.write_stats(index_stats(copy.published.release), changed)
    with pytest.raises(InputError, match=r"_stats\.json is not the record of an index \(invalid .*secret"):
        open_index(copy.published, copy.settings, copy.store)


@pytest.mark.parametrize("content", [b"", b"\2\0\0\0\4", b"\2\0\0\0\4\0\0\0" + b"vectors", b"\xff" * 12])
def test_vectors_are_not_taken_out_of_a_graph_that_is_too_short(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "part.usearch"
    path.write_bytes(content)
    target = io.BytesIO()
    with pytest.raises(DamagedFileError, match=r"cannot take vectors out of part\.usearch: .*; run"):
        erase(path, target, np.array([1]))
    assert not target.getvalue()
