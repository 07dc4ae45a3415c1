"""A store and a database of version 0.1 are read, migrated and worked on; nothing in them is renumbered.

`make_version_0_1.py` says what they have, and made them with the code of version 0.1.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pyarrow.parquet as pq
import pytest

from laion_etl.core.errors import InputError
from laion_etl.core.ids import batch_name
from laion_etl.database.connection import Database, open_database
from laion_etl.database.embedded import EmbeddedServer
from laion_etl.database.forget import forget_crawl
from laion_etl.database.load import load_partition
from laion_etl.dataset.funnel_report import crawl_funnel
from laion_etl.dataset.manifest import current_manifest
from laion_etl.dataset.versions import read_versions
from laion_etl.download.worker import Worker, open_queue
from laion_etl.io.planned import batches_in
from laion_etl.io.storage import LocalStore, Store
from laion_etl.plan.stage import plan_batches
from laion_etl.publish import image_hashes
from laion_etl.publish.repeated_ids import check_ids
from laion_etl.publish.stage import publish_dataset
from laion_etl.publish.verify import verify_version
from laion_etl.report.crawl_status import crawl_status
from laion_etl.score.stage import score_shards
from laion_etl.settings import DownloadSettings, PlanSettings, Settings
from tests.database.pairs import numbered_pairs, write_pairs
from tests.score.conftest import TINY

ARCHIVE = Path(__file__).with_name("version_0_1.tar.xz")
PUBLISHED, PLANNED, NEW = "CC-MAIN-2024-38", "CC-MAIN-2024-42", "CC-MAIN-2024-46"
NOWHERE = DownloadSettings(connect_to=("img.example=127.0.0.1:1",), timeout_s=2, decoders=1)


@pytest.fixture
def old(tmp_path: Path, settings: Settings, postgres: EmbeddedServer) -> Settings:
    """Settings whose database has what version 0.1 left in its own."""
    with tarfile.open(ARCHIVE) as tar:
        tar.extractall(tmp_path, filter="data")
    url = postgres.url(f"old_{uuid4().hex}")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute((tmp_path / "database.sql").read_bytes())
    core = replace(settings.core, database_url=url)
    return replace(settings, core=core, clip=TINY, download=NOWHERE, plan=PlanSettings(batch_size=8))


@pytest.fixture
def old_store(old: Settings, tmp_path: Path) -> Store:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def upgraded(old: Settings) -> Iterator[Database]:
    """The database of version 0.1, which opening it migrates."""
    with open_database(old) as database:
        yield database


def rows(store: Store, crawl: str) -> list[dict[str, Any]]:
    """The published English rows of a crawl."""
    manifest = current_manifest("laion", store)
    assert manifest is not None
    found = []
    for file in manifest.data_files("laion-en", crawl):
        with store.open(file.name) as raw:
            found += pq.read_table(raw).to_pylist()
    return found


def test_the_database_is_migrated_and_its_state_shown(old_store: Store, upgraded: Database) -> None:
    migrations = [name for (name,) in upgraded.rows("connect.migrations")]
    assert migrations[:4] == ["001_schema", "002_compact_pairs", "003_views", "004_roles"]
    assert "006_batch_numbers" in migrations
    funnel = crawl_funnel(old_store, PUBLISHED)
    assert not funnel.problems
    done = crawl_status(PUBLISHED, funnel, upgraded)
    assert (done.load.partitions, done.queue.batches, done.queue.done) == (2, 2, 2)
    open_ = crawl_status(PLANNED, crawl_funnel(old_store, PLANNED), upgraded)
    assert (open_.queue.batches, open_.queue.done, open_.queue.ready) == (2, 1, 1)


def test_what_version_0_1_published_is_verified(old_store: Store) -> None:
    report = verify_version("laion", "", old_store)
    assert report.problems == []
    assert report.rows == 16 == len(rows(old_store, PUBLISHED))
    [hashes] = image_hashes.find_earlier_files("laion", PLANNED, old_store)
    assert sum(len(read.sha256) for read in image_hashes.read(hashes, old_store)) == 16


def test_what_is_planned_from_now_on_has_twelve_digits(
    old: Settings, old_store: Store, upgraded: Database
) -> None:
    for crawl, partition, start in ((PLANNED, 1, 100), (NEW, 0, 200)):
        write_pairs(old_store, crawl, partition, numbered_pairs(start, start + 8))
        load_partition(crawl, partition, old, old_store, upgraded)
    assert batches_in(plan_batches(PLANNED, old, old_store, upgraded)) == [2, 3, 202442000000]
    assert batches_in(plan_batches(NEW, old, old_store, upgraded)) == [202446000000]
    assert [file for file in old_store.list(f"batches/{PLANNED}") if file.endswith(".parquet")] == [
        f"batches/{PLANNED}/{batch_name(number)}.parquet" for number in (2, 3, 202442000000)
    ]


def test_a_crawl_that_is_planned_goes_on_with_its_numbers(
    old: Settings, old_store: Store, upgraded: Database
) -> None:
    before = rows(old_store, PUBLISHED)
    worker = Worker(PLANNED, old, old_store, open_queue(PLANNED, old, upgraded))
    assert [stats.unit for stats in worker.run()] == ["000000003"]
    assert [stats.unit for stats in score_shards(PLANNED, [2, 3], old, old_store)] == [
        "000000002",
        "000000003",
    ]
    assert publish_dataset(PLANNED, old, old_store).kept == 8
    assert [one.version for one in read_versions("laion", old_store).listed] == [PUBLISHED, PLANNED]
    assert [(row["SAMPLE_ID"], row["key"]) for row in rows(old_store, PLANNED)] == [
        (200_000 + index, f"000000002{index:05d}") for index in range(8)
    ]
    assert rows(old_store, PUBLISHED) == before
    for version in (PUBLISHED, PLANNED):
        assert verify_version("laion", version, old_store).problems == []


def test_a_crawl_that_repeats_numbers_of_version_0_1_is_refused(old_store: Store) -> None:
    with pytest.raises(InputError, match=rf"1 of its batches have the numbers of .* of {PUBLISHED} \(1\)"):
        check_ids(NEW, [1, 2], current_manifest("laion", old_store), old_store)


def test_a_forgotten_crawl_is_planned_anew_under_other_numbers(
    old: Settings, old_store: Store, upgraded: Database
) -> None:
    forget_crawl(PUBLISHED, old, old_store, upgraded)
    for partition in (0, 1):
        load_partition(PUBLISHED, partition, old, old_store, upgraded)
    planned = plan_batches(PUBLISHED, old, old_store, upgraded)
    assert batches_in(planned) == [202438000000, 202438000001]
