"""The score stage: shards -> scored shards. One model load serves many shards.

Reads `shards/<crawl>/<batch>.tar|.parquet|_stats.json`; writes `scored/<crawl>/<batch>` with the endings
`.tar` (kept samples), `.parquet` (a row per sample, also the rejected), `_img_emb.npy` and `_text_emb.npy`
(float16, L2-normalised, row i = i-th kept key), and last `_stats.json`.

A shard that is missing or damaged costs itself only: the others are scored, and it is named with its cause.
"""

import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from laion_etl.core.errors import DamagedFileError, LaionEtlError, MissingFileError
from laion_etl.core.freed_memory import return_freed_memory
from laion_etl.core.schemas import scored_stem, shard_stem
from laion_etl.core.stage_stats import StageStats, fingerprint
from laion_etl.dataset.missing_batches import Fault, MissingBatch, check_scored
from laion_etl.dataset.removals_meanwhile import Removals
from laion_etl.io.storage import Store
from laion_etl.score.device_transfer import pinned
from laion_etl.score.encode import EncodeBatch, InFlightBatch, samples_at_once
from laion_etl.score.model import embedding_dim
from laion_etl.score.prefetch import prefetch
from laion_etl.score.preprocess_pool import Preparers
from laion_etl.score.scorer import SampleScorer, Scored, load_scorer
from laion_etl.score.shard_reader import SHARD_ERRORS, chunked, read_shard_stats, shard_samples
from laion_etl.score.shared_tables import Plans
from laion_etl.score.steps import Access, OpenedShard, Result, ShardEnd, Step, Unit
from laion_etl.score.write_shards import written_shards
from laion_etl.settings import Settings, Stage, shaping

_GPU_BUFFERS = 7  # shared with a GPU: four being filled, three it works on


@dataclass(frozen=True, slots=True)
class Tools:
    """How to make a scorer and a pool of preparers: both are slow to start, so tests share theirs."""

    scorer: Callable[[Settings], SampleScorer] = load_scorer
    preparers: Callable[[Plans, int, int, int], AbstractContextManager[Preparers]] = Preparers


_OWN_TOOLS = Tools()
_log = logging.getLogger(__name__)


def score_shards(
    crawl: str,
    batches: Sequence[int],
    settings: Settings,
    store: Store,
    on_done: Callable[[StageStats], None] | None = None,
    tools: Tools = _OWN_TOOLS,
    on_missing: Callable[[MissingBatch], None] | None = None,
) -> list[StageStats]:
    """Scores shards one after the other; finished ones are returned without work, in order of `batches`.

    Shards that are missing or damaged are skipped and given to `on_missing`; without it IncompleteError names
    them when all others are scored. Raises ModelError when the model cannot be loaded, and StorageError when
    the store cannot be read or written: that says nothing about a shard.
    """
    missing: list[MissingBatch] = []
    done: list[StageStats] = []
    units = map(Unit, batches)
    with closing(score_each(crawl, units, settings, store, tools)) as results:
        for _, result in results:
            if isinstance(result, MissingBatch):
                missing.append(result)
                if on_missing is not None:
                    on_missing(result)
            elif isinstance(result, StageStats):
                done.append(result)
                if on_done is not None:
                    on_done(result)
    if on_missing is None:
        check_scored(crawl, missing, len(batches))
    return done


def score_each(
    crawl: str,
    units: Iterable[Unit],
    settings: Settings,
    store: Store,
    tools: Tools = _OWN_TOOLS,
    access: Access | None = None,
) -> Generator[tuple[Unit, Result]]:
    """Yield what became of each shard, in order of `units`, which are taken while others are at work.

    Units are taken in another thread, a few ahead of what is written. `access` decides before each file is
    written whether that is still allowed; a shard for which it is not any more is left as it is. Raises like
    `score_shards`.
    """
    try:
        yield from _each(crawl, units, settings, store, tools, access or Access())
    finally:
        return_freed_memory()


def _each(
    crawl: str, units: Iterable[Unit], settings: Settings, store: Store, tools: Tools, access: Access
) -> Generator[tuple[Unit, Result]]:
    work = _ShardPipeline(crawl, units, settings, store, tools)
    removals = Removals(store, settings.download.pdq_distance)
    with (
        work,
        prefetch(work.steps(), 1) as steps,
        prefetch(work.computing(steps), 1) as computing,
        prefetch(work.scored(computing), 1) as results,
    ):
        for unit, result in written_shards(results, store, access, removals):
            if isinstance(result, MissingBatch) and unit.claim is None:
                warn_of_missing(crawl, result)
            yield unit, result


def warn_of_missing(crawl: str, missing: MissingBatch) -> None:
    """Log that a shard is skipped. For one that was claimed, only once it is known that it was not lost."""
    _log.warning("batch %d of %s is skipped: %s, %s", missing.batch, crawl, missing.cause, missing.error)


def scored_by_of(settings: Settings, scorer: SampleScorer) -> str:
    """Return the fingerprint of settings and model, which shards that were scored alike have in common."""
    return fingerprint("scored by", shaping(settings, Stage.SCORE), scorer.fingerprint)


class _ShardPipeline:
    """Reads, computes and scores, each step in its own thread; the model is loaded when first needed."""

    def __init__(
        self, crawl: str, units: Iterable[Unit], settings: Settings, store: Store, tools: Tools
    ) -> None:
        self._crawl = crawl
        self._units = units
        self._settings = settings
        self._store = store
        self._tools = tools
        self._stack = ExitStack()

    def __enter__(self) -> "_ShardPipeline":
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    @cached_property
    def scorer(self) -> SampleScorer:
        return self._tools.scorer(self._settings)

    @cached_property
    def preparers(self) -> Preparers:
        clip = self._settings.clip
        # On a CPU decoding and computing alternate: in parallel they would only compete for the cores.
        buffers = 1 if self.scorer.model.device == "cpu" else _GPU_BUFFERS
        lent = self._tools.preparers(self.scorer.plans, self._at_once, buffers, clip.preparers)
        pool = self._stack.enter_context(lent)
        self._stack.enter_context(pinned(pool.memory, self.scorer.model.device))
        return pool

    @property
    def _at_once(self) -> int:
        return samples_at_once(self._settings.clip.batch_size, self.scorer.model.device)

    def steps(self) -> Iterator[Step | EncodeBatch]:
        """Yield each unit, then the stats of a finished shard, or the start, batches and end of another.

        A MissingBatch takes the place of the start or of the end of a shard that cannot be read.
        """
        for unit in self._units:
            yield unit
            yield from self._steps_of(unit.batch)

    def _steps_of(self, batch: int) -> Iterator[Step | EncodeBatch]:
        try:
            shard = read_shard_stats(self._crawl, batch, self._store)
        except SHARD_ERRORS as error:
            yield self._missing(batch, error, Fault.NOT_DOWNLOADED)
            return
        opened = self._open(shard)
        stats_name = f"{scored_stem(shard.crawl, batch)}_stats.json"
        if (finished := self._store.finished(stats_name, opened.fingerprint)) is not None:
            yield finished
            return
        if opened.scorer is not None and (found := self._without_images(opened, stats_name)) is not None:
            yield found
            return
        yield opened
        if opened.scorer is not None:
            chunks = chunked(shard_samples(shard, self._store), self._at_once)
            while True:
                # Only reading is in the `try`: an error of the model or the device is not the shard's.
                try:
                    samples = next(chunks, None)
                except SHARD_ERRORS as error:
                    yield self._missing(batch, error, Fault.FILE_MISSING)
                    return
                if samples is None:
                    break
                yield opened.scorer.begin(samples, self.preparers)
        yield ShardEnd()

    def _without_images(self, opened: OpenedShard, stats_name: str) -> StageStats | MissingBatch | None:
        """Return what becomes of a shard that has scores, and no images any more: the scores stay.

        They are its result if this model made them: a removal has rewritten the shard since, and the scores.
        """
        shard, batch = opened.shard, int(opened.shard.unit)
        tar = f"{shard_stem(shard.crawl, batch)}.tar"
        if not self._store.exists(stats_name) or self._store.exists(tar):
            return None
        self._store.check()
        if (scored := self._scored_alike(stats_name, opened.scored_by)) is not None:
            return scored
        return MissingBatch(
            batch,
            Fault.IMAGES_DELETED,
            f"cannot score batch {batch} of {shard.crawl} again: {self._store.uri(tar)} is gone, most likely "
            "because it was deleted after it was scored (LAION_ETL_KEEP_RAW_SHARDS=false); use the model and "
            "settings that it was scored with, or download it again",
        )

    def _scored_alike(self, stats_name: str, scored_by: str) -> StageStats | None:
        try:
            stats = self._store.read_stats(stats_name)
        except DamagedFileError:  # which `finished` has logged
            return None
        return stats if stats.details.get("scored_by") == scored_by else None

    def _missing(self, batch: int, error: LaionEtlError, without_file: Fault) -> MissingBatch:
        """Return what is missing. Raises StorageError if the store itself is, for S3 answers alike then."""
        if not isinstance(error, MissingFileError):
            return MissingBatch(batch, Fault.DAMAGED, str(error))
        self._store.check()
        return MissingBatch(batch, without_file, str(error))

    def _open(self, shard: StageStats) -> OpenedShard:
        rules = shaping(self._settings, Stage.SCORE)
        if shard.kept == 0:  # no model needed: the scored shard is empty
            found = fingerprint("score", rules, "no samples", shard.outputs)
            return OpenedShard(shard, found, None, embedding_dim(self._settings.clip))
        found = fingerprint("score", rules, self.scorer.fingerprint, shard.outputs)
        scored_by = scored_by_of(self._settings, self.scorer)
        return OpenedShard(shard, found, self.scorer, self.scorer.model.dim, scored_by)

    def computing(self, steps: Iterator[Step | EncodeBatch]) -> Iterator[Step | InFlightBatch]:
        for step in steps:
            yield self.scorer.compute(step) if isinstance(step, EncodeBatch) else step

    def scored(self, steps: Iterator[Step | InFlightBatch]) -> Iterator[Step | list[Scored]]:
        for step in steps:
            yield self.scorer.score(step, self.preparers) if isinstance(step, InFlightBatch) else step
