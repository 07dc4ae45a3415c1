"""The score stage: shards -> scored shards. One model load serves many shards.

Reads `shards/<crawl>/<batch>.tar|.parquet|_stats.json`; writes `scored/<crawl>/<batch>` with the endings
`.tar` (kept samples), `.parquet` (a row per sample, also the rejected), `_img_emb.npy` and `_text_emb.npy`
(float16, L2-normalised, row i = i-th kept key), and last `_stats.json`.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from laion_etl.errors import InputError
from laion_etl.funnel import Outcomes, ScoreReason
from laion_etl.machine import usable_cores
from laion_etl.records import (
    SCORED_SCHEMA,
    Output,
    StageStats,
    batch_name,
    fingerprint,
    scored_stem,
    shard_stem,
)
from laion_etl.score.model import embedding_dim
from laion_etl.score.samples import Row, chunked, read_samples
from laion_etl.score.scorer import Floats, Scored, Scorer, load_scorer
from laion_etl.settings import Settings
from laion_etl.storage import NewFile, Store
from laion_etl.tarshard import finish, write_member

_NOTED_DIGITS = 6  # of scores in the samples' JSON


def score_shards(
    crawl: str,
    batches: Sequence[int],
    settings: Settings,
    store: Store,
    on_done: Callable[[StageStats], None] | None = None,
) -> list[StageStats]:
    """Scores shards one after the other; finished ones are returned without work, in order of `batches`.

    Raises ModelError when the model can't be loaded, InputError naming a damaged shard, StorageError.
    """
    scorer = None
    done = []
    with ThreadPoolExecutor(usable_cores(), thread_name_prefix="decode") as pool:
        for batch in batches:
            shard = store.read_stats(f"{shard_stem(crawl, batch)}_stats.json")
            if shard.kept == 0:
                stats = _score_nothing(shard, settings, store)
            else:
                scorer = scorer or load_scorer(settings)
                stats = _score_shard(shard, settings, store, scorer, pool)
            done.append(stats)
            if on_done is not None:
                on_done(stats)
    return done


def _score_nothing(shard: StageStats, settings: Settings, store: Store) -> StageStats:
    """A shard without a single sample needs no model: its scored shard is empty."""
    dim = embedding_dim(settings.clip)
    mark = fingerprint(settings.clip, settings.safety, "no samples", shard.outputs)
    stem = scored_stem(shard.crawl, int(shard.unit))
    finished = store.finished(f"{stem}_stats.json", mark)
    if finished is not None:
        return finished
    with _ShardWriter(store, stem) as writer:
        writer.finish(dim)
    stats = StageStats("score", shard.crawl, shard.unit, mark, 0, 0, outputs=writer.outputs)
    return store.write_stats(f"{stem}_stats.json", stats)


def _score_shard(
    shard: StageStats, settings: Settings, store: Store, scorer: Scorer, pool: ThreadPoolExecutor
) -> StageStats:
    crawl, batch = shard.crawl, int(shard.unit)
    mark = fingerprint(settings.clip, settings.safety, scorer.identity, shard.outputs)
    stats_name = f"{scored_stem(crawl, batch)}_stats.json"
    finished = store.finished(stats_name, mark)
    if finished is not None:
        return finished
    store.delete(stats_name)  # from here on the unit is not done, whatever was there
    stem = shard_stem(crawl, batch)
    parquet, tar = (_output(shard, stem + ending) for ending in (".parquet", ".tar"))
    samples = read_samples(store, parquet, tar, shard.kept)
    with _ShardWriter(store, scored_stem(crawl, batch)) as writer:
        for chunk in chunked(samples, settings.clip.batch_size):
            for scored in scorer.score(chunk, pool):
                writer.add(scored)
        writer.finish(scorer.model.dim)
    return store.write_stats(stats_name, _stats(crawl, batch, mark, shard.kept, writer, scorer))


def _output(shard: StageStats, name: str) -> Output:
    for output in shard.outputs:
        if output.name == name:
            return output
    raise InputError(
        f"the stats of shard {shard.unit} of {shard.crawl} do not name {name}; download it again"
    )


def _stats(
    crawl: str, batch: int, mark: str, samples: int, writer: "_ShardWriter", scorer: Scorer
) -> StageStats:
    return StageStats(
        stage="score",
        crawl=crawl,
        unit=batch_name(batch),
        fingerprint=mark,
        input=samples,
        kept=writer.outcomes.kept,
        dropped=writer.outcomes.dropped,
        outputs=writer.outputs,
        details={
            "model": scorer.model.name,
            "weights_sha256": scorer.model.weights_sha256,
            "threshold_en": scorer.thresholds.english,
            "threshold_other": scorer.thresholds.other,
            "kept_nsfw_tags": dict(sorted(writer.tags.items())),
            "kept_subsets": dict(sorted(writer.subsets.items())),
        },
    )


class _ShardWriter:
    """The four data files of a scored shard; they appear together when the block ends without an error."""

    def __init__(self, store: Store, stem: str) -> None:
        self._store = store
        self._stem = stem
        self._stack = ExitStack()
        self._rows: list[Row] = []
        self._images: list[Floats] = []
        self._texts: list[Floats] = []
        self._files: list[NewFile] = []
        self.outcomes: Outcomes[ScoreReason] = Outcomes()
        self.tags: Counter[str] = Counter()
        self.subsets: Counter[str] = Counter()

    def __enter__(self) -> "_ShardWriter":
        endings = (".tar", ".parquet", "_img_emb.npy", "_text_emb.npy")
        with ExitStack() as stack:
            self._files = [stack.enter_context(self._store.create(self._stem + end)) for end in endings]
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    @property
    def outputs(self) -> tuple[Output, ...]:
        return tuple(file.output for file in self._files)

    def add(self, scored: Scored) -> None:
        """Takes the next sample, in key order."""
        self._rows.append(scored.sample.row | scored.columns)
        if scored.reason is not None:
            self.outcomes.drop(scored.reason)
            return
        self.outcomes.keep()
        self.tags[scored.columns["nsfw_tag"]] += 1
        self.subsets[scored.columns["subset"]] += 1
        self._images.append(_half(scored.image_embedding))
        self._texts.append(_half(scored.text_embedding))
        for ending, data in _members(scored):
            write_member(self._files[0], f"{scored.sample.key}.{ending}", data)

    def finish(self, dim: int) -> None:
        """Ends the tar and writes parquet and embeddings."""
        tar, parquet, images, texts = self._files
        finish(tar)
        pq.write_table(pa.Table.from_pylist(self._rows, SCORED_SCHEMA), parquet, compression="zstd")
        for file, rows in ((images, self._images), (texts, self._texts)):
            matrix = np.stack(rows) if rows else np.empty((0, dim), np.float16)
            np.save(file, matrix, allow_pickle=False)


def _half(embedding: Floats | None) -> Any:
    if embedding is None:
        raise ValueError("a kept sample has embeddings")
    return embedding.astype(np.float16)


def _members(scored: Scored) -> list[tuple[str, bytes]]:
    """Picture and text unchanged, the JSON with the scores added."""
    noted = {
        name: round(value, _NOTED_DIGITS) if isinstance(value, float) else value
        for name, value in scored.columns.items()
        if name != "reason"
    }
    notes = (scored.sample.notes or {}) | noted
    written = json.dumps(notes, sort_keys=True, ensure_ascii=False).encode()
    image = scored.sample.image
    pictures = [image] if image else []
    return [*pictures, ("txt", scored.sample.members["txt"]), ("json", written)]
