"""Which images are left of a shard whose batch is downloaded again when nothing can be fetched."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pyarrow.parquet as pq
import pytest

from laion_etl.core.stage_stats import StageStats
from laion_etl.database.connection import Database
from laion_etl.database.load import crawl_number, load_partition
from laion_etl.database.queue import BatchQueue
from laion_etl.download.earlier_result import EmptyResultError
from laion_etl.download.worker import Worker
from laion_etl.io.storage import Store
from laion_etl.io.tarshard import read_members
from laion_etl.plan.stage import plan_batches
from laion_etl.score.shard_reader import shard_samples
from laion_etl.settings import DownloadSettings, Settings
from tests.database.pairs import batch_no, write_pairs
from tests.download.sites import Reply, Site, site

STEM = f"shards/C/{batch_no(0)}"
NOT_FOUND: Reply = 404, {}, b""


@dataclass
class Downloaded:
    """A batch of three links whose first two were downloaded; its worker has other settings now."""

    worker: Worker
    site: Site
    stats: StageStats
    queue: BatchQueue

    def opt_out(self, *paths: str) -> None:
        """Owners opt out of some links; all others fail."""
        rules = "".join(f"Disallow: {path}\n" for path in paths)
        self.site.answers = {f"/{n}.jpg": lambda: NOT_FOUND for n in range(3)}
        self.site.answers["/robots.txt"] = lambda: (200, {}, f"User-agent: *\n{rules}".encode())

    @property
    def in_queue(self) -> tuple[str, int]:
        """The state of the batch, and how many samples the queue knows of."""
        rows = "select state::text, (stats ->> 'kept')::int from batch"
        ((state, kept),) = self.queue._database.connection.execute(rows).fetchall()
        return state, kept


@pytest.fixture
def downloaded(store: Store, settings: Settings, database: Database) -> Iterator[Downloaded]:
    write_pairs(store, "C", 0, [(f"http://img.example/{n}.jpg", f"image number {n}") for n in range(3)])
    load_partition("C", 0, settings, store, database)
    plan_batches("C", settings, store, database)
    queue = BatchQueue(database, crawl_number(database.connection, "C"), lease_s=60, max_attempts=3)
    with site() as running:
        running.answers["/2.jpg"] = lambda: NOT_FOUND
        nearby = DownloadSettings(connect_to=(f"img.example=127.0.0.1:{running.port}",), decoders=1)
        worker = Worker("C", replace(settings, download=nearby), store, queue)
        (stats,) = worker.run()
        assert stats.kept == 2
        worker.settings = replace(settings, download=replace(nearby, min_side=1))
        yield Downloaded(worker, running, stats, queue)


def images_in(store: Store) -> list[str]:
    with store.open(f"{STEM}.tar") as file:
        return [name for name, _ in read_members(file) if name.endswith(".jpg")]


def test_an_image_that_is_opted_out_now_is_taken_out_of_a_shard_that_stays(
    store: Store, downloaded: Downloaded
) -> None:
    downloaded.opt_out("/0.jpg")
    with pytest.raises(
        EmptyResultError, match="it has 1 sample, without 1 opted out or blocked since, and no link"
    ):
        downloaded.worker.run_one(batch_no(0))

    left = store.read_stats(f"{STEM}_stats.json")
    assert (left.kept, left.dropped) == (1, {"http_error": 1, "opted_out_robots_txt": 1})
    assert left.fingerprint == downloaded.stats.fingerprint, "it is still of the earlier settings"
    (sample,) = shard_samples(left, store)
    assert sample.row["url"] == "http://img.example/1.jpg"
    assert images_in(store) == [f"{sample.row['key']}.jpg"]
    with store.open(f"{STEM}.parquet") as file:
        (row,) = [row for row in pq.read_table(file).to_pylist() if row["caption"] == "image number 0"]
    assert row["status"] == "opted_out_robots_txt"
    assert {row[name] for name in ("width", "bytes", "sha256", "md5", "phash", "pdq")} == {None}
    assert downloaded.in_queue == ("downloaded", 1), "it is scored again"


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_shard_without_an_image_that_is_opted_out_now_stays_as_it_is(
    store: Store, downloaded: Downloaded, is_whole: bool
) -> None:
    if not is_whole:
        store.delete(f"{STEM}.tar")  # as after scoring, with LAION_ETL_KEEP_RAW_SHARDS=false
    before = {name: store.read(name) for name in store.list("shards/C/")}
    downloaded.opt_out("/2.jpg")
    with pytest.raises(EmptyResultError, match="it has 2 samples, and no link"):
        downloaded.worker.run_one(batch_no(0))
    assert {name: store.read(name) for name in store.list("shards/C/")} == before
    assert downloaded.in_queue == ("downloaded", 2)


def test_a_shard_whose_images_are_all_opted_out_now_is_replaced(store: Store, downloaded: Downloaded) -> None:
    downloaded.opt_out("/0.jpg", "/1.jpg")
    new = downloaded.worker.run_one(batch_no(0))
    assert (new.kept, new.dropped) == (0, {"opted_out_robots_txt": 2, "http_error": 1})
    assert new == store.read_stats(f"{STEM}_stats.json")
    assert images_in(store) == []
    assert downloaded.in_queue == ("downloaded", 0)


@pytest.mark.parametrize(("ending", "is_gone"), [(".tar", True), (".tar", False), (".parquet", False)])
def test_a_shard_that_is_not_whole_is_deleted_with_the_images_that_are_opted_out_now(
    store: Store, downloaded: Downloaded, ending: str, is_gone: bool
) -> None:
    store.delete(STEM + ending) if is_gone else store.write(STEM + ending, b"cut off")
    downloaded.opt_out("/0.jpg")
    with pytest.raises(EmptyResultError, match=r"it was not whole .* deleted: download the"):
        downloaded.worker.run_one(batch_no(0))
    assert store.list("shards/C/") == []
    assert downloaded.in_queue[0] == "ready"


def test_a_requeued_batch_has_no_images_that_are_opted_out_now(store: Store, downloaded: Downloaded) -> None:
    downloaded.queue._database.connection.execute("update batch set state = 'ready'")
    downloaded.opt_out("/0.jpg")
    (new,) = downloaded.worker.run()
    assert new.dropped == {"http_error": 2, "opted_out_robots_txt": 1}
    assert images_in(store) == []
