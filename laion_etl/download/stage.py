"""Download stage: a batch of pairs -> a shard of samples, with an outcome for every pair.

Links are fetched concurrently in one trio thread (`batch_downloader.py`); images are decoded in worker
processes. The order in which downloads finish does not change the shard. An interrupted batch is fetched
again from its beginning: to save the finished part, every image would have to be written to the store twice.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import trio

from laion_etl.blocklists.removal_requests import (
    NO_IMAGES,
    BlockedImages,
    Matcher,
    blanked,
    blocked_images,
    read_requests,
)
from laion_etl.core.errors import LaionEtlError
from laion_etl.core.ids import batch_name
from laion_etl.core.schemas import BATCH_FILES, batch_file_name, plan_stats_name, shard_stem
from laion_etl.core.stage_stats import Output, StageStats, fingerprint
from laion_etl.download import RULES_VERSION
from laion_etl.download.batch_downloader import BatchDownloader, Hooks
from laion_etl.download.shards import ShardWriter, shard_writer
from laion_etl.download.timings import diagnose
from laion_etl.io.storage import Store
from laion_etl.settings import DownloadSettings, Settings, Stage, shaping


def download_batch(
    crawl: str,
    batch: int,
    settings: Settings,
    store: Store,
    hooks: Hooks | None = None,
    before_write: Callable[[], None] | None = None,
) -> StageStats:
    """Fetches the pairs of `batches/<crawl>/<batch>.parquet` into `shards/<crawl>/<batch>.tar`, `.parquet`.

    A failed link becomes a row with its reason. Raises StorageError if the batch file cannot be read.
    `before_write` is called when all links are done; if it raises, nothing is written.
    """
    stats_name = f"{shard_stem(crawl, batch)}_stats.json"
    shaped = shaping(settings, Stage.DOWNLOAD)
    batch_file = _batch_file(crawl, batch, store)
    unit_fingerprint = fingerprint("download", RULES_VERSION, shaped, batch_file)
    if (done := store.finished(stats_name, unit_fingerprint)) is not None:
        return done
    requests, pdq_distance = read_requests(store), settings.download.pdq_distance
    pairs = blanked(_read_batch(crawl, batch, store), Matcher(requests, pdq_distance)).to_pylist()
    began = time.monotonic()
    with shard_writer(batch, pairs) as shard:
        removed = blocked_images(requests, pdq_distance)
        downloader = download_pairs(pairs, settings.download, shard, hooks, removed)
        fetched_s = time.monotonic() - began
        if before_write is not None:
            before_write()
        outputs = shard.write(shard_stem(crawl, batch), store)
    outcomes = downloader.outcomes
    stats = StageStats(
        "download",
        crawl,
        batch_name(batch),
        unit_fingerprint,
        outcomes.input,
        outcomes.kept,
        outcomes.dropped,
        outputs,
        {"network": _network(downloader, fetched_s)},
    )
    return store.write_stats(stats_name, stats)


def download_pairs(
    pairs: list[dict[str, Any]],
    settings: DownloadSettings,
    shard: ShardWriter,
    hooks: Hooks | None = None,
    removed: BlockedImages = NO_IMAGES,
) -> BatchDownloader:
    """Fetches pairs, rows of BATCH_SCHEMA, into a shard, which then has an outcome for each of them.

    Returns the downloader, for its counts and timings. Raises InputError when names cannot be resolved.
    """
    downloader = BatchDownloader(settings, pairs, shard, hooks or Hooks(), removed)
    with _plain_errors():
        trio.run(downloader.run)
    return downloader


def _network(downloader: BatchDownloader, seconds: float) -> dict[str, Any]:
    """Describes the fetching: the only part of the stats that differs from run to run."""
    timings, outcomes = downloader.timings, downloader.outcomes
    latencies = timings.latencies(downloader.resolver_times_s)
    return {
        "seconds": round(seconds, 3),
        "links_per_s": round(outcomes.input / seconds, 1) if seconds else 0.0,
        "bytes": timings.bytes,
        "hosts": downloader.hosts,
        "connections": timings.connections,
        "reused": timings.reused,
        "retries": timings.retries,
        "most_in_flight": downloader.max_in_flight,
        "latency_s": latencies,
        "diagnosis": diagnose(outcomes.input, outcomes.dropped, latencies),
    }


def _read_batch(crawl: str, batch: int, store: Store) -> pa.Table:
    name = batch_file_name(crawl, batch)
    with store.open(name) as file:
        parquet = pq.ParquetFile(file)
        BATCH_FILES.check_number(parquet.schema_arrow, store.uri(name))
        return BATCH_FILES.with_todays_names(parquet.read())


def _batch_file(crawl: str, batch: int, store: Store) -> Output | None:
    planned = store.read_stats(plan_stats_name(crawl)).outputs
    name = batch_file_name(crawl, batch)
    return next((output for output in planned if output.name == name), None)


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Unwraps Ctrl-C and our own errors from the exception groups of trio's nurseries."""
    try:
        yield
    except BaseExceptionGroup as group:
        for kind in (KeyboardInterrupt, LaionEtlError):
            if (found := group.subgroup(kind)) is not None:
                raise _first(found) from group
        raise


def _first(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group
