"""Index stage: indexes the images of a published version by their embeddings.

A version's index is `index/<name>/<version>/_stats.json`; it lists parts, each several complete batches of a
crawl: `index/<name>/_parts/<crawl>/<first batch>-<fingerprint>.usearch|.arrow|_stats.json`. A part's name
depends on all its inputs, so versions share the parts they have in common: a second crawl adds parts, and a
removal rebuilds only the parts that lost rows. Parts that no version lists any more are deleted.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event

from laion_etl.core.errors import DamagedFileError, InputError, LaionEtlError, MissingFileError
from laion_etl.core.stage_stats import StageStats, fingerprint
from laion_etl.dataset.scored import ScoredBatch, ScoredCrawl, find_scored
from laion_etl.io.storage import Store
from laion_etl.search.index_part import COUNTED, IndexedBatch, IndexPart, most_frequent
from laion_etl.search.layout import FORMAT, STATS, delete_unnamed, index_stats
from laion_etl.search.published_rows import PublishedBatch, PublishedVersion
from laion_etl.settings import IndexSettings, Settings, Stage, shaping

_UNREADABLE = (InputError, MissingFileError, DamagedFileError)  # of one part; the store itself answers
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
    for done in _written(published, settings.index, store):
        parts.append(done)
        report(sum(stats.kept for stats in parts), published.rows)
    stats = store.write_stats(name, _whole(published, wanted, parts))
    delete_unnamed(release.name, store)
    return stats


def _whole(published: PublishedVersion, wanted: str, parts: Sequence[StageStats]) -> StageStats:
    weights = sorted({part.details["weights_sha256"] for part in parts})
    if len(weights) > 1:
        raise InputError(
            f"cannot index {published.release.folder}: it was scored by {len(weights)} models, whose "
            "embeddings are not comparable; score its crawls with one model"
        )
    return StageStats(
        stage="index",
        crawl="",
        unit=f"{published.release.name}/{published.release.version}",
        fingerprint=wanted,
        input=sum(part.input for part in parts),
        kept=sum(part.kept for part in parts),
        dropped=dict(sum((Counter(part.dropped) for part in parts), Counter[str]())),
        outputs=tuple(output for part in parts for output in part.outputs),
        details={
            "format": FORMAT,
            "published": published.fingerprint,
            "parts": [{"crawl": part.crawl, "unit": part.unit, "rows": part.kept} for part in parts],
            **({key: parts[0].details[key] for key in ("model", "weights_sha256", "dim")} if parts else {}),
            **{what: most_frequent(part.details[what] for part in parts) for what in COUNTED},
        },
    )


def _written(published: PublishedVersion, settings: IndexSettings, store: Store) -> Iterator[StageStats]:
    """Write the parts, some concurrently: usearch releases the GIL.

    A part that cannot be read does not stop the others; InputError names it at the end.
    """
    stop = Event()
    running: deque[Future[StageStats]] = deque()
    failed: list[LaionEtlError] = []

    def finished() -> Iterator[StageStats]:
        try:
            yield running.popleft().result()
        except _UNREADABLE as error:
            failed.append(error)

    with ThreadPoolExecutor(settings.jobs) as pool:
        try:
            for part in _parts(published, settings, store, stop):
                running.append(pool.submit(part.done))
                if len(running) == settings.jobs:
                    yield from finished()
            while running:
                yield from finished()
        except BaseException:
            stop.set()
            raise
    if len(failed) == 1:
        raise failed[0]
    if failed:
        raise InputError(f"cannot index {len(failed)} parts: {' | '.join(map(str, failed[:_NAMED]))}")


def _parts(
    published: PublishedVersion, settings: IndexSettings, store: Store, stop: Event
) -> Iterator[IndexPart]:
    """Yield the parts of a version, cut by scored rows, so that removals do not move their borders."""
    name = published.release.name
    known: ScoredCrawl | None = None
    waiting: list[IndexedBatch] = []
    for found in published.batches(store):
        if known is None or known.crawl != found.crawl:
            if known is not None:
                yield IndexPart(name, known, tuple(waiting), settings, store, stop)
            known, waiting = find_scored(found.crawl, store), []
        batch = IndexedBatch(_scored(found, known, store), found.ids)
        if waiting and sum(b.scored.kept for b in waiting) + batch.scored.kept > settings.rows_per_part:
            yield IndexPart(name, known, tuple(waiting), settings, store, stop)
            waiting = []
        waiting.append(batch)
    if known is not None:
        yield IndexPart(name, known, tuple(waiting), settings, store, stop)


def _scored(published: PublishedBatch, crawl: ScoredCrawl, store: Store) -> ScoredBatch:
    for batch in crawl.batches:
        if batch.number == published.number:
            return batch
    raise InputError(
        f"cannot index batch {published.number} of {crawl.crawl}: it is published, but "
        f"{store.uri(crawl.shard_name(published.number, STATS))} is gone; score the batch again"
    )
