"""The score stage: shards -> scored shards. One model load serves many shards.

Reads `shards/<crawl>/<batch>.tar|.parquet|_stats.json`; writes `scored/<crawl>/<batch>` with the endings
`.tar` (kept samples), `.parquet` (a row per sample, also the rejected), `_img_emb.npy` and `_text_emb.npy`
(float16, L2-normalised, row i = i-th kept key), and last `_stats.json`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from laion_etl.core.host_resources import usable_cores
from laion_etl.core.schemas import scored_stem, shard_stem
from laion_etl.core.stage_stats import StageStats, fingerprint
from laion_etl.io.storage import Store
from laion_etl.score.device_transfer import pinned
from laion_etl.score.encode import EncodeBatch, InFlightBatch, samples_at_once
from laion_etl.score.model import embedding_dim
from laion_etl.score.prefetch import prefetch
from laion_etl.score.preprocess_pool import Preparers
from laion_etl.score.scorer import SampleScorer, Scored, load_scorer
from laion_etl.score.shard_reader import chunked, shard_samples
from laion_etl.score.shard_writer import ShardWriter
from laion_etl.score.shared_tables import Plans
from laion_etl.settings import Settings, Stage, shaping

_GPU_BUFFERS = 7  # shared with a GPU: four being filled, three it works on


@dataclass(frozen=True, slots=True)
class Tools:
    """How to make a scorer and a pool of preparers: both are slow to start, so tests share theirs."""

    scorer: Callable[[Settings], SampleScorer] = load_scorer
    preparers: Callable[[Plans, int, int, int], AbstractContextManager[Preparers]] = Preparers


_OWN_TOOLS = Tools()


def score_shards(
    crawl: str,
    batches: Sequence[int],
    settings: Settings,
    store: Store,
    on_done: Callable[[StageStats], None] | None = None,
    tools: Tools = _OWN_TOOLS,
) -> list[StageStats]:
    """Scores shards one after the other; finished ones are returned without work, in order of `batches`.

    Raises ModelError when the model cannot be loaded, InputError naming a damaged shard, StorageError.
    """
    work = _ShardPipeline(crawl, batches, settings, store, tools)
    done = []
    with (
        work,
        prefetch(work.steps(), 1) as steps,
        prefetch(work.computing(steps), 1) as computing,
        prefetch(work.scored(computing), 1) as results,
    ):
        for stats in _written(results, store):
            done.append(stats)
            if on_done is not None:
                on_done(stats)
    return done


@dataclass(frozen=True, slots=True)
class _Opened:
    """A shard that is to be scored."""

    shard: StageStats
    fingerprint: str
    scorer: SampleScorer | None  # None: the shard has no samples
    dim: int


class _Closed:
    """The end of a shard."""


_Step = StageStats | _Opened | _Closed


class _ShardPipeline:
    """Reads, computes and scores, each step in its own thread; the model is loaded when first needed."""

    def __init__(
        self, crawl: str, batches: Sequence[int], settings: Settings, store: Store, tools: Tools
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
        """Yield the stats of each finished shard; of each other one its start, its batches and its end."""
        for batch in self._batches:
            shard = self._store.read_stats(f"{shard_stem(self._crawl, batch)}_stats.json")
            opened = self._open(shard)
            stats_name = f"{scored_stem(shard.crawl, batch)}_stats.json"
            if (finished := self._store.finished(stats_name, opened.fingerprint)) is not None:
                yield finished
                continue
            yield opened
            if opened.scorer is not None:
                for samples in chunked(shard_samples(shard, self._store), self._at_once):
                    yield opened.scorer.begin(samples, self.preparers)
            yield _Closed()

    def _open(self, shard: StageStats) -> _Opened:
        rules = shaping(self._settings, Stage.SCORE)
        if shard.kept == 0:  # no model needed: the scored shard is empty
            found = fingerprint("score", rules, "no samples", shard.outputs)
            return _Opened(shard, found, None, embedding_dim(self._settings.clip))
        found = fingerprint("score", rules, self.scorer.fingerprint, shard.outputs)
        return _Opened(shard, found, self.scorer, self.scorer.model.dim)

    def computing(self, steps: Iterator[_Step | EncodeBatch]) -> Iterator[_Step | InFlightBatch]:
        for step in steps:
            yield self.scorer.compute(step) if isinstance(step, EncodeBatch) else step

    def scored(self, steps: Iterator[_Step | InFlightBatch]) -> Iterator[_Step | list[Scored]]:
        for step in steps:
            yield self.scorer.score(step, self.preparers) if isinstance(step, InFlightBatch) else step


def _written(results: Iterator[_Step | list[Scored]], store: Store) -> Iterator[StageStats]:
    """Writes one shard after another; yields the stats of each once its files are in place."""
    for result in results:
        if isinstance(result, StageStats):
            yield result
        elif isinstance(result, _Opened):
            yield _write(result, results, store)


def _write(opened: _Opened, results: Iterator[_Step | list[Scored]], store: Store) -> StageStats:
    """Writes one scored shard from the results up to its `_Closed`."""
    stem = scored_stem(opened.shard.crawl, int(opened.shard.unit))
    store.delete(f"{stem}_stats.json")  # from here on the unit is not done, even if it was before
    with ShardWriter(store, stem) as writer:
        for result in results:
            if isinstance(result, _Closed):
                break
            if isinstance(result, list):
                for scored in result:
                    writer.add(scored)
        writer.finish(opened.dim, opened.scorer.columns if opened.scorer else ())
    return store.write_stats(f"{stem}_stats.json", _stats(opened, writer))


def _stats(opened: _Opened, writer: ShardWriter) -> StageStats:
    shard, scorer = opened.shard, opened.scorer
    details: dict[str, Any] = {}
    if scorer is not None:
        details = {
            "model": scorer.model.name,
            **({"other_model": scorer.multilingual_model.name} if scorer.multilingual_model else {}),
            "weights_sha256": scorer.model.weights_sha256,
            "precision": scorer.model.precision,
            "threshold_en": scorer.thresholds.english,
            "threshold_other": scorer.thresholds.other,
            "kept_nsfw_tags": dict(sorted(writer.tags.items())),
            "kept_subsets": dict(sorted(writer.subsets.items())),
            **({"columns": [column.to_plain() for column in scorer.columns]} if scorer.columns else {}),
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
