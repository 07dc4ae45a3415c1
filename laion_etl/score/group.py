"""Runs the score stage for a command: batches of the queue or named ones, their stats, and a verdict."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from laion_etl.core.errors import Stopped
from laion_etl.core.freed_memory import return_freed_memory
from laion_etl.core.quantities import quantity
from laion_etl.core.stage_stats import StageStats
from laion_etl.core.stopping import Stop
from laion_etl.database.connection import Database
from laion_etl.database.score_queue import score_queue_of
from laion_etl.dataset.missing_batches import MissingBatch, check_scored
from laion_etl.dataset.score_progress import GroupRecord
from laion_etl.io.storage import Store
from laion_etl.score.devices import devices
from laion_etl.score.multi_gpu import AGAIN, claim_on_devices, score_everywhere
from laion_etl.score.queue_record import write_queue_record
from laion_etl.score.worker import ScoreWorker
from laion_etl.settings import Settings

_NAMED = 10_000  # missing batches in the result of a command


@dataclass(frozen=True, slots=True)
class ScoredGroup:
    """What became of the batches of a group: `scored` ones, and `missing` ones with their causes."""

    crawl: str
    scored: list[StageStats]
    missing: list[MissingBatch]
    scored_in_all: int = 0  # of the queue

    @property
    def total(self) -> int:
        """The batches of the crawl, once the queue has nothing left."""
        return self.scored_in_all + len(self.missing)

    def to_plain(self) -> dict[str, Any]:
        """Return plain JSON values; `batches` are those that are scored."""
        return {
            "crawl": self.crawl,
            "stage": "score",
            "total": self.total,
            "batches": [int(stats.unit) for stats in self.scored],
            "missing": [one.to_plain() for one in self.missing[:_NAMED]],
            "input": sum(stats.input for stats in self.scored),
            "kept": sum(stats.kept for stats in self.scored),
        }

    def check(self, total: int, allowed: float) -> None:
        """Raise IncompleteError if more than a share of `total` batches is missing in this group alone.

        `total` is all batches of the crawl, as when it is published: a group of a few of them may miss one.
        """
        check_scored(self.crawl, self.missing, total, allowed)


def score_queue(
    crawl: str,
    settings: Settings,
    store: Store,
    database: Database,
    stop: Stop,
    on_done: Callable[[StageStats], None] | None = None,
    *,
    again: bool = False,
) -> ScoredGroup:
    """Score downloaded batches, as long as there will be more, on all devices; keep the record of the crawl.

    Several score at the same time. `again`: also what another model or other settings have scored. Returns
    what this one has scored, and all that is missing of the crawl. Raises like `ScoreWorker.run` and
    `score_again`, and Stopped after a shutdown request.
    """
    found = devices(settings.clip)
    if len(found) > 1:
        done: list[StageStats] = []

        def scored(stats: StageStats) -> None:
            done.append(stats)
            if on_done is not None:
                on_done(stats)

        claim_on_devices(crawl, found, scored, stop, [AGAIN] if again else [])
    else:
        done = _scored_here(ScoreWorker(crawl, settings, store, database, on_done, stop), again=again)
        return_freed_memory()  # that of the model; a process may score one crawl after the other
    if stop.requested:  # not exit code 0, which says that the queue has nothing left
        raise Stopped(
            f"stopped after {quantity(len(done), 'batch', 'batches')}; run the same command again to continue"
        )
    queue = score_queue_of(crawl, settings.download, database)
    return ScoredGroup(crawl, done, write_queue_record(crawl, queue, store), queue.counts().scored)


def _scored_here(worker: ScoreWorker, *, again: bool) -> list[StageStats]:
    if again:
        worker.score_again()
    else:
        worker.warn_of_others()
    return worker.run()


def score_group(
    crawl: str,
    batches: Sequence[int],
    settings: Settings,
    store: Store,
    group: str = "",
    on_done: Callable[[StageStats], None] | None = None,
) -> ScoredGroup:
    """Score batches, and keep the record of the group `I/G` if it has a name. Raises like `score_shards`."""
    record = GroupRecord(crawl, group, len(batches), store) if group else None
    missing: list[MissingBatch] = []

    def missed(one: MissingBatch) -> None:
        missing.append(one)
        if record is not None:
            record.miss(one)

    if record is not None:
        record.begin()
    count = record.add if record is not None else None
    scored = score_everywhere(crawl, batches, settings, store, on_done, missed, count)
    if record is not None:
        record.finish()
    return ScoredGroup(crawl, scored, missing)
