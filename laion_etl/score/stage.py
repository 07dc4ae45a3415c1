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

from laion_etl.core.errors import LaionEtlError, MissingFileError
from laion_etl.core.host_resources import usable_cores
from laion_etl.core.schemas import scored_stem, shard_stem
from laion_etl.core.stage_stats import UNFINISHED, StageStats, fingerprint
from laion_etl.core.stopping import LeaseLost
from laion_etl.dataset.missing_batches import Fault, MissingBatch, check_scored
from laion_etl.io.storage import Guard, Store
from laion_etl.score.device_transfer import pinned
from laion_etl.score.encode import EncodeBatch, InFlightBatch, samples_at_once
from laion_etl.score.model import embedding_dim
from laion_etl.score.prefetch import prefetch
from laion_etl.score.preprocess_pool import Preparers
from laion_etl.score.scorer import SampleScorer, Scored, load_scorer
from laion_etl.score.shard_reader import SHARD_ERRORS, chunked, read_shard_stats, shard_samples
from laion_etl.score.shard_writer import ShardWriter
from laion_etl.score.shared_tables import Plans
from laion_etl.settings import Settings, Stage, shaping

_GPU_BUFFERS = 7  # shared with a GPU: four being filled, three it works on


@dataclass(frozen=True, slots=True)
class Tools:
    """How to make a scorer and a pool of preparers: both are slow to start, so tests share theirs."""

    scorer: Callable[[Settings], SampleScorer] = load_scorer
    preparers: Callable[[Plans, int, int, int], AbstractContextManager[Preparers]] = Preparers


@dataclass(frozen=True, slots=True)
class LostBatch:
    """A shard that another worker has taken over meanwhile: its scores count."""

    batch: int


@dataclass(frozen=True, slots=True)
class Access:
    """Who may write. `guard`: makes the guard of a batch's files, which raises LeaseLost; None: none needed.
    `check` is called after each group of samples, and ends the work by raising."""

    guard: Callable[[int], Guard] | None = None
    check: Callable[[], None] = lambda: None

    def guard_of(self, batch: int) -> Guard | None:
        return None if self.guard is None else self.guard(batch)


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
    with closing(score_each(crawl, batches, settings, store, tools)) as results:
        for result in results:
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
    batches: Iterable[int],
    settings: Settings,
    store: Store,
    tools: Tools = _OWN_TOOLS,
    access: Access | None = None,
) -> Generator[StageStats | MissingBatch | LostBatch]:
    """Yield what became of each shard, in order of `batches`, which are taken while others are at work.

    Numbers are taken in another thread, a few ahead of what is written. `access` decides before each file is
    written whether that is still allowed; a shard for which it is not any more is left as it is. Raises like
    `score_shards`.
    """
    work = _ShardPipeline(crawl, batches, settings, store, tools)
    with (
        work,
        prefetch(work.steps(), 1) as steps,
        prefetch(work.computing(steps), 1) as computing,
        prefetch(work.scored(computing), 1) as results,
    ):
        for result in _written(results, store, access or Access()):
            if isinstance(result, MissingBatch):
                _log.warning(
                    "batch %d of %s is skipped: %s, %s", result.batch, crawl, result.cause, result.error
                )
            yield result


@dataclass(frozen=True, slots=True)
class _Opened:
    """A shard that is to be scored."""

    shard: StageStats
    fingerprint: str
    scorer: SampleScorer | None  # None: the shard has no samples
    dim: int
    scored_by: str = ""  # what of the fingerprint is the same for all shards


def scored_by_of(settings: Settings, scorer: SampleScorer) -> str:
    """Return the fingerprint of settings and model, which shards that were scored alike have in common."""
    return fingerprint("scored by", shaping(settings, Stage.SCORE), scorer.fingerprint)


class _Closed:
    """The end of a shard."""


class _UnreadableError(Exception):
    """Leaves a ShardWriter, which then discards its files."""

    def __init__(self, missing: MissingBatch) -> None:
        super().__init__(missing.error)
        self.missing = missing


_Step = StageStats | _Opened | _Closed | MissingBatch


class _ShardPipeline:
    """Reads, computes and scores, each step in its own thread; the model is loaded when first needed."""

    def __init__(
        self, crawl: str, batches: Iterable[int], settings: Settings, store: Store, tools: Tools
    ) -> None:
        self._crawl = crawl
        self._batches = batches
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
        processes = clip.preparers or usable_cores()
        lent = self._tools.preparers(self.scorer.plans, self._at_once, buffers, processes)
        pool = self._stack.enter_context(lent)
        self._stack.enter_context(pinned(pool.memory, self.scorer.model.device))
        return pool

    @property
    def _at_once(self) -> int:
        return samples_at_once(self._settings.clip.batch_size, self.scorer.model.device)

    def steps(self) -> Iterator[_Step | EncodeBatch]:
        """Yield the stats of each finished shard; of each other one its start, its batches and its end.

        A MissingBatch takes the place of the start or of the end of a shard that cannot be read.
        """
        for batch in self._batches:
            yield from self._steps_of(batch)

    def _steps_of(self, batch: int) -> Iterator[_Step | EncodeBatch]:
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
        if opened.scorer is not None and (gone := self._without_images(shard, stats_name)) is not None:
            yield gone
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
        yield _Closed()

    def _without_images(self, shard: StageStats, stats_name: str) -> MissingBatch | None:
        """Return what is missing where the images of a shard that has other scores are gone: these stay."""
        tar, batch = f"{shard_stem(shard.crawl, int(shard.unit))}.tar", int(shard.unit)
        if not self._store.exists(stats_name) or self._store.exists(tar):
            return None
        self._store.check()
        return MissingBatch(
            batch,
            Fault.IMAGES_DELETED,
            f"cannot score batch {batch} of {shard.crawl} again: {self._store.uri(tar)} is gone, most likely because it "
            "was deleted after it was scored (LAION_ETL_KEEP_RAW_SHARDS=false); use the model and settings that it "
            "was scored with, or download it again",
        )

    def _missing(self, batch: int, error: LaionEtlError, without_file: Fault) -> MissingBatch:
        """Return what is missing. Raises StorageError if the store itself is, for S3 answers alike then."""
        if not isinstance(error, MissingFileError):
            return MissingBatch(batch, Fault.DAMAGED, str(error))
        self._store.check()
        return MissingBatch(batch, without_file, str(error))

    def _open(self, shard: StageStats) -> _Opened:
        rules = shaping(self._settings, Stage.SCORE)
        if shard.kept == 0:  # no model needed: the scored shard is empty
            found = fingerprint("score", rules, "no samples", shard.outputs)
            return _Opened(shard, found, None, embedding_dim(self._settings.clip))
        found = fingerprint("score", rules, self.scorer.fingerprint, shard.outputs)
        scored_by = scored_by_of(self._settings, self.scorer)
        return _Opened(shard, found, self.scorer, self.scorer.model.dim, scored_by)

    def computing(self, steps: Iterator[_Step | EncodeBatch]) -> Iterator[_Step | InFlightBatch]:
        for step in steps:
            yield self.scorer.compute(step) if isinstance(step, EncodeBatch) else step

    def scored(self, steps: Iterator[_Step | InFlightBatch]) -> Iterator[_Step | list[Scored]]:
        for step in steps:
            yield self.scorer.score(step, self.preparers) if isinstance(step, InFlightBatch) else step


def _written(
    results: Iterator[_Step | list[Scored]], store: Store, access: Access
) -> Iterator[StageStats | MissingBatch | LostBatch]:
    """Writes one shard after another; yields the stats of each once its files are in place."""
    for result in results:
        if isinstance(result, (StageStats, MissingBatch)):
            yield result
        elif isinstance(result, _Opened):
            yield _write(result, results, store, access)


def _write(
    opened: _Opened, results: Iterator[_Step | list[Scored]], store: Store, access: Access
) -> StageStats | MissingBatch | LostBatch:
    """Writes one scored shard from the results up to its end; nothing if it cannot be read to its end."""
    batch = int(opened.shard.unit)
    stem, guard = scored_stem(opened.shard.crawl, batch), access.guard_of(batch)
    try:
        _unmark(f"{stem}_stats.json", opened, store, guard)
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
        return store.write_stats(f"{stem}_stats.json", _stats(opened, writer), guard)
    except _UnreadableError as error:
        return error.missing
    except LeaseLost:
        return _lost(batch)


def _lost(batch: int) -> LostBatch:
    _log.warning("the lease of batch %d expired and another worker took it over", batch)
    return LostBatch(batch)


def _skip(results: Iterator[_Step | list[Scored]]) -> None:
    """Takes the rest of one shard's results."""
    for result in results:
        if isinstance(result, (_Closed, MissingBatch)):
            return


def _unmark(name: str, opened: _Opened, store: Store, guard: Guard | None) -> None:
    """From here on the unit is not done, even if it was before: its data files are about to be replaced.

    A worker that is suspended right here must not delete the stats that another one writes meanwhile. So it
    replaces them, which its guard and the store can refuse, by ones that no reader takes for a result.
    """
    if guard is None:
        store.delete(name)
    elif store.exists(name):
        shard = opened.shard
        store.write(name, StageStats("score", shard.crawl, shard.unit, UNFINISHED, 0, 0).to_json(), guard)


def _add_results(results: Iterator[_Step | list[Scored]], writer: ShardWriter, access: Access) -> None:
    """Adds the samples of one shard. Raises _UnreadableError if it cannot be read to its end."""
    for result in results:
        access.check()
        if isinstance(result, _Closed):
            return
        if isinstance(result, MissingBatch):
            raise _UnreadableError(result)
        if isinstance(result, list):
            for scored in result:
                writer.add(scored)


def _stats(opened: _Opened, writer: ShardWriter) -> StageStats:
    shard, scorer = opened.shard, opened.scorer
    details: dict[str, Any] = {}
    if scorer is not None:
        details = {
            "scored_by": opened.scored_by,
            "model": scorer.model.name,
            **({"other_model": scorer.multilingual_model.name} if scorer.multilingual_model else {}),
            "weights_sha256": scorer.model.weights_sha256,
            "precision": scorer.model.precision,
            "function": scorer.model.identity,
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
