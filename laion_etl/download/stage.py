"""Download stage: a batch of pairs -> a shard of samples, with an outcome for every pair.

Links are fetched side by side in one trio thread (`batch_run.py`); images are decoded in worker processes.
Which download finishes first changes nothing in the shard. A batch that was cut short is fetched again from
its beginning: to save what was fetched, it would have to be written to the store twice.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow.parquet as pq
import trio

from laion_etl.download.batch_run import BatchRun, Hooks
from laion_etl.download.measures import diagnosis
from laion_etl.download.shards import shard_writer
from laion_etl.errors import LaionEtlError
from laion_etl.records import batch_file_name, batch_name, plan_stats_name, shard_stem
from laion_etl.removals import Matcher, blanked, blocked_images, read_requests
from laion_etl.settings import Settings, Stage, shaping
from laion_etl.stats import Output, StageStats, fingerprint
from laion_etl.storage import Store


def download_batch(
    crawl: str,
    batch: int,
    settings: Settings,
    store: Store,
    hooks: Hooks | None = None,
    before_write: Callable[[], None] | None = None,
) -> StageStats:
    """Fetches the pairs of `batches/<crawl>/<batch>.parquet` into `shards/<crawl>/<batch>.tar`, `.parquet`.

    A link that fails is a row with its reason; a batch file that can't be read is a StorageError.
    `before_write` is called when all links are done; what it raises leaves the store as it was.
    """
    stats_name = f"{shard_stem(crawl, batch)}_stats.json"
    identity = fingerprint("download", shaping(settings, Stage.DOWNLOAD), _batch_file(crawl, batch, store))
    if (done := store.finished(stats_name, identity)) is not None:
        return done
    requests, pdq_distance = read_requests(store), settings.download.pdq_distance
    with store.open(batch_file_name(crawl, batch)) as file:
        pairs = blanked(pq.read_table(file), Matcher(requests, pdq_distance)).to_pylist()
    began = time.monotonic()
    with shard_writer(batch, pairs) as shard:
        removed = blocked_images(requests, pdq_distance)
        run = BatchRun(settings.download, pairs, shard, hooks or Hooks(), removed)
        with _plain_errors():
            trio.run(run.all_links)
        fetched_s = time.monotonic() - began
        if before_write is not None:
            before_write()
        outputs = shard.write(crawl, store)
    outcomes = run.outcomes
    stats = StageStats(
        "download",
        crawl,
        batch_name(batch),
        identity,
        outcomes.input,
        outcomes.kept,
        outcomes.dropped,
        outputs,
        {"network": _network(run, fetched_s)},
    )
    return store.write_stats(stats_name, stats)


def _network(run: BatchRun, seconds: float) -> dict[str, Any]:
    """How the fetching went: the only part of the stats that differs from run to run."""
    measures, outcomes = run.measures, run.outcomes
    latencies = measures.latencies(run.resolver_times_s)
    return {
        "seconds": round(seconds, 3),
        "links_per_s": round(outcomes.input / seconds, 1) if seconds else 0.0,
        "bytes": measures.bytes,
        "hosts": run.hosts,
        "connections": measures.connections,
        "reused": measures.reused,
        "retries": measures.retries,
        "most_in_flight": run.most_in_flight,
        "latency_s": latencies,
        "diagnosis": diagnosis(outcomes.input, outcomes.dropped, latencies),
    }


def _batch_file(crawl: str, batch: int, store: Store) -> Output | None:
    planned = store.read_stats(plan_stats_name(crawl)).outputs
    name = batch_file_name(crawl, batch)
    return next((output for output in planned if output.name == name), None)


@contextmanager
def _plain_errors() -> Iterator[None]:
    """trio wraps what ends its nurseries in groups: Ctrl-C and our own errors come out plain."""
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
