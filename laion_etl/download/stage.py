"""Download stage: a batch of pairs -> a shard of samples, with an outcome for every pair.

Links are fetched concurrently in one trio thread (`batch_downloader.py`); images are decoded in worker
processes. The order in which downloads finish does not change the shard. An interrupted batch is fetched
again from its beginning: to save the finished part, every image would have to be written to the store twice.
"""

import gc
import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from laion_etl.blocklists.removal_requests import Matcher, blanked, read_requests
from laion_etl.blocklists.removed_images import NO_IMAGES, BlockedImages, blocked_images
from laion_etl.core.errors import InputError, LaionEtlError, MissingFileError
from laion_etl.core.ids import MAX_BATCH_PAIRS, batch_name
from laion_etl.core.outages import NO_PATIENCE, Outages
from laion_etl.core.parquet_bounds import BoundedParquet
from laion_etl.core.schemas import BATCH_FILES, batch_file_name, plan_stats_name, shard_stats_name, shard_stem
from laion_etl.core.stage_stats import Output, StageStats, fingerprint
from laion_etl.core.stopping import LeaseLost
from laion_etl.core.usage_counters import Counter, count
from laion_etl.dataset.removals_meanwhile import Removals, write_stats_without
from laion_etl.dataset.rewrite_shards import rewrite_shard
from laion_etl.download import RULES_VERSION
from laion_etl.download.batch_downloader import BatchDownloader, Hooks
from laion_etl.download.earlier_result import UNWANTED, Earlier
from laion_etl.download.shards import ShardWriter, shard_writer
from laion_etl.download.timings import diagnose
from laion_etl.download.trio_runs import run_trio
from laion_etl.io.outputs import has_shard
from laion_etl.io.storage import Guard, Store
from laion_etl.settings import DownloadSettings, Settings, Stage, shaping
from laion_etl.settings.provenance import unit_settings

_COLLECTED_AFTER = 5_000  # new objects, instead of Python's 700; a failed link leaves some fifty in cycles


class BatchFileError(InputError):
    """The file of a batch is missing or damaged: of all errors the only one that is the batch's own."""


@contextmanager
def _seldom_collected() -> Iterator[None]:
    """Has Python look for unused cycles seldom, and not among what was there before: 8% of the loop's CPU.

    At the end it looks among all that is new. Otherwise each batch would stay, because clients and policies
    refer to each other, and Python looks among what it has known for long only once there is much more of it.
    """
    thresholds = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(_COLLECTED_AFTER, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.collect()
        gc.unfreeze()


@_seldom_collected()
def download_batch(  # noqa: PLR0913, PLR0917 - all but four have defaults
    crawl: str,
    batch: int,
    settings: Settings,
    store: Store,
    hooks: Hooks | None = None,
    guard: Guard | None = None,
    outages: Outages = NO_PATIENCE,
    planned: Output | None = None,
    is_there: Callable[[StageStats, Store], bool] = has_shard,
    earlier: Earlier | None = None,
) -> StageStats:
    """Fetches the pairs of `batches/<crawl>/<batch>.parquet` into `shards/<crawl>/<batch>.tar`, `.parquet`.

    A failed link becomes a row with its reason. The guard is called before each file is written, which
    replaces nothing that was written since (see `Store.create`). `planned` is the file of the pairs as it was
    planned, for the fingerprint; by default the one in the store. `is_there` decides whether the shard of an
    earlier download is still whole; by default a scored one needs no tar. `earlier`: a result with samples
    that one without may not replace: what is opted out by now is taken out of it. Raises EmptyResultError
    then, MissingFileError if the store has no plan of the crawl, BatchFileError if the batch file is missing
    or damaged, OutageError when the store does not work after the patience of `outages`, or too many names
    cannot be resolved.
    """
    file = planned or outages.outlast(lambda: _file_of(crawl, batch, store))
    unit_fingerprint = fingerprint("download", RULES_VERSION, shaping(settings, Stage.DOWNLOAD), file)

    def finished() -> StageStats | None:
        done = store.finished(shard_stats_name(crawl, batch), unit_fingerprint)
        return done if done is not None and is_there(done, store) else None

    if (done := outages.outlast(finished)) is not None:
        return done
    if earlier is not None:
        earlier.warn()
    unit = outages.outlast(lambda: _open_unit(crawl, batch, settings, store))
    began = time.monotonic()
    with shard_writer(batch, unit.pairs) as shard:
        downloader = download_pairs(unit.pairs, settings.download, shard, hooks, unit.removed)
        fetched_s = time.monotonic() - began
        dropped = downloader.outcomes.dropped
        if earlier is not None and earlier.stays(downloader.outcomes.kept, dropped):
            earlier.keep_rest(shard.urls_with(UNWANTED), dropped, store, guard, outages)
        outputs = outages.outlast(lambda: shard.write(shard_stem(crawl, batch), store, guard))
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
        {"network": _network(downloader, fetched_s), "settings": unit_settings(settings, Stage.DOWNLOAD)},
    )
    name = shard_stats_name(crawl, batch)
    matcher = outages.outlast(lambda: _requested_since(unit, settings, store))
    return write_stats_without(name, stats, matcher, rewrite_shard, store, guard, outages)


@dataclass(frozen=True, slots=True)
class _Unit:
    """What a batch that is to be downloaded is made of."""

    pairs: list[dict[str, Any]]
    removed: BlockedImages
    requests: dict[str, str]


def _open_unit(crawl: str, batch: int, settings: Settings, store: Store) -> _Unit:
    pdq_distance = settings.download.pdq_distance
    tags = Removals(store, pdq_distance).tags()
    requests = read_requests(store) if tags else ()
    pairs = blanked(_read_batch(crawl, batch, store), Matcher(requests, pdq_distance)).to_pylist()
    return _Unit(pairs, blocked_images(requests, pdq_distance), tags)


def _requested_since(unit: _Unit, settings: Settings, store: Store) -> Matcher:
    """Return what finds the removal requests of now, if there are others than when the batch was read."""
    removals = Removals(store, settings.download.pdq_distance)
    return Matcher((), 0) if removals.tags() == unit.requests else removals.matcher()


def download_pairs(
    pairs: list[dict[str, Any]],
    settings: DownloadSettings,
    shard: ShardWriter,
    hooks: Hooks | None = None,
    removed: BlockedImages = NO_IMAGES,
) -> BatchDownloader:
    """Fetches pairs, rows of BATCH_SCHEMA, into a shard, which then has an outcome for each of them.

    Returns the downloader, for its counts and timings. Raises OutageError when names cannot be resolved.
    """
    downloader = BatchDownloader(settings, pairs, shard, hooks or Hooks(), removed)
    try:
        with _plain_errors():
            run_trio(downloader.run)
    finally:
        count(Counter.WEB_REQUESTS, downloader.timings.connections + downloader.timings.reused)
        count(Counter.WEB_BYTES, downloader.timings.bytes)
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
        "known_hosts": downloader.known_hosts,
        "policy_requests": downloader.policy_requests,
        "connections": timings.connections,
        "reused": timings.reused,
        "retries": timings.retries,
        "most_in_flight": downloader.max_in_flight,
        "latency_s": latencies,
        "diagnosis": diagnose(outcomes.input, outcomes.dropped, latencies),
    }


def _file_of(crawl: str, batch: int, store: Store) -> Output:
    return Output.from_bytes(batch_file_name(crawl, batch), _read_file(crawl, batch, store))


def _read_file(crawl: str, batch: int, store: Store) -> bytes:
    name = batch_file_name(crawl, batch)
    try:
        return store.read(name)
    except MissingFileError as error:
        if not store.exists(plan := plan_stats_name(crawl)):
            store.read(plan)  # raises: this is another store, or its folder is not mounted
        raise BatchFileError(f"cannot read {store.uri(name)}: it does not exist; {_advice(crawl)}") from error


def _advice(crawl: str) -> str:
    return f"run `laion-etl stage plan --crawl {crawl}` again, then `laion-etl db requeue --crawl {crawl}`"


def _read_batch(crawl: str, batch: int, store: Store) -> pa.Table:
    name, advice = batch_file_name(crawl, batch), _advice(crawl)
    data = _read_file(crawl, batch, store)
    try:
        parquet = BoundedParquet(io.BytesIO(data))
        BATCH_FILES.check_number(parquet.schema_arrow, store.uri(name))
        if BATCH_FILES.number_of(parquet.schema_arrow) is None:
            raise BatchFileError(
                f"cannot read {store.uri(name)}: it does not have the columns of a batch; {advice}"
            )
        table = parquet.read(most_rows=MAX_BATCH_PAIRS)
        table.validate(full=True)
    except (pa.ArrowException, OSError) as error:  # pyarrow raises both for damaged files
        raise BatchFileError(f"cannot read {store.uri(name)}: it is damaged ({error}); {advice}") from error
    return BATCH_FILES.upgraded(table)


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Unwraps Ctrl-C, our own errors and a lost lease from the exception groups of trio's nurseries."""
    try:
        yield
    except BaseExceptionGroup as group:
        for kind in (KeyboardInterrupt, LaionEtlError, LeaseLost):
            if (found := group.subgroup(kind)) is not None:
                raise _first(found) from group
        raise


def _first(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group
