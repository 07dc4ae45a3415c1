"""Download stage: a batch of pairs -> a shard of samples, with an outcome for every pair.

Links are fetched side by side in one trio thread; images are decoded in worker processes. Which download
finishes first changes nothing in the shard.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import pyarrow.parquet as pq
import trio

from laion_etl.download.blocklist import HashBlocklist
from laion_etl.download.client import Client
from laion_etl.download.decoders import Decoders
from laion_etl.download.images import Picture
from laion_etl.download.outcome import LinkFailed
from laion_etl.download.shards import Hashes, ShardWriter, shard_writer
from laion_etl.errors import LaionEtlError
from laion_etl.funnel import DownloadStatus, Outcomes
from laion_etl.records import (
    Output,
    StageStats,
    batch_file_name,
    batch_name,
    fingerprint,
    plan_stats_name,
    shard_stem,
)
from laion_etl.settings import DownloadSettings, Settings
from laion_etl.storage import Store

Progress = Callable[[int, int], None]  # links done, links in all

# How a batch is worked on, not what comes out of it: a change of these is no reason to fetch again.
_WITHOUT_EFFECT_ON_OUTPUT = {
    "connections",
    "connections_per_host",
    "connect_to",
    "decoders",
    "lease_s",
    "max_attempts",
}


def download_batch(
    crawl: str,
    batch: int,
    settings: Settings,
    store: Store,
    on_progress: Progress | None = None,
    before_write: Callable[[], None] | None = None,
) -> StageStats:
    """Fetches the pairs of `batches/<crawl>/<batch>.parquet` into `shards/<crawl>/<batch>.tar`, `.parquet`.

    A link that fails is a row with its reason; a batch file that can't be read is a StorageError.
    `before_write` is called when all links are done; what it raises leaves the store as it was.
    """
    stats_name = f"{shard_stem(crawl, batch)}_stats.json"
    identity = fingerprint("download", _shaping(settings.download), _batch_file(crawl, batch, store))
    if (done := store.finished(stats_name, identity)) is not None:
        return done
    with store.open(batch_file_name(crawl, batch)) as file:
        pairs = pq.read_table(file).to_pylist()
    with shard_writer(batch, pairs) as shard:
        run = _BatchRun(settings.download, pairs, shard, on_progress)
        with _plain_errors():
            trio.run(run.all_links)
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
    )
    return store.write_stats(stats_name, stats)


class _BatchRun:
    """One pass over the links of a batch."""

    def __init__(
        self,
        settings: DownloadSettings,
        pairs: list[dict[str, Any]],
        shard: ShardWriter,
        on_progress: Progress | None,
    ) -> None:
        self.outcomes = Outcomes[DownloadStatus]()
        self._settings = settings
        self._pairs = pairs
        self._shard = shard
        self._on_progress = on_progress
        self._blocklist = HashBlocklist.load(settings.hash_blocklist)

    async def all_links(self) -> None:
        client = Client(self._settings)
        links = iter(enumerate(self._pairs))
        async with Decoders(self._settings) as decoders, trio.open_nursery() as nursery:
            for _ in range(min(self._settings.connections, len(self._pairs))):
                nursery.start_soon(self._work, links, client, decoders)

    async def _work(
        self, links: Iterator[tuple[int, dict[str, Any]]], client: Client, decoders: Decoders
    ) -> None:
        for index, pair in links:
            try:
                await self._link(index, pair["url"], client, decoders)
                self.outcomes.keep()
            except LinkFailed as failure:
                self.outcomes.drop(failure.status)
            if self._on_progress is not None:
                self._on_progress(self.outcomes.input, len(self._pairs))

    async def _link(self, index: int, url: str, client: Client, decoders: Decoders) -> None:
        hashes = None
        try:
            async with client.fetch(url) as data:
                hashes = _hashes(data)
                picture = await self._picture(data, hashes, decoders)
        except LinkFailed as failure:
            self._shard.add_failure(index, failure.status, failure.message, hashes)
            raise
        self._shard.add_picture(index, picture, hashes)

    async def _picture(self, data: bytes, hashes: Hashes, decoders: Decoders) -> Picture:
        """The decoded picture; a blocked hash ends the link before anything is decoded."""
        if self._blocklist.matches(bytes.fromhex(hashes.md5), bytes.fromhex(hashes.sha256)):
            raise LinkFailed(DownloadStatus.BLOCKED_HASH)
        found = await decoders.decode(data)
        if isinstance(found, Picture):
            return found
        raise LinkFailed(found)


def _hashes(data: bytes) -> Hashes:
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    return Hashes(hashlib.sha256(data).hexdigest(), md5)


def _shaping(settings: DownloadSettings) -> dict[str, Any]:
    return {k: v for k, v in asdict(settings).items() if k not in _WITHOUT_EFFECT_ON_OUTPUT}


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
