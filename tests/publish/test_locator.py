"""The locator of a crawl: what a removal finds by it, what it does not read, and when it is not trusted."""

import io
import json
import logging
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from typer.testing import CliRunner

from laion_etl.blocklists.removal_requests import Matcher, Request
from laion_etl.blocklists.turned_hashes import turned
from laion_etl.cli import app
from laion_etl.core.errors import InputError
from laion_etl.core.schemas import BATCH_SCHEMA, PAIR_SCHEMA, SHARD_SCHEMA, pair_id
from laion_etl.dataset.locator import build, lookup, units
from laion_etl.dataset.locator.keys import RowKeys, WantedKeys, row_keys, wanted_keys
from laion_etl.dataset.locator.segment_reader import Segment, find_units
from laion_etl.dataset.locator.segment_writer import FILES_SCHEMA, SegmentWriter, url_rules
from laion_etl.dataset.manifest import current_manifest
from laion_etl.dataset.subsets import LANGUAGE_SUBSETS
from laion_etl.io.storage import Guard, ListedFile, LocalStore, Store
from laion_etl.publish.stage import publish_dataset, publish_variants
from laion_etl.removal import line_matcher, work
from laion_etl.removal.line_counts import line_results
from laion_etl.removal.line_matcher import LineMatcher
from laion_etl.removal.line_rules import LineRules
from laion_etl.removal.lists import read_lines, read_list
from laion_etl.removal.requested_lines import RequestedLine
from laion_etl.removal.search import Failures, Findings, Search
from laion_etl.removal.stage import finish, look_up, prepare, remove, rewrite_range
from laion_etl.settings import Settings
from tests.parse.test_url_rules import raise_version
from tests.publish.world import CRAWL, Row, World, build_world, changed, write_world

NEXT = "CC-MAIN-2026-47"
FOLDERS = ("shards", "scored", "pairs", "batches")
IDN = "xn--bcher-kva.example"
DISTANCE = Settings().download.pdq_distance


class Counting(LocalStore):
    """A folder that remembers which files were read and written."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads: list[str] = []
        self.writes: list[str] = []

    def open(self, name: str) -> BinaryIO:
        self.reads.append(name)
        return super().open(name)

    def create(self, name: str, guard: Guard | None = None):  # type: ignore[no-untyped-def]
        self.writes.append(name)
        return super().create(name, guard)

    @property
    def data_read(self) -> set[str]:
        return {name for name in self.reads if name.endswith(".parquet") and not name.startswith("locator/")}


class Unlocated(Counting):
    """The same folder as it is without locators."""

    def files(self, folder: str, first: str = "", last: str = "") -> Iterator[ListedFile]:
        if not folder.startswith("locator/"):
            yield from super().files(folder, first, last)


def _world(first_batch: int) -> World:
    """Twelve batches of four samples; each batch has its own host."""
    world = build_world(batches=12, samples=4, first_batch=first_batch)
    for batch, rows in world.batches.items():
        for index, row in enumerate(rows):
            rng = random.Random(row["key"])
            row["url"] = f"https://{_host(batch)}/gallery/{batch}/{index}~a.jpg?size=2"
            row["pair_id"] = pair_id(row["url"], row["caption"])
            row["md5"], row["sha256"], row["pdq"] = (rng.randbytes(n).hex() for n in (16, 32, 32))
            row["reason"] = None if index else "low_similarity"
    return world


def _host(batch: int) -> str:
    return f"img.{IDN}" if batch == 7 else f"img.site{batch}.example.org"


def _link(batch: int, name: str) -> Row:
    """A link that was not downloaded."""
    url = f"https://{_host(batch)}/{name}.jpg"
    texts = {"url": url, "caption": f"caption {name}", "language": "en", "license": "?"}
    return texts | {"pair_id": pair_id(url, texts["caption"]), "page_url": "https://page.example/",
                    "key": f"{batch:09d}00009", "status": "http_error"}  # fmt: skip


def _not_downloaded(row: Row, batch: int) -> Row:
    nothing = dict.fromkeys(("sha256", "md5", "pdq"))
    return row | nothing | {"key": f"{batch:09d}00008", "status": "http_error"}


def _write_crawl(world: World, crawl: str, more: list[Row], failed: list[Row], store: Store) -> None:
    write_world(world, store, crawl=crawl)
    for batch, rows in world.batches.items():
        planned = [*rows, _link(batch, f"failed-{batch}"), *(failed if batch == 1 else ())]
        _parquet(f"shards/{crawl}/{batch:09d}.parquet", planned, SHARD_SCHEMA, store)
        _parquet(f"batches/{crawl}/{batch:09d}.parquet", planned, BATCH_SCHEMA, store)
        kept = [row for row in rows if row["reason"] is None]
        for ending in ("img", "text"):
            with store.create(f"scored/{crawl}/{batch:09d}_{ending}_emb.npy") as file:
                np.save(file, np.zeros((len(kept), 4), np.float16), allow_pickle=False)
        pairs = [*planned, _link(batch, f"not-planned-{batch}"), *(more if batch % 12 == 6 else ())]
        _parquet(f"pairs/{crawl}/part-{batch % 12:05d}.parquet", pairs, PAIR_SCHEMA, store)


def _parquet(name: str, rows: list[Row], schema: pa.Schema, store: Store) -> None:
    defaults = {"title": "", "language_probability": 1.0, "domain": "d", "wat_file": 0, "record_offset": 0}
    table = pa.Table.from_pylist([defaults | row for row in rows], schema=schema)
    with store.create(name) as file:
        pq.write_table(table, file, compression="zstd")


@pytest.mark.parametrize(("quality", "found"), [(None, True), (50, True), (49, False), (0, False)])
def test_no_image_is_found_by_a_hash_of_low_quality(quality: int | None, found: bool) -> None:
    """Blank images have the same hash; an image of an earlier version has no quality."""
    pdq = "5a" * 32
    rows = pa.record_batch({"pdq": pa.array([pdq]), "pdq_quality": pa.array([quality], pa.int32())})
    matcher = Matcher([Request({"pdq": frozenset({pdq})})], DISTANCE)
    assert matcher.finds(rows).tolist() == [found]
    assert len(row_keys(rows).pdq) == found
    assert matcher.finds(rows.select(["pdq"])).tolist() == [True]


@pytest.fixture(scope="module")
def worlds() -> dict[str, World]:
    return {CRAWL: _world(0), NEXT: _world(12)}


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory, worlds: dict[str, World]) -> Path:
    """Two published crawls; each has a pair of the other once more, but did not download it."""
    store = LocalStore(tmp_path_factory.mktemp("full"))
    failed = _not_downloaded(worlds[NEXT].batches[20][1], 1)
    for crawl, world in worlds.items():
        more = worlds[CRAWL].batches[2][1:2] if crawl == NEXT else []
        _write_crawl(world, crawl, more, [failed], store)
        publish_dataset(crawl, Settings(), store)
        build.locate(crawl, store)
    return store.root


def _request(*lines: str) -> Request:
    return read_list("\n".join(lines).encode(), "list")


def _search(request: Request, store: Store) -> Findings:
    failures = Failures()
    found = Search(request, Settings(), store, failures).run()
    assert not failures.messages
    return found


def _matching(request: Request, store: Store) -> set[str]:
    """Return the files with rows that a request matches."""
    matcher = Matcher([request], DISTANCE)
    tables = {
        name: pq.ParquetFile(io.BytesIO(store.read(name))).read()
        for folder in FOLDERS
        for name in store.list(folder)
        if name.endswith(".parquet")
    }
    return {name for name, table in tables.items() if matcher.finds(table).any()}


def _flipped(digest: str, bits: int) -> str:
    wrong = sum(1 << bit for bit in random.Random(bits).sample(range(256), bits))
    return f"{int(digest, 16) ^ wrong:064x}"


def _mirrored(digest: str) -> str:
    return turned(np.frombuffer(bytes.fromhex(digest), np.uint8)[None])[1].tobytes().hex()


def _row(worlds: dict[str, World], batch: int) -> Row:
    return worlds[CRAWL].batches[batch][1]


Line = Callable[[dict[str, World]], str]
LINES: dict[str, tuple[Line, set[int]]] = {
    "url in another spelling": (
        lambda _: "HTTPS://IMG.Site3.example.org:443/x/../gallery/3/./1~a.jpg?size=2#top", {3},
    ),
    "url without scheme and query": (lambda _: "img.site3.example.org/gallery/3/1~a.jpg", {3}),
    "folder": (lambda _: "img.site3.example.org/gallery/", {3}),
    "folder of a domain above": (lambda _: "site3.example.org/gallery/3/", {3}),
    "all of a host": (lambda _: "img.site3.example.org/", {3}),
    "domain": (lambda _: "domain:Site5.Example.ORG", {5}),
    "domain in another script": (lambda _: "bücher.example", {7}),
    "pair": (lambda worlds: f"pair:{_row(worlds, 4)['pair_id'].hex()}", {4}),
    "md5": (lambda worlds: f"md5:{_row(worlds, 4)['md5'].upper()}", {4}),
    "sha256 of a pair that another crawl has": (lambda worlds: _row(worlds, 2)["sha256"], {2}),
    "near pdq": (lambda worlds: f"pdq:{_flipped(_row(worlds, 4)['pdq'], DISTANCE)}", {4}),
    "pdq that is too far": (lambda worlds: f"pdq:{_flipped(_row(worlds, 4)['pdq'], DISTANCE + 1)}", set()),
    "pdq of the mirrored image": (lambda worlds: f"pdq:{_mirrored(_row(worlds, 4)['pdq'])}", {4}),
    "link that failed": (lambda _: "img.site6.example.org/failed-6.jpg", {6}),
    "link that was not planned": (lambda _: "img.site6.example.org/not-planned-6.jpg", set()),
    "nothing": (lambda _: "https://elsewhere.example/a.jpg", set()),
}  # fmt: skip


@pytest.mark.parametrize("case", LINES)
def test_what_is_found_by_the_locator_is_what_reading_everything_finds(
    full: Path, worlds: dict[str, World], case: str
) -> None:
    line, batches = LINES[case]
    request, store = _request(line(worlds)), Counting(full)
    found, everything = _search(request, store), _search(request, Unlocated(full))
    assert found.request == everything.request
    matching = _matching(everything.request, store)
    assert set(found.names) == matching
    assert {int(name.rpartition("/")[2][:9]) for name in matching if name.startswith("batches")} == batches


@pytest.mark.parametrize("case", LINES)
def test_only_units_with_something_of_the_request_are_read(
    full: Path, worlds: dict[str, World], case: str
) -> None:
    store = Counting(full)
    found = _search(_request(LINES[case][0](worlds)), store)
    read = {units.unit_of(name) for name in store.data_read if not name.startswith("dataset/")}
    assert read == {units.unit_of(name) for name in _matching(found.request, Unlocated(full))}
    keys = [name for name in found.names if name.startswith("scored/")]
    published = {name.split("/")[2] for name in store.data_read if name.startswith("dataset/")}
    assert published <= {CRAWL} if keys else not published


def test_a_thousand_requests_read_no_more_than_their_files(full: Path, worlds: dict[str, World]) -> None:
    lines = [f"nowhere{number}.example/{number}.jpg" for number in range(1_000)]
    named = (_row(worlds, 4)["url"], _row(worlds, 9)["sha256"])
    many, two = Counting(full), Counting(full)
    assert _search(_request(*lines, *named), many).request.crawls == (CRAWL,)
    _search(_request(*named), two)
    assert sorted(many.reads) == sorted(two.reads), "what is looked up together is read together"
    assert {name.rpartition("/")[2] for name in many.data_read if name.startswith("shards/")} == {
        "000000004.parquet", "000000009.parquet"
    }  # fmt: skip


def test_a_pair_that_is_found_by_its_image_is_removed_from_files_that_were_read_before(
    full: Path, worlds: dict[str, World]
) -> None:
    store = Counting(full)
    request = _request(worlds[NEXT].batches[20][1]["sha256"], _row(worlds, 1)["url"])
    found = _search(request, store)
    assert found.request == _search(request, Unlocated(full)).request
    assert f"shards/{CRAWL}/000000001.parquet" in found.names
    matcher = Matcher([found.request], DISTANCE)
    table = pq.ParquetFile(io.BytesIO(store.read(f"shards/{CRAWL}/000000001.parquet"))).read()
    assert matcher.finds(table).sum() == 2
    alone = _search(_request(worlds[NEXT].batches[20][1]["sha256"]), store)
    assert set(alone.names) >= {f"{folder}/{CRAWL}/000000001.parquet" for folder in ("shards", "batches")}


def test_an_expression_on_a_top_level_domain_reads_all_files_that_have_it(full: Path) -> None:
    store = Counting(full)
    found = _search(_request("org/gallery/3/"), store)
    assert found.request == _search(_request("org/gallery/3/"), Unlocated(full)).request
    read = {units.unit_of(name) for name in store.data_read if name.startswith("shards/")}
    assert read == {f"{batch:09d}" for batch in range(24) if batch != 7}


def test_published_rows_without_stored_files_are_found(full: Path, tmp_path: Path) -> None:
    store = _copy(full, tmp_path / "store")
    for folder in FOLDERS:
        shutil.rmtree(store.root / folder)
    for crawl in (CRAWL, NEXT):
        build.locate(crawl, store)
    store.reads.clear()
    found = _search(_request("img.site3.example.org/gallery/3/2~a.jpg"), store)
    assert (found.request.crawls, found.names) == ((CRAWL,), ())
    assert {name.split("/")[2] for name in store.data_read} == {CRAWL}
    fresh = _request("img.site3.example.org/gallery/3/2~a.jpg")
    counted = Search(fresh, Settings(), store, Failures(), lines=[fresh]).run().request
    assert counted.lines == {fresh.id: 1}
    assert Search(counted, Settings(), store, Failures(), lines=[fresh]).run().request == counted, "repeated"


def test_all_lines_at_once_find_what_each_alone_finds(
    full: Path, worlds: dict[str, World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_matcher, "_ROWS_AT_ONCE", 50)
    other = "https://IMG.site3.example.org./gallery/3/%7Ea%2f/2.jpg?a"
    lines = [case(worlds) for case, _ in LINES.values()] + [
        "org/gallery/3/", "site3.example.org/", "img.site3.example.org/gallery/3/~a%2F/2.jpg",
        "domain:127.0.0.1",
    ]  # fmt: skip
    requests = [_request(line) for line in lines]
    requests += [replace(one, url_rule=1) for one in requests[:8]]
    store = LocalStore(full)
    tables = [
        pa.concat_tables(pq.read_table(io.BytesIO(store.read(name))) for name in names)
        for names in ([one for one in store.list(folder) if one.endswith(".parquet")] for folder in FOLDERS)
    ]
    unusual = [other, "http://127.1/a.jpg", "HTTPS://site5.example.org", "", "http://[::1]/gallery/3/"]
    tables.append(
        pa.table(
            {"pair_id": [bytes([n]) * 16 for n in range(len(unusual))], "url": unusual, "caption": unusual}
        )
    )
    for bits in (DISTANCE, 40):
        together, alone = (
            LineMatcher(LineRules.of(requests), bits),
            {one.id: Matcher([one], bits) for one in requests},
        )
        found: set[str] = set()
        for table in tables:
            wanted = {
                name: set(table["pair_id"].filter(pa.array(matcher.finds(table))).to_pylist())
                for name, matcher in alone.items()
            }
            by_line = together.pairs_of_lines(table)
            assert by_line == {name: pairs for name, pairs in wanted.items() if pairs}
            found |= by_line.keys()
        assert len(found) > 15


LIST = (
    "img.site3.example.org/gallery/3/2~a.jpg",
    "domain:site5.example.org",
    "img.site6.example.org/failed-6.jpg",
    "img.site5.example.org/not-planned-5.jpg",
    "img.site6.example.org/typo.jpg",
    "DOMAIN:Site5.example.org.",
)
PAIRS = [1, 6, 1, 1, 0, 6]  # of each line


def _lines() -> tuple[RequestedLine, ...]:
    return read_lines("\r\n".join(LIST).encode(), "list").requested({})


def _copy(full: Path, root: Path) -> Counting:
    shutil.copytree(full, root, ignore=shutil.ignore_patterns("locator"))
    return Counting(root)


def _located_copy(full: Path, root: Path) -> Counting:
    store = _copy(full, root)
    for crawl in (CRAWL, NEXT):
        build.locate(crawl, store)
    store.reads.clear()
    return store


def _contents(store: Store) -> dict[str, bytes]:
    names = store.list("")
    return {name: store.read(name) for name in names if not name.startswith(("locator/", "removing/"))}


@pytest.fixture(scope="module")
def by_reading_everything(full: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The store after a removal without locators."""
    store = _copy(full, tmp_path_factory.mktemp("all") / "store")
    done = remove(_request(*LIST), Settings(), store, purge=True, lines=_lines())
    assert done.request.counts == {"urls": 2, "domains": 6}
    assert [one.pairs for one in line_results(_lines(), done.request, ())] == PAIRS
    return _contents(store)


def test_a_removal_by_the_locator_leaves_the_same_bytes_and_other_batches_alone(
    full: Path, tmp_path: Path, by_reading_everything: dict[str, bytes]
) -> None:
    store = _located_copy(full, tmp_path / "store")
    remove(_request(*LIST), Settings(), store, purge=True, lines=_lines())
    touched = {name for name in store.data_read if name.startswith(("batches/", "shards/", "pairs/"))}
    numbers = {name.rpartition("/")[2].removeprefix("part-").removesuffix(".parquet") for name in touched}
    assert {int(number) for number in numbers} == {3, 5, 6}
    assert not [name for name in store.data_read if NEXT in name]
    assert _contents(store) == by_reading_everything


def test_a_divided_removal_that_is_killed_and_repeated_leaves_the_same_bytes(
    full: Path, tmp_path: Path, by_reading_everything: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "UNITS_PER_RANGE", 2)
    store, request, settings = _located_copy(full, tmp_path / "store"), _request(*LIST), Settings()
    prepared = prepare(request, settings, store, lines=_lines())
    assert isinstance(prepared, work.Work)
    assert (len(prepared.units), prepared.ranges) == (6, 3)

    class Killed(Counting):
        def create(self, name: str, guard: Guard | None = None):  # type: ignore[no-untyped-def]
            if name == f"batches/{CRAWL}/000000006.parquet":
                raise KeyboardInterrupt
            return super().create(name, guard)

    with pytest.raises(KeyboardInterrupt):
        for number in (1, 2, 3):
            rewrite_range(request.id, number, 3, settings, Killed(store.root))
    with pytest.raises(InputError, match=r"the ranges 2/3, 3/3 are not rewritten; run them first"):
        finish(request.id, settings, store)
    with pytest.raises(InputError, match="it has 3 ranges; take the ranges that --prepare names"):
        rewrite_range(request.id, 1, 4, settings, store)
    for number in (3, 2):
        rewrite_range(request.id, number, 3, settings, store)
    store.reads.clear()
    rewrite_range(request.id, 1, 3, settings, store)
    assert store.data_read == {f"removing/{request.id}/files.parquet"}, "the range was done"
    assert prepare(request, settings, store, lines=_lines()) == prepared, "repeated when pairs are gone"
    for number in (3, 2, 1):
        rewrite_range(request.id, number, 3, settings, store)
    store.write(f"removing/{request.id}/range-0002-of-0003.json", b"{")
    with pytest.raises(InputError, match=r"the ranges 2/3 are not rewritten"):
        finish(request.id, settings, store)
    rewrite_range(request.id, 2, 3, settings, store)
    done = finish(request.id, settings, store, purge=True)
    assert [stats.unit for stats in done.published] == [f"laion/{CRAWL}.2"]
    assert finish(request.id, settings, store, purge=True).published == ()
    assert _contents(store) == by_reading_everything


def test_what_ranges_have_removed_counts_also_if_the_removal_ends_undivided(
    full: Path, tmp_path: Path, by_reading_everything: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "UNITS_PER_RANGE", 2)
    store, request, settings = _located_copy(full, tmp_path / "store"), _request(*LIST), Settings()

    def looked_up() -> list[int]:
        found, _ = look_up(request, settings, store, lines=_lines())
        return [one.pairs for one in line_results(_lines(), found, ())]

    assert looked_up() == PAIRS
    prepare(request, settings, store, lines=_lines())
    assert looked_up() == PAIRS
    for number in (2, 3):
        rewrite_range(request.id, number, 3, settings, store)
    assert looked_up() == PAIRS
    remove(request, settings, store, purge=True, lines=_lines())
    assert _contents(store) == by_reading_everything


def test_the_commands_of_a_divided_removal(
    full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_reading_everything: dict[str, bytes]
) -> None:
    monkeypatch.setattr(work, "UNITS_PER_RANGE", 2)
    store = _located_copy(full, tmp_path / "store")
    monkeypatch.setenv("LAION_ETL_STORE", str(store.root))
    monkeypatch.setenv("LAION_ETL_DATA_DIR", str(tmp_path / "data"))
    listed = tmp_path / "list.txt"
    listed.write_text("\r\n".join(LIST))

    def command(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["dataset", *arguments])

    def result(*arguments: str) -> dict[str, Any]:
        done = command("remove", *arguments, "--json")
        assert done.exit_code == 0, (done.output, done.exception)
        return dict(json.loads(done.stdout))

    prepared = result("--list", str(listed), "--prepare")
    assert prepared["crawls"] == [CRAWL]
    assert prepared["ranges"] == ["1/3", "2/3", "3/3"]
    assert command("remove", "--request", prepared["id"], "--range", "0/3").exit_code
    opened, reads = LocalStore.open, []

    def noted(self: LocalStore, name: str) -> BinaryIO:
        reads.append(name)
        return opened(self, name)

    files, of_lines = [], []
    with monkeypatch.context() as during:
        during.setattr(LocalStore, "open", noted)
        for one in prepared["ranges"]:
            reads.clear()
            files.append(result("--request", prepared["id"], "--range", one)["files"])
            of_lines.append(reads.count(f"removing/{prepared['id']}/lines.json"))
    assert sum(files) == 11
    assert of_lines == [0, 1, 1], "the lines are read once, where pairs match"
    finish_it = ("--request", prepared["id"], "--finish", "--purge")
    record = store.list(f"removing/{prepared['id']}/found")[0]
    data = store.read(record)
    store.delete(record)
    for again in (finish_it, ("--list", str(listed), "--prepare"), ("--list", str(listed))):
        failed = str(command("remove", *again).exception)
        assert failed.endswith(
            f"{record}: it does not exist; restore it: without it its pairs keep their texts in Postgres"
        )
    store.write(record, data)
    missed = command("remove", *finish_it)
    assert "1 of 6 lines of the list of removal" in str(missed.exception)
    assert "line 5 match nothing" in str(missed.exception), "with the exit code of the undivided removal"
    done = result(*finish_it, "--allow-misses")
    assert [(one["line"], one["pairs"]) for one in done["lines"]] == [*enumerate(PAIRS, 1)]
    assert "line 5 (img.site6.example.org/typo.jpg) match nothing" in str(
        command("remove", "--list", str(listed), "--finish").exception
    ), "a list has the texts"
    assert _contents(store) == by_reading_everything
    out = tmp_path / "receipt.json"
    assert command("receipt", "write", "--list", str(listed), "--out", str(out)).exit_code == 0
    assert [one["pairs"] for one in json.loads(out.read_text())["lines"]] == PAIRS
    assert [name for name in store.list("removing") if "finished" not in name] == [
        f"removing/{prepared['id']}/lines.json"
    ]
    store.delete(f"removing/{prepared['id']}/lines.json")
    assert "lines" not in result("--request", prepared["id"], "--finish"), "prepared by an earlier version"


def test_a_removal_of_one_range_is_carried_out_at_once(full: Path, tmp_path: Path) -> None:
    store = _located_copy(full, tmp_path / "store")
    done = prepare(_request("img.site6.example.org/not-planned-6.jpg"), Settings(), store)
    assert not isinstance(done, work.Work)
    assert _matching(done.request, store) == set()
    assert store.list("removing") == [f"removing/{done.request.id}/finished.json"]
    assert done.request.counts == {"urls": 1}


def test_a_file_that_has_changed_since_is_read(full: Path, tmp_path: Path) -> None:
    store = _located_copy(full, tmp_path / "store")
    name = f"batches/{CRAWL}/000000001.parquet"
    _parquet(name, [_link(1, "another")], BATCH_SCHEMA, store)
    found = _search(_request("img.site1.example.org/another.jpg"), store)
    assert found.names == (name,)
    build.locate(CRAWL, store)
    store.reads.clear()
    assert _search(_request("img.site1.example.org/another.jpg"), store).names == (name,)
    assert {units.unit_of(name) for name in store.data_read} == {"000000001"}


@pytest.mark.parametrize("ending", [".keys", ".pdq", ".parquet", ".json"])
def test_a_damaged_locator_is_not_trusted(
    full: Path, tmp_path: Path, worlds: dict[str, World], ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = _located_copy(full, tmp_path / "store")
    for name in store.list(f"locator/{CRAWL}"):
        if name.endswith(ending):
            data = store.read(name)
            store.write(name, data[:-9] if ending == ".json" else bytes(len(data)))
    row = _row(worlds, 4)
    request = _request(row["url"], f"pdq:{row['pdq']}")
    assert _search(request, store).request == _search(request, Unlocated(store.root)).request
    assert f"{CRAWL} has no usable locator: all its" in caplog.text


@pytest.mark.parametrize("bits", [33, 1 << 62])
def test_a_locator_with_more_buckets_than_keys_is_not_trusted(
    full: Path, tmp_path: Path, worlds: dict[str, World], bits: int, caplog: pytest.LogCaptureFixture
) -> None:
    store = _located_copy(full, tmp_path / "store")
    for name in store.list(f"locator/{CRAWL}"):
        if name.endswith(".json"):
            stats = store.read_stats(name)
            store.write_stats(name, replace(stats, details={**stats.details, "bucket_bits": bits}))
    request = _request(_row(worlds, 4)["url"])
    assert _search(request, store).request == _search(request, Unlocated(store.root)).request
    assert f"its keys cannot be in 2^{bits} buckets" in caplog.text


def test_a_locator_of_another_url_rule_is_not_trusted_until_it_is_made_again(
    full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = _located_copy(full, tmp_path / "store")
    raise_version(monkeypatch)
    request = _request("IMG.site3.example.org/GALLERY/3/1~A.jpg")  # this rule ignores case and queries
    found = _search(request, store)
    assert {f"{folder}/{CRAWL}/000000003.parquet" for folder in ("batches", "shards")} < set(found.names)
    assert f"today's are {url_rules()}; run `laion-etl dataset locate --crawl {CRAWL}`" in caplog.text
    for crawl in (CRAWL, NEXT):
        build.locate(crawl, store)
    store.reads.clear()
    again = _search(request, store)
    assert again.request == found.request
    assert len([name for name in store.data_read if name.startswith("shards/")]) == 1


def test_locating_again_writes_nothing_and_what_was_killed_is_made_the_same(
    full: Path, tmp_path: Path
) -> None:
    store = _located_copy(full, tmp_path / "store")
    before = {name: store.read(name) for name in store.list("locator")}
    store.writes.clear()
    assert build.locate(CRAWL, store) == build.Located(0, 0, 27)
    assert store.writes == []

    class Killed(LocalStore):
        def create(self, name: str, guard: Guard | None = None):  # type: ignore[no-untyped-def]
            if name.endswith(".json"):
                raise KeyboardInterrupt
            return super().create(name, guard)

    shutil.rmtree(store.root / "locator")
    with pytest.raises(KeyboardInterrupt):
        build.locate(CRAWL, Killed(store.root))
    for crawl in (CRAWL, NEXT):
        for number in (1, 2, 3):
            build.locate(crawl, store, number, 3)
    assert {name: store.read(name) for name in store.list("locator")} == before


def test_publishing_locates_large_crawls_only(
    full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = _copy(full, tmp_path / "store")
    publish_variants(CRAWL, Settings(), store)
    assert not store.list("locator")
    monkeypatch.setattr(build, "FEWEST_BATCHES", 12)
    publish_variants(CRAWL, Settings(), store)
    store.reads.clear()
    assert _search(_request("img.site3.example.org/gallery/"), store).names
    assert f"shards/{CRAWL}/000000004.parquet" not in store.reads


def test_a_crawl_that_is_published_in_ranges_is_located_as_a_whole(
    full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ranges locate the files that they write, although no manifest lists them yet."""
    monkeypatch.setattr(build, "FEWEST_BATCHES", 12)
    store, request = _copy(full, tmp_path / "store"), _request("img.site3.example.org/gallery/")
    for version in range(2):
        settings = changed(Settings(), batches_per_range=5, rows_per_file=20 + version)
        publish_variants(CRAWL, settings, store)
        found = build.locate(CRAWL, store)
        assert (found.units, found.segments) == (0, 0)
        of_ranges = [name for name in store.list(f"locator/{CRAWL}") if "/published-0" in name]
        assert len(of_ranges) == 3 * 4, "those of the version before are gone"
        store.reads.clear()
        assert _search(request, store).request == _search(request, Unlocated(store.root)).request
        read = {name.partition("/part-")[2] for name in _published(store) & store.data_read}
        assert read == {"00001-00000.parquet"}, "batch 3 is in the first of three ranges"


def _published(store: Store) -> set[str]:
    manifest = current_manifest("laion", store)
    assert manifest is not None
    return {file.name for subset in LANGUAGE_SUBSETS for file in manifest.data_files(subset, CRAWL)}


def test_a_slice_in_many_pieces_is_written_as_a_whole_again(full: Path, tmp_path: Path) -> None:
    store = _located_copy(full, tmp_path / "store")
    for batch in range(4):
        _parquet(
            f"batches/{CRAWL}/{batch:09d}.parquet", [_link(batch, f"other-{batch}")], BATCH_SCHEMA, store
        )
        build.locate(CRAWL, store)
    segments = [
        name for name in store.list(f"locator/{CRAWL}") if name.endswith(".json") and "/batches-" in name
    ]
    assert len(segments) < 4
    for batch in range(4):
        store.reads.clear()
        _search(_request(f"img.site{batch}.example.org/other-{batch}.jpg"), store)
        assert {units.unit_of(name) for name in store.data_read} == {f"{batch:09d}"}


def test_units_are_found_by_each_of_their_keys_in_segments_of_many_runs_and_buckets(
    store: LocalStore,
) -> None:
    rng = np.random.default_rng(5)
    keys = [np.unique(rng.integers(0, 2**64, 3_000, np.uint64)) for _ in range(20)]
    keys[7] = np.union1d(keys[7], keys[3][:500])
    for run_entries in (2_500, 1 << 20):
        with SegmentWriter(f"locator/c/{run_entries}", store, run_entries) as writer:
            for unit, found in enumerate(keys):
                for part in (found[: len(found) // 2 + 9], found[len(found) // 2 :]):
                    writer.add(unit, RowKeys(part, np.empty((0, 32), np.uint8)), 1)
            stats = writer.finish("c", "f", 20, FILES_SCHEMA.empty_table(), ["batches", ""])
        assert stats.details["entries"] == sum(map(len, keys))
        segment = Segment(f"locator/c/{run_entries}", stats)
        for unit in (0, 3, 7, 19):
            for key in keys[unit][::400]:
                expected = [number for number, found in enumerate(keys) if key in found]
                assert find_units(segment, WantedKeys(np.asarray([key])), store).tolist() == expected
        assert find_units(segment, WantedKeys(keys[3]), store).tolist() == [3, 7]
        others = WantedKeys(np.unique(rng.integers(0, 2**64, 1_000, np.uint64)))
        assert find_units(segment, others, store).tolist() == []
    one, other = (store.read(f"locator/c/{run_entries}.keys") for run_entries in (2_500, 1 << 20))
    assert one == other


def test_on_s3_a_look_up_reads_an_index_and_a_bucket_and_lists_only_its_slice(
    s3_store: Store, full: Path
) -> None:
    source = LocalStore(full)
    for name in source.list(f"batches/{CRAWL}"):
        s3_store.write(name, source.read(name))
    build.locate(CRAWL, s3_store)
    client, requests = s3_store._client, []  # type: ignore[attr-defined]

    def note(model: object, params: dict[str, object], **_: object) -> None:
        requests.append((model.name, params["url_path"], params["headers"].get("Range")))  # type: ignore[attr-defined,index]

    client.meta.events.register("before-call.s3", note)
    try:
        wanted = wanted_keys([_request("img.site3.example.org/gallery/3/2~a.jpg")], DISTANCE)
        found = lookup.find_files(CRAWL, wanted, s3_store)
        part = units.Slice(units.BATCHES, "000000004", "000000006")
        listed = [name for name, _ in units.files(CRAWL, part, s3_store)]
    finally:
        client.meta.events.unregister("before-call.s3", note)
    assert (found.found, found.uncovered) == ({f"batches/{CRAWL}/000000003.parquet"}, frozenset())
    assert len([one for one in requests if one[0] == "GetObject" and one[2] and ".keys" in one[1]]) == 2
    assert not [one for one in requests if "batches/" in one[1]]
    assert listed == [f"batches/{CRAWL}/{batch:09d}.parquet" for batch in (4, 5)]


@pytest.fixture(autouse=True)
def _log_warnings(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "laion_etl")
