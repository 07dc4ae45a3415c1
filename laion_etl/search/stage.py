"""Index stage: indexes the images of a published version by their embeddings.

A version's index is `index/<name>/<version>/_stats.json`; it lists parts, each several complete batches of a
crawl: `index/<name>/_parts/<crawl>/<first batch>-<fingerprint>.usearch|.arrow|_stats.json`. A part's name
depends on all its inputs, so versions share the parts they have in common: a second crawl adds parts, and a
removal rebuilds only the parts that lost rows. Parts that no version lists any more are deleted.

A crawl that was published in ranges of batches is indexed in them, side by side if several are at work. The
record of a range has those of its parts, so that the end reads no rows.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from threading import Event

from laion_etl.core.errors import DamagedFileError, InputError, LaionEtlError, MissingFileError
from laion_etl.core.quantities import first_items, quantity
from laion_etl.core.stage_stats import StageStats, fingerprint
from laion_etl.dataset.file_ranges import FileRange, share
from laion_etl.dataset.scored import ScoredCrawl, scored_among
from laion_etl.io.storage import Store
from laion_etl.search.index_part import IndexedBatch, IndexPart
from laion_etl.search.index_record import whole_index
from laion_etl.search.layout import FORMAT, STATS, delete_unnamed, index_stats, range_stats
from laion_etl.search.published_rows import PublishedVersion, batches_of
from laion_etl.settings import IndexSettings, Settings, Stage, shaping

_UNREADABLE = (InputError, MissingFileError, DamagedFileError)  # of one part; the store itself answers
_BATCHES_AT_ONCE = 64  # whose stats are read concurrently
_NAMED = 3  # failed parts in an error message

Report = Callable[[int, int], None]


def index_dataset(
    published: PublishedVersion, settings: Settings, store: Store, report: Report = lambda *_: None
) -> StageStats:
    """Index a published version; finished parts, including those of other versions, are reused.

    Raises InputError if scored shards are gone or are not those that were published, after all other parts
    are written, which the next call reuses.
    """
    release = published.release
    name = index_stats(release)
    wanted = fingerprint("index", FORMAT, release, published.fingerprint, shaping(settings, Stage.INDEX))
    if done := store.finished(name, wanted):
        delete_unnamed(release.name, store)
        return done
    store.delete(name)
    parts = []
    for done in _written(published, published.ranges, settings, store):
        parts.append(done)
        report(sum(stats.kept for stats in parts), published.rows)
    stats = store.write_stats(name, whole_index(published, wanted, parts))
    delete_unnamed(release.name, store)
    return stats


def index_range(
    published: PublishedVersion,
    number: int,
    total: int,
    settings: Settings,
    store: Store,
    report: Report = lambda *_: None,
) -> int:
    """Write the parts of every `total`-th range of a version, from range `number` on, which counts from 1.

    `index_dataset` reuses them without reading rows. Returns the number of samples; raises like it.
    """
    rows = 0
    for done in _written(published, share(published.ranges, number, total), settings, store):
        rows += done.kept
        report(rows, published.rows)
    return rows


def _written(
    published: PublishedVersion, ranges: Sequence[FileRange], settings: Settings, store: Store
) -> Iterator[StageStats]:
    """Write the parts of ranges; a part that cannot be read does not stop the others.

    Raises InputError at the end, which names it.
    """
    failed: list[LaionEtlError] = []
    for one in ranges:
        name = range_stats(published.release, one.crawl, one.number)
        made_from = fingerprint("index range", FORMAT, shaping(settings, Stage.INDEX), one.files)
        if one.number and (done := store.finished(name, made_from)):
            yield from map(StageStats.from_plain, done.details["parts"])
            continue
        before, parts = len(failed), []
        for stats in _written_range(published.release.name, one, settings.index, store, failed):
            parts.append(stats)
            yield stats
        if one.number and len(failed) == before:
            store.write_stats(name, _range_stats(one, made_from, parts))
    if len(failed) == 1:
        raise failed[0]
    if failed:
        causes = " | ".join(first_items([*map(str, failed)], _NAMED))
        raise InputError(f"cannot index {quantity(len(failed), 'part')}: {causes}")


def _range_stats(one: FileRange, made_from: str, parts: Sequence[StageStats]) -> StageStats:
    """Return the record of a range; its `details` have those of its parts."""
    rows = sum(part.kept for part in parts)
    return StageStats(
        stage="index range",
        crawl=one.crawl,
        unit=str(one.number),
        fingerprint=made_from,
        input=rows,
        kept=rows,
        outputs=tuple(output for part in parts for output in part.outputs),
        details={"parts": [part.to_plain() for part in parts]},
    )


def _written_range(
    dataset: str, one: FileRange, settings: IndexSettings, store: Store, failed: list[LaionEtlError]
) -> Iterator[StageStats]:
    """Write the parts of a range, some concurrently: usearch releases the GIL."""
    stop = Event()
    running: deque[Future[StageStats]] = deque()

    def finished() -> Iterator[StageStats]:
        try:
            yield running.popleft().result()
        except _UNREADABLE as error:
            failed.append(error)

    with ThreadPoolExecutor(settings.jobs) as pool:
        try:
            for part in _parts(dataset, one, settings, store, stop):
                running.append(pool.submit(part.done))
                if len(running) == settings.jobs:
                    yield from finished()
            while running:
                yield from finished()
        except BaseException:
            stop.set()
            raise


def _parts(
    dataset: str, one: FileRange, settings: IndexSettings, store: Store, stop: Event
) -> Iterator[IndexPart]:
    """Yield the parts of a range, cut by scored rows, so that removals do not move their borders."""
    crawl = ScoredCrawl(one.crawl, (), None, (), ())
    waiting: list[IndexedBatch] = []
    for batch in _batches(one, store):
        if waiting and sum(b.scored.kept for b in waiting) + batch.scored.kept > settings.rows_per_part:
            yield IndexPart(dataset, crawl, tuple(waiting), settings, store, stop)
            waiting = []
        waiting.append(batch)
    if waiting:
        yield IndexPart(dataset, crawl, tuple(waiting), settings, store, stop)


def _batches(one: FileRange, store: Store) -> Iterator[IndexedBatch]:
    """Yield the batches of a range; the stats of some are read at once."""
    batches = batches_of(one, store)
    while some := list(islice(batches, _BATCHES_AT_ONCE)):
        scored = scored_among(one.crawl, [found.number for found in some], store)
        known = {batch.number: batch for batch in scored.batches}
        for found in some:
            if found.number not in known:
                raise InputError(
                    f"cannot index batch {found.number} of {one.crawl}: it is published, but "
                    f"{store.uri(scored.shard_name(found.number, STATS))} is gone; score the batch again"
                )
            yield IndexedBatch(known[found.number], found.ids)
