"""A missing or damaged shard costs itself only, and is named; a store that fails is not a damaged shard."""

import errno
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from typer.testing import CliRunner, Result

from laion_etl.cli import app
from laion_etl.core.errors import IncompleteError, ServiceError, StorageError, StoreOutageError
from laion_etl.core.schemas import batch_name, plan_stats_name, shard_stem
from laion_etl.core.stage_stats import StageStats
from laion_etl.database.loaded import LoadedCrawl
from laion_etl.dataset.funnel_report import crawl_funnel
from laion_etl.dataset.missing_batches import MissingBatch, missing_batches
from laion_etl.dataset.scored import find_scored
from laion_etl.io.storage import LocalStore, S3Store, Store
from laion_etl.publish.completeness import Expected, scored_crawl
from laion_etl.report.crawl_status import CrawlStatus, LoadProgress, QueueProgress, stage_progress
from laion_etl.score import group as group_module
from laion_etl.score import multi_gpu
from laion_etl.score.group import ScoredGroup
from laion_etl.score.stage import score_shards
from tests.score.conftest import CRAWL, TINY_SETTINGS, TOOLS, fitting, set_environment, write_shard
from tests.score.test_stage import HEART, STAR

ALL = [1, 2, 3]


def name(ending: str, batch: int = 1) -> str:
    return f"{shard_stem(CRAWL, batch)}{ending}"


def delete(ending: str) -> Callable[[Store], None]:
    return lambda store: store.delete(name(ending))


def change(ending: str, damage: Callable[[bytes], bytes]) -> Callable[[Store], None]:
    return lambda store: void(store.write(name(ending), damage(store.read(name(ending)))))


def void(_: object) -> None:
    return None


def take(ending: str) -> Callable[[Store], None]:
    """The file of batch 2, with stats that agree: only the other file can show that it is not of batch 1."""

    def damage(store: Store) -> None:
        written = store.write(name(ending), store.read(name(ending, batch=2)))
        stats = store.read_stats(name("_stats.json"))
        outputs = tuple(written if output.name == written.name else output for output in stats.outputs)
        store.write_stats(name("_stats.json"), replace(stats, outputs=outputs))

    return damage


DAMAGE = {
    "no stats": (delete("_stats.json"), "not_downloaded"),
    "no tar": (delete(".tar"), "file_missing"),
    "no parquet": (delete(".parquet"), "file_missing"),
    "truncated tar": (change(".tar", lambda data: data[:2_000]), "damaged"),
    "truncated parquet": (change(".parquet", lambda data: data[:-9]), "damaged"),
    "another checksum of the tar": (change(".tar", lambda data: data[:-1] + b"\1"), "damaged"),
    "another checksum of the parquet": (change(".parquet", lambda data: data[:-1] + b"\1"), "damaged"),
    "tar of another batch": (take(".tar"), "damaged"),
    "parquet of another batch": (take(".parquet"), "damaged"),
    "truncated stats": (change("_stats.json", lambda data: data[:40]), "damaged"),
    "stats that name no files": (
        lambda store: void(
            store.write_stats(name("_stats.json"), replace(store.read_stats(name("_stats.json")), outputs=()))
        ),
        "damaged",
    ),
    "stats of another batch": (
        lambda store: void(store.write(name("_stats.json"), store.read(name("_stats.json", batch=2)))),
        "damaged",
    ),
}


def planned(store: Store, batches: list[int]) -> None:
    details = {"batches": batches}
    store.write_stats(plan_stats_name(CRAWL), StageStats("plan", CRAWL, CRAWL, "p", 9, 9, details=details))


@pytest.fixture
def world(tmp_path: Path) -> LocalStore:
    """Three downloaded batches, of two samples each."""
    store = LocalStore(tmp_path)
    planned(store, ALL)
    for batch in ALL:
        write_shard(store, [fitting(STAR), fitting(HEART)], batch)
    return store


def score(store: Store, batches: list[int] = ALL) -> tuple[list[int], list[MissingBatch], list[str]]:
    """The batches that have scores now, the missing ones, and the units that were worked on."""
    missing: list[MissingBatch] = []
    watcher = Watcher()
    store.watcher = watcher
    done = score_shards(CRAWL, batches, TINY_SETTINGS, store, tools=TOOLS, on_missing=missing.append)
    return [int(stats.unit) for stats in done], missing, watcher.done


class Watcher:
    def __init__(self) -> None:
        self.done: list[str] = []

    def begun(self, stats_name: str) -> None:
        pass

    def finished(self, stats_name: str, stats: StageStats) -> None:
        del stats_name
        self.done.append(stats.unit)


@pytest.mark.parametrize(("damage", "cause"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_shard_is_skipped_and_named_and_a_retry_scores_only_that(
    world: LocalStore, damage: Callable[[Store], None], cause: str, caplog: pytest.LogCaptureFixture
) -> None:
    good = {end: world.read(name(end)) for end in (".tar", ".parquet", "_stats.json")}
    damage(world)
    scored, missing, worked_on = score(world)
    assert scored == [2, 3]
    assert [(one.batch, one.cause) for one in missing] == [(1, cause)]
    assert batch_name(1) in missing[0].error
    assert f"batch 1 of {CRAWL} is skipped: {cause}" in caplog.text
    assert worked_on == [batch_name(2), batch_name(3)]
    assert not [file for file in world.list("scored") if batch_name(1) in file]
    found = find_scored(CRAWL, world)
    assert ([batch.number for batch in found.batches], found.missing) == ([2, 3], (1,))

    for end, data in good.items():
        world.write(name(end), data)
    assert score(world) == (ALL, [], [batch_name(1)])
    assert find_scored(CRAWL, world).missing == ()


def test_without_a_judge_the_stage_fails_after_the_others_are_scored(world: LocalStore) -> None:
    world.delete(name(".tar"))
    with pytest.raises(
        IncompleteError, match=r"1 of 3 batches are missing \(1: batch 1 file_missing, .*\.tar"
    ):
        score_shards(CRAWL, ALL, TINY_SETTINGS, world, tools=TOOLS)
    assert [batch.number for batch in find_scored(CRAWL, world).batches] == [2, 3]


def test_older_scores_of_a_shard_that_is_damaged_now_do_not_count(world: LocalStore) -> None:
    assert score(world)[0] == ALL
    write_shard(world, [fitting(HEART)], 1)  # downloaded again, with another result
    world.write(name(".tar"), b"cut off")
    assert score(world)[0] == [2, 3]
    assert find_scored(CRAWL, world).missing == (1,)


def test_damaged_stats_of_scores_are_replaced(world: LocalStore) -> None:
    assert score(world)[0] == ALL
    world.write(f"scored/{CRAWL}/{batch_name(1)}_stats.json", b'{"stage": ')
    assert score(world) == (ALL, [], [batch_name(1)])


@pytest.fixture
def command(world: LocalStore, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`laion-etl stage score` in this process, with the tools of all tests."""
    set_environment(monkeypatch, world.root)
    monkeypatch.setenv("LAION_ETL_CLIP_DEVICE", "cpu")
    plain = multi_gpu.score_shards
    monkeypatch.setattr(multi_gpu, "score_shards", lambda *a, **k: plain(*a, tools=TOOLS, **k))

    def run(*arguments: str, **options: Any) -> Result:
        words = ["stage", "score", "--crawl", CRAWL, *arguments]
        return CliRunner().invoke(app, words, **options)

    return run


def test_a_group_ends_with_a_verdict_and_names_what_is_missing(
    world: LocalStore, command: Callable[..., Result]
) -> None:
    world.delete(name(".tar"))
    refused = command("--group", "0/1", "--json")
    assert isinstance(refused.exception, IncompleteError)
    assert refused.exception.exit_code == 2
    assert f"cannot score all of {CRAWL}: 1 of 3 batches are missing (1: batch 1 file_missing, " in str(
        refused.exception
    )
    said = json.loads(refused.stdout)
    assert said["batches"] == [2, 3]
    assert [(one["batch"], one["cause"]) for one in said["missing"]] == [(1, "file_missing")]
    stats = world.read_stats(f"score/{CRAWL}/group-0-of-1.json")
    assert (stats.unit, stats.input, stats.kept, stats.dropped) == ("0/1", 3, 2, {"file_missing": 1})
    assert stats.details["missing"] == said["missing"]

    assert isinstance(command("--group", "0/1", "--allow-missing", "0.3").exception, IncompleteError)
    allowed = command("--group", "0/1", "--allow-missing", "0.34")
    assert allowed.exit_code == 0, allowed.output


def test_the_share_is_that_of_the_crawl_as_when_it_is_published(
    world: LocalStore, command: Callable[..., Result]
) -> None:
    """One missing batch is half of this group; the crawl may miss a third."""
    world.delete(name(".tar"))
    assert command("--group", "0/2", "--allow-missing", "0.34").exit_code == 0


def test_publish_status_and_funnel_name_the_missing_batch(
    world: LocalStore, command: Callable[..., Result]
) -> None:
    world.delete(name(".tar"))
    assert command("--group", "0/1", "--allow-missing", "0.5").exit_code == 0
    assert [(one.batch, one.cause) for one in missing_batches(CRAWL, world)] == [(1, "file_missing")]
    funnel = crawl_funnel(world, CRAWL)
    load, queue = LoadProgress(CRAWL), QueueProgress(CRAWL, batches=3, done=3)
    status = CrawlStatus(CRAWL, load, queue, tuple(stage_progress(funnel, load, queue)))
    status = status.with_missing(missing_batches(CRAWL, world))
    assert [(one.done, one.of, one.failed) for one in status.stages if one.stage == "score"] == [(2, 3, 1)]
    assert "batch 1 is not scored: file_missing, " in str(status.as_table().caption)
    assert funnel.row("score").units == 2
    assert "2 kept by download have not been through score yet" in funnel.problems
    loaded = LoadedCrawl(frozenset([0]), "p")
    with pytest.raises(
        IncompleteError, match=r"1 of 3 batches are missing \(1: not scored: batch 1 file_missing"
    ):
        scored_crawl(CRAWL, Expected([0], 0.0, loaded), None, world)
    assert scored_crawl(CRAWL, Expected([0], 0.5, loaded), None, world).missing == (1,)
    write_shard(world, [fitting(STAR)], 1)
    assert command("--shard", "1").exit_code == 0
    assert missing_batches(CRAWL, world) == []


class FailingDisk(io.BytesIO):
    def readinto(self, buffer: object, /) -> int:
        del buffer
        raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("when", ["open", "read"])
def test_a_disk_that_fails_is_not_a_damaged_shard(
    world: LocalStore, command: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    plain = LocalStore.open

    def opened(self: LocalStore, file: str) -> BinaryIO:
        if file != name(".tar", batch=2):
            return plain(self, file)
        if when == "open":
            raise StoreOutageError(f"cannot read {file}: no permission; check the owner of the folder")
        return FailingDisk()

    monkeypatch.setattr(LocalStore, "open", opened)
    ended = command("--group", "0/1", "--allow-missing", "1")
    assert type(ended.exception) is StoreOutageError
    assert name(".tar", batch=2) in str(ended.exception)
    record = world.read_stats(f"score/{CRAWL}/group-0-of-1.json")
    assert (record.dropped, record.details["running"]) == ({}, True)


class Bucket:
    """An S3 client that answers each request with an error."""

    def __init__(self, of_a_file: Exception, of_the_bucket: Exception) -> None:
        self._of_a_file, self._of_the_bucket = of_a_file, of_the_bucket

    def get_object(self, **_: object) -> None:
        raise self._of_a_file

    def list_objects_v2(self, **_: object) -> None:
        raise self._of_the_bucket


def answer(code: str, action: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": ""}}, action)


UNREACHABLE = EndpointConnectionError(endpoint_url="http://s3.example")
REFUSED = answer("AccessDenied", "GetObject")


@pytest.mark.parametrize(
    ("client", "cause"),
    [
        (Bucket(REFUSED, REFUSED), "access refused; check the AWS credentials"),
        (Bucket(UNREACHABLE, UNREACHABLE), "Could not connect to the endpoint"),
        (Bucket(answer("NoSuchKey", "GetObject"), answer("NoSuchBucket", "ListObjects")), "no such bucket"),
    ],
    ids=["refused key", "unreachable", "no bucket"],
)
def test_a_bucket_that_fails_is_not_a_damaged_shard(client: Any, cause: str) -> None:
    missing: list[MissingBatch] = []
    with pytest.raises(StorageError, match=cause) as failed:
        score_shards(CRAWL, ALL, TINY_SETTINGS, S3Store("b", "laion", client), on_missing=missing.append)
    assert isinstance(failed.value, ServiceError)
    assert missing == []


def test_a_hundred_thousand_names_reach_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    count = (
        "import json, sys\n"
        "numbers = [int(line) for line in sys.stdin]\n"
        'one = {"batch": len(numbers), "cause": "damaged", "error": str(sum(numbers))}\n'
        'print(json.dumps({"missing": [one]}))\n'
    )
    monkeypatch.setattr(multi_gpu, "PROGRAM", (multi_gpu.sys.executable, "-c", count))
    numbers = range(900_000_000, 900_200_000)
    missing = multi_gpu.run_processes(CRAWL, numbers, ["cpu", "cpu"])
    assert [one.batch for one in missing] == [100_000, 100_000]
    assert sum(int(one.error) for one in missing) == sum(numbers)


@pytest.mark.parametrize("source", ["-", "a file"])
def test_the_command_reads_a_hundred_thousand_names(
    source: str, command: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[list[int]] = []

    def fake(crawl: str, batches: list[int], *_: object) -> ScoredGroup:
        asked.append(batches)
        return ScoredGroup(crawl, [], [])

    monkeypatch.setattr(group_module, "score_group", fake)
    text = "".join(f"s3://b/shards/C/{batch:09d}.tar\n" for batch in range(100_000))
    (tmp_path / "names").write_text(text)
    file = "-" if source == "-" else str(tmp_path / "names")
    ended = command("--shards-from", file, "--json", input=text)
    assert ended.exit_code == 0, ended.output
    assert asked == [list(range(100_000))]


def test_only_the_queue_has_an_option_to_score_again(command: Callable[..., Result]) -> None:
    refused = command("--group", "0/1", "--again")
    assert "cannot use --again with named shards or a group" in str(refused.exception)


def test_an_empty_list_of_shards_is_not_all_shards(command: Callable[..., Result], world: LocalStore) -> None:
    assert command("--shards-from", "-", input="").exit_code == 0
    assert world.list("scored") == []
