"""What benchmarks/crawl_size.py does between the stages that it measures, and the pages of the dashboard."""

import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urljoin

import pyarrow.parquet as pq

from benchmarks.crawl_rig import Process, Rig
from benchmarks.made_crawl import Made, Words, write_partition
from benchmarks.made_shards import ShardMaker
from laion_etl.core.ids import batch_name
from laion_etl.core.stage_stats import StageStats
from laion_etl.database.connection import open_database
from laion_etl.database.load import crawl_number
from laion_etl.database.queue import BatchQueue
from laion_etl.io.planned import planned_batches
from laion_etl.io.storage import LocalStore, Store
from laion_etl.settings import CoreSettings, Settings

_LEASE_S, _ATTEMPTS = 3_600, 3
_PAGE_S = 600.0
_STOPPED = 130  # the exit code after SIGTERM
_URLS, _HASHES = 20, 5
_GROUPS = 8
_words = cache(Words)


def make_pairs(running: Rig, made: Made, processes: int) -> int:
    """Write the pairs of all partitions, as parse would; returns their number."""
    with ProcessPoolExecutor(processes) as pool:
        tasks = [pool.submit(_partition, running.store, made, number) for number in made.partitions]
        pairs = sum(task.result() for task in tasks)
    running.scan()
    return pairs


def _partition(root: Path, made: Made, number: int) -> int:
    return write_partition(root, _words(), made, number)


def make_shards(running: Rig, made: Made, processes: int) -> Iterator[tuple[StageStats, StageStats]]:
    """Write shards and scored shards of all batches; yields the stats of both."""
    batches = planned_batches(made.crawl, LocalStore(running.store))
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(ShardMaker(running.store, made.crawl).write, batches, chunksize=8)


def complete_batches(running: Rig, made: Made, stats: Iterator[tuple[StageStats, StageStats]]) -> None:
    """Claim and complete every batch as a downloader would, and record the groups of the score stage."""
    scored = []
    with open_database(Settings(core=CoreSettings(database_url=running.url))) as database:
        number = database.run(lambda connection: crawl_number(connection, made.crawl))
        queue = BatchQueue(database, number, _LEASE_S, _ATTEMPTS)
        for done, score in stats:
            claim = queue.claim()
            if claim is None or batch_name(claim.batch) != done.unit or not queue.complete(claim, done):
                raise SystemExit(f"batch {done.unit} could not be completed")
            scored.append(replace(score, outputs=(), details={}))
    _record_groups(made.crawl, scored, LocalStore(running.store))
    running.scan()


def _record_groups(crawl: str, scored: Sequence[StageStats], store: Store) -> None:
    """Write the records of the groups of the score stage, as the version at hand has them."""
    groups = {f"{index}/{_GROUPS}": scored[index::_GROUPS] for index in range(_GROUPS)}
    if find_spec("laion_etl.dataset.score_progress") is None:
        earlier = import_module("laion_etl.dataset.missing_batches")
        for name, stats in groups.items():
            earlier.write_group_stats(earlier.group_stats(crawl, name, stats, ()), store)
        return
    progress = import_module("laion_etl.dataset.score_progress")
    for name, stats in groups.items():
        record = progress.GroupRecord(crawl, name, len(stats), store)
        record.begin()
        for one in stats:
            record.add(one)
        record.finish()


def removal_list(running: Rig, made: Made) -> Path:
    """Write a removal list: URLs and image hashes of one batch, and two domains; returns its path."""
    last = planned_batches(made.crawl, LocalStore(running.store))[-1]
    shard = pq.read_table(running.store / f"shards/{made.crawl}/{batch_name(last)}.parquet")
    urls = shard["url"].slice(0, _URLS).to_pylist()
    hashes = [one for one in shard["sha256"].to_pylist() if one][-_HASHES:]
    pairs = pq.ParquetFile(running.store / f"pairs/{made.crawl}/part-00000.parquet").read_row_group(0)
    seen = pairs["domain"].to_pylist()
    domains = sorted({one for one in seen if seen.count(one) < 10})[:2]  # rare ones, as in most requests
    path = running.folder / "removals.txt"
    path.write_text("\n".join([*urls, *hashes, *domains]) + "\n")
    return path


def dashboard_pages(running: Rig, made: Made) -> list[Process]:
    """Start the dashboard, and read overview and crawl page until both are complete."""
    dashboard = running.start(["dashboard", "--port", "0"])
    deadline = time.monotonic() + _PAGE_S
    while "http://" not in (printed := dashboard.printed()):
        _check(deadline)
    address = printed.split("dashboard: ")[1].split()[0]
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())  # its token becomes a cookie
    while not _read(browser, address):
        _check(deadline)
    for page in ("overview", f"crawl/{made.crawl}"):
        while not _read(browser, urljoin(address, f"/api/{page}")):
            _check(deadline)
    dashboard.process.send_signal(signal.SIGTERM)
    done = dashboard.end((0, _STOPPED))
    return [replace(done, result={})]


def _read(browser: urllib.request.OpenerDirector, address: str) -> bool:
    try:
        with browser.open(address) as answer:
            return int(answer.status) == 200
    except urllib.error.URLError as error:
        if isinstance(error, urllib.error.HTTPError):
            raise SystemExit(f"{address} answers {error.code}: {error.read()[:500]!r}") from error
        return False


def _check(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise SystemExit("the dashboard did not answer")
    time.sleep(0.1)
