"""A store on S3 of which a share of the requests fails: every stage ends as if nothing had happened."""

import io
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import boto3
import pytest
from rich.console import Console

from laion_etl.cli.local_run import LocalRun
from laion_etl.core.errors import StorageError
from laion_etl.core.stage_stats import StageStats
from laion_etl.crawl import Partition
from laion_etl.database.connection import open_database
from laion_etl.database.embedded import EmbeddedServer
from laion_etl.io.storage import Store, open_store
from laion_etl.minicrawl.build import MiniCrawl
from laion_etl.minicrawl.web import MiniWeb
from laion_etl.settings import ClipSettings, PlanSettings, Settings
from tests.database.templates import copied
from tests.flaky_s3 import PASSING, Fault, FlakyS3, flaky_s3
from tests.prompt_web import LIMITS, LONGEST_S

QUIET = Console(file=io.StringIO())


@pytest.fixture
def flaky(s3_endpoint: str) -> Iterator[FlakyS3]:
    with flaky_s3(s3_endpoint) as proxy:
        boto3.client("s3").create_bucket(Bucket="flaky")
        yield proxy
        proxy.share = 0
        bucket = boto3.resource("s3").Bucket("flaky")
        bucket.objects.all().delete()
        bucket.delete()


@pytest.fixture
def flaky_store(flaky: FlakyS3) -> Store:
    return open_store("s3://flaky/laion")


@pytest.mark.parametrize("fault", PASSING)
def test_every_operation_of_a_store_survives_a_request_that_fails(
    fault: Fault, flaky: FlakyS3, flaky_store: Store
) -> None:
    flaky.faults = [fault]
    flaky.share = 0.3
    for number in range(4):
        name = f"a/{number}"
        flaky_store.write(name, b"0123456789" * 1_000)
        flaky_store.write(name, b"9876543210" * 1_000, lambda: None)
        assert flaky_store.exists(name)
        assert flaky_store.read(name) == b"9876543210" * 1_000
        assert flaky_store.read_range(name, 3, 4) == b"6543"
        found = flaky_store.read_with_etag(name)
        assert found is not None
        flaky_store.swap(name, b"swapped %d" % number, found[1])
        assert flaky_store.read(name) == b"swapped %d" % number
        assert list(flaky_store.etags("a", "")) == [name]
        flaky_store.delete(name)
        assert flaky_store.list("a") == []
    assert flaky.spoiled[fault] > 8


def test_a_large_file_survives_requests_that_fail(flaky: FlakyS3, flaky_store: Store) -> None:
    flaky.share = 0.5
    data = bytes(range(256)) * (80 << 10)  # 20 MiB: sent and read in parts
    flaky_store.write("big", data)
    assert flaky_store.read("big") == data
    assert flaky.spoiled.total() > 2


def test_what_is_missing_or_refused_is_not_asked_for_again(flaky: FlakyS3, flaky_store: Store) -> None:
    assert not flaky_store.exists("a")
    flaky.share, flaky.faults = 1, [Fault.ACCESS_DENIED]
    before = flaky.requests
    with pytest.raises(StorageError, match="access refused"):
        flaky_store.read_range("a", 0, 1)
    assert flaky.requests == before + 1


@pytest.fixture
def two_runs(
    settings: Settings, miniweb: MiniWeb, postgres: EmbeddedServer, migrated_template: str
) -> list[Settings]:
    """The same settings of a run, with a database each."""
    settings = replace(
        settings,
        plan=PlanSettings(batch_size=30),
        download=replace(
            settings.download,
            connect_to=miniweb.connect_to,
            decoders=2,
            **dict.fromkeys(LIMITS, LONGEST_S),
        ),
        clip=ClipSettings(model="laion-etl-tiny", pretrained="scenes", preparers=1),
    )
    url = copied(postgres, migrated_template, f"flaky_{uuid4().hex}")
    return [settings, replace(settings, core=replace(settings.core, database_url=url))]


@pytest.mark.slow
@pytest.mark.usefixtures("forked_scoring")
def test_a_crawl_through_a_flaky_store_ends_with_the_same_bytes(
    flaky: FlakyS3,
    flaky_store: Store,
    store: Store,
    two_runs: list[Settings],
    minicrawl: MiniCrawl,
    tmp_path: Path,
) -> None:
    undisturbed, disturbed = two_runs
    wat = tmp_path / "small.warc.wat.gz"
    wat.write_bytes(first_records(minicrawl.wat_files[0], 40))
    partitions = [Partition(minicrawl.crawl, 0, 0, (str(wat),))]
    LocalRun(minicrawl.crawl, undisturbed, store, QUIET).all_stages(partitions)
    flaky.share = 0.3
    LocalRun(minicrawl.crawl, disturbed, flaky_store, QUIET).all_stages(partitions)
    flaky.share = 0
    assert all(flaky.spoiled[fault] for fault in PASSING)
    expected, found = files(store), files(flaky_store)
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    with open_database(disturbed) as database:
        attempts = database.connection.execute("select distinct state::text, attempts from batch").fetchall()
    assert attempts == [("scored", 1)]


def first_records(wat: Path, count: int) -> bytes:
    """The first records of a WAT file; each is a gzip member of its own."""
    data = rest = wat.read_bytes()
    for _ in range(count):
        member = zlib.decompressobj(wbits=31)
        member.decompress(rest)
        rest = member.unused_data
    return data[: len(data) - len(rest)]


def files(store: Store) -> dict[str, bytes]:
    """All files except usage records and download timings, which differ from run to run."""
    names = [name for name in store.list("") if not name.startswith("usage/") and "postgres/" not in name]
    found = {name: store.read(name) for name in names}
    shards = [name for name in found if name.startswith("shards/") and name.endswith("_stats.json")]
    return found | {name: replace(StageStats.from_json(found[name]), details={}).to_json() for name in shards}
