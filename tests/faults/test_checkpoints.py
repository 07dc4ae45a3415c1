"""A partition that is interrupted goes on at the WAT file where it stopped, and ends with the same bytes."""

import io
import multiprocessing
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from laion_etl.core.errors import InputError
from laion_etl.core.stage_stats import StageStats
from laion_etl.io.storage import LocalStore, Store
from laion_etl.parse.checkpoints import Checkpoints
from laion_etl.parse.file_counts import FileCounts
from laion_etl.parse.stage import parse_partition
from laion_etl.parse.wat_workers import _Job, _wait_for
from laion_etl.settings import CoreSettings, ParseSettings, Settings
from tests.parse.wat_files import compact_page_record, image, record
from tests.test_inputs import response, server

FILES = 4


def wat(number: int) -> bytes:
    """Pairs of its own, some that all files have, and a damaged record."""
    links = [
        image(f"/{n}.jpg", f"A drawing of house number {n}") for n in range(10 * number, 10 * number + 30)
    ]
    pages = [compact_page_record(f"https://e.org/{number}/{n}/", links[n::3]) for n in range(3)]
    return b"".join(pages) + record("https://e.org/", b"{broken") + pages[0][:-20]


class CrawlSource:
    """A server of WAT files; `asked` counts the requests for each."""

    def __init__(self) -> None:
        self.asked: Counter[int] = Counter()
        self.refused: set[int] = set()
        self.silent_at = -1
        self.is_silent = threading.Event()

    def answer(self, _number: int, head: str) -> bytes:
        number = int(head.split()[1].strip("/").partition(".")[0])
        self.asked[number] += 1
        if number == self.silent_at:
            self.is_silent.set()
            return b""
        if number in self.refused:
            return response("404 Not Found", b"")
        return response("200 OK", wat(number))

    def interrupt(self, files: list[tuple[int, str]], tmp_path: Path, store: Store) -> None:
        """An attempt that ends at file 2, which is there again afterwards."""
        self.refused = {2}
        with pytest.raises(InputError):
            parsed(files, tmp_path, store)
        self.refused = set()

    @contextmanager
    def serving(self) -> Iterator[list[tuple[int, str]]]:
        """The files, as (number, URI)."""
        with server(self.answer) as url:
            yield [(number, f"{url}/{number}.wat.gz") for number in range(FILES)]


def settings(tmp_path: Path, jobs: int = 1) -> Settings:
    core = CoreSettings(data_dir=str(tmp_path / "data"), crawl_requests_per_s=0)
    return Settings(core=core, parse=ParseSettings(jobs=jobs, language_detector="none"))


def parsed(files: list[tuple[int, str]], tmp_path: Path, store: Store, jobs: int = 1) -> StageStats:
    return parse_partition("C", 0, files, settings(tmp_path, jobs), store)


def undisturbed(files: list[tuple[int, str]], tmp_path: Path) -> StageStats:
    return parsed(files, tmp_path, LocalStore(tmp_path / "undisturbed"))


def test_a_killed_parse_goes_on_where_it_stopped(tmp_path: Path, store: Store) -> None:
    source = CrawlSource()
    with source.serving() as files:
        expected = undisturbed(files, tmp_path)
        source.asked.clear()
        source.silent_at = 2
        process = multiprocessing.get_context("fork").Process(target=parsed, args=(files, tmp_path, store))
        process.start()
        assert source.is_silent.wait(120)
        process.kill()
        process.join()
        source.silent_at = -1
        assert parsed(files, tmp_path, store) == expected
    assert source.asked[0] == source.asked[1] == source.asked[3] == 1
    assert source.asked[2] >= 2
    assert [name for name in store.list("") if not name.startswith("pairs/")] == []


@pytest.mark.parametrize(("kind", "jobs"), [("store", 1), ("store", 2), ("s3_store", 1)])
def test_a_file_that_cannot_be_read_does_not_cost_the_others(
    tmp_path: Path, kind: str, jobs: int, request: pytest.FixtureRequest
) -> None:
    any_store: Store = request.getfixturevalue(kind)
    source = CrawlSource()
    with source.serving() as files:
        expected = undisturbed(files, tmp_path)
        source.asked.clear()
        source.refused = {2}
        with pytest.raises(InputError, match=r"2\.wat\.gz: HTTP status 404"):
            parsed(files, tmp_path, any_store, jobs)
        source.refused = set()
        assert parsed(files, tmp_path, any_store, jobs) == expected
    assert source.asked[0] == source.asked[1] == 1
    assert any_store.list("checkpoints/") == []


class FinishesWhenAsked(Future[tuple[str, FileCounts]]):
    """A parse that finishes right after it was first asked whether it is done."""

    def __init__(self, finished: tuple[str, FileCounts]) -> None:
        super().__init__()
        self.finished = finished

    def done(self) -> bool:
        was_done = super().done()
        if not was_done:
            self.set_result(self.finished)
        return was_done


def test_a_file_that_finishes_while_others_are_looked_at_is_saved(tmp_path: Path, store: Store) -> None:
    path = tmp_path / "0.arrows"
    path.write_bytes(b"tables")
    checkpoints = Checkpoints(store, "C", "00000", lambda *_: "fingerprint")
    job = _Job(0, "https://e.org/0.wat.gz", FinishesWhenAsked((str(path), FileCounts())))
    _wait_for(job, deque([job]), checkpoints)
    assert job.is_saved
    assert len(list(store.list("checkpoints/C/00000/"))) == 2


def test_other_settings_use_no_checkpoint(tmp_path: Path, store: Store) -> None:
    source = CrawlSource()
    with source.serving() as files:
        source.refused = {3}
        with pytest.raises(InputError):
            parsed(files, tmp_path, store)
        source.refused = set()
        other = settings(tmp_path)
        other = replace(other, parse=replace(other.parse, min_alt_chars=28))
        found = parse_partition("C", 0, files, other, store)
        expected = parse_partition("C", 0, files, other, LocalStore(tmp_path / "other"))
    assert found == expected
    assert found.dropped["alt_too_short"] > 0
    assert store.list("checkpoints/") == []


def test_a_checkpoint_that_is_not_understood_is_parsed_again(tmp_path: Path, store: Store) -> None:
    source = CrawlSource()
    with source.serving() as files:
        expected = undisturbed(files, tmp_path)
        source.interrupt(files, tmp_path, store)
        first, second = [name for name in store.list("checkpoints/") if name.endswith(".json")]
        store.write(first, b"{}")
        store.write(second, b"not json")
        assert parsed(files, tmp_path, store) == expected


def cut_between_tables(store: Store, name: str) -> None:
    """Without what ends the stream, which Arrow takes for a stream that has ended."""
    reader = pa.ipc.open_stream(store.read(name))
    empty = io.BytesIO()
    pa.ipc.new_stream(empty, reader.schema)
    store.write(name, empty.getvalue())


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(cut_between_tables, id="cut off between two tables"),
        pytest.param(lambda store, name: store.write(name, store.read(name)[:-200]), id="cut off"),
        pytest.param(lambda store, name: store.delete(name), id="no stream"),
        pytest.param(
            lambda store, name: store.write(name.replace("arrows", "json"), b'{"format": 99}'), id="newer"
        ),
    ],
)
def test_a_damaged_checkpoint_is_parsed_again(
    tmp_path: Path, store: Store, damage: Callable[[Store, str], None]
) -> None:
    source = CrawlSource()
    with source.serving() as files:
        expected = undisturbed(files, tmp_path)
        source.interrupt(files, tmp_path, store)
        damage(store, next(name for name in store.list("checkpoints/") if name.endswith(".arrows")))
        assert parsed(files, tmp_path, store) == expected


def test_checkpoints_that_are_deleted_during_an_attempt_cost_nothing_but_time(
    tmp_path: Path, store: Store
) -> None:
    source = CrawlSource()
    with source.serving() as files:
        expected = undisturbed(files, tmp_path)
        source.interrupt(files, tmp_path, store)
        name = next(name for name in store.list("checkpoints/") if name.endswith(".json"))
        number, _, identity = name.rpartition("/")[2].removesuffix(".json").partition("-")
        known = Checkpoints(store, "C", "part-00000", lambda *_: identity)
        assert known.load(int(number), "") is not None
        store.delete(name)
        assert known.load(int(number), "") is None
        assert parsed(files, tmp_path, store) == expected


def test_one_file_has_no_checkpoint(tmp_path: Path, store: Store) -> None:
    source = CrawlSource()
    with source.serving() as files:
        found = parsed(files[:1], tmp_path, store)
    assert found.details["damaged"] == [[0, found.details["damaged"][0][1]]]
    assert store.list("checkpoints/") == []


def test_checkpoints_left_by_a_process_killed_at_its_end_are_removed(tmp_path: Path, store: Store) -> None:
    source = CrawlSource()
    with source.serving() as files:
        first = parsed(files, tmp_path, store)
        store.write("checkpoints/C/part-00000/000000-old.json", b"{}")
        assert parsed(files, tmp_path, store) == first
    assert store.list("checkpoints/") == []


@pytest.mark.parametrize("count", [1, 3])
def test_checkpoints_of_another_division_into_partitions_do_no_harm(
    count: int, tmp_path: Path, store: Store
) -> None:
    """LAION_ETL_WAT_FILES_PER_PARTITION was changed while a partition was not finished."""
    source = CrawlSource()
    with source.serving() as files:
        expected = undisturbed(files[:count], tmp_path)
        source.interrupt(files, tmp_path, store)
        assert store.list("checkpoints/") != []
        assert parsed(files[:count], tmp_path, store) == expected
    assert store.list("checkpoints/") == []
