"""Writes scored shards, one after another, from the results of the score stage's steps."""

import logging
from collections.abc import Iterator
from typing import Any

from laion_etl.core.schemas import scored_stem
from laion_etl.core.stage_stats import StageStats
from laion_etl.core.stopping import LeaseLost
from laion_etl.dataset.missing_batches import MissingBatch
from laion_etl.dataset.removals_meanwhile import Removals, write_stats_without
from laion_etl.dataset.rewrite_shards import rewrite_scored
from laion_etl.io.storage import Guard, Store
from laion_etl.score.head_registry import described_safety
from laion_etl.score.scorer import SampleScorer, Scored
from laion_etl.score.shard_writer import ShardWriter
from laion_etl.score.steps import Access, LostBatch, OpenedShard, Result, ShardEnd, Step, Unit

_log = logging.getLogger(__name__)


class _UnreadableError(Exception):
    """Leaves a ShardWriter, which then discards its files."""

    def __init__(self, missing: MissingBatch) -> None:
        super().__init__(missing.error)
        self.missing = missing


def written_shards(
    results: Iterator[Step | list[Scored]], store: Store, access: Access, removals: Removals
) -> Iterator[tuple[Unit, Result]]:
    """Writes one shard after another; yields the stats of each once its files are in place."""
    unit = Unit(-1)
    for result in results:
        if isinstance(result, Unit):
            unit = result
        elif isinstance(result, (StageStats, MissingBatch)):
            yield unit, result
        elif isinstance(result, OpenedShard):
            yield unit, _write(unit, result, results, store, access, removals)


def _write(
    unit: Unit,
    opened: OpenedShard,
    results: Iterator[Step | list[Scored]],
    store: Store,
    access: Access,
    removals: Removals,
) -> Result:
    """Writes one scored shard from the results up to its end; nothing if it cannot be read to its end."""
    batch = unit.batch
    stem, guard = scored_stem(opened.shard.crawl, batch), access.guard_of(unit)
    try:
        _unmark(f"{stem}_stats.json", opened, store, access.lease_of(unit))
    except LeaseLost:
        _skip(results)
        return _lost(batch)
    try:
        with ShardWriter(store, stem, guard) as writer:
            _add_results(results, writer, access)
            writer.check_failures()
            writer.finish(opened.dim, opened.scorer.columns if opened.scorer else ())
        for failure in writer.failures:
            _log.warning("the head %s failed for %s: %s", failure["head"], failure["key"], failure["error"])
        stats, name = _stats(opened, writer), f"{stem}_stats.json"
        return write_stats_without(name, stats, removals.matcher(), rewrite_scored, store, guard)
    except _UnreadableError as error:
        return error.missing
    except LeaseLost:
        return _lost(batch)


def _lost(batch: int) -> LostBatch:
    _log.warning("another worker has batch %d: the lease expired, or that worker was faster", batch)
    return LostBatch(batch)


def _skip(results: Iterator[Step | list[Scored]]) -> None:
    """Takes the rest of one shard's results."""
    for result in results:
        if isinstance(result, (ShardEnd, MissingBatch)):
            return


def _unmark(name: str, opened: OpenedShard, store: Store, lease: Guard | None) -> None:
    """From here on the unit is not done, even if it was before: its data files are about to be replaced.

    A worker that is suspended right here must not delete the stats that another one writes meanwhile. So it
    replaces them, which its guard and the store can refuse, with ones that no reader takes for a result.
    The guard only extends the lease: no sample is computed yet, and a race is won by the first worker that
    has them all.
    """
    if lease is None:
        store.delete(name)
    elif store.exists(name):
        shard = opened.shard
        store.write(name, StageStats.unfinished("score", shard.crawl, shard.unit).to_json(), lease)


def _add_results(results: Iterator[Step | list[Scored]], writer: ShardWriter, access: Access) -> None:
    """Adds the samples of one shard. Raises _UnreadableError if it cannot be read to its end."""
    for result in results:
        access.check()
        if isinstance(result, ShardEnd):
            return
        if isinstance(result, MissingBatch):
            raise _UnreadableError(result)
        if isinstance(result, list):
            for scored in result:
                writer.add(scored)


def _other_model(scorer: SampleScorer) -> dict[str, Any]:
    if (model := scorer.multilingual_model) is None:
        return {}
    return {
        "other_model": model.name,
        "other_weights_sha256": model.weights_sha256,
        "other_function": model.identity,
    }


def _stats(opened: OpenedShard, writer: ShardWriter) -> StageStats:
    shard, scorer = opened.shard, opened.scorer
    details: dict[str, Any] = {}
    if scorer is not None:
        details = {
            "scored_by": opened.scored_by,
            "model": scorer.model.name,
            **_other_model(scorer),
            "weights_sha256": scorer.model.weights_sha256,
            "precision": scorer.model.precision,
            "function": scorer.model.identity,
            "safety": described_safety(scorer.heads),
            "threshold_en": scorer.thresholds.english,
            "threshold_other": scorer.thresholds.other,
            "kept_nsfw_tags": dict(sorted(writer.tags.items())),
            "kept_subsets": dict(sorted(writer.subsets.items())),
            **({"columns": [column.to_plain() for column in scorer.columns]} if scorer.columns else {}),
            **(
                {"internal_error": writer.failed, "internal_errors": writer.failures} if writer.failed else {}
            ),
        }
    return StageStats(
        stage="score",
        crawl=shard.crawl,
        unit=shard.unit,
        fingerprint=opened.fingerprint,
        input=shard.kept,
        kept=writer.outcomes.kept,
        dropped=writer.outcomes.dropped,
        outputs=writer.outputs,
        details=details,
    )
