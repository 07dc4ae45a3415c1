"""Output of the score stage for a crawl: which batches are complete, and their rows as a stream."""

import io
import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import BinaryIO

import pyarrow as pa

from laion_etl.core.errors import DamagedFileError, InputError, MissingFileError, NewerFormatError
from laion_etl.core.head_columns import HeadColumn, from_plain, has_columns, merged
from laion_etl.core.ids import INDEX_DIGITS, batch_name, batch_of_stats
from laion_etl.core.parquet_bounds import BoundedParquet
from laion_etl.core.schemas import SCORED_FILES, scored_stem
from laion_etl.core.stage_stats import UNFINISHED, Output, StageStats
from laion_etl.dataset.coverage import Coverage, digest_of_scores, number_ranges
from laion_etl.dataset.model_text import distinct_models, model_text, other_model_text
from laion_etl.io.planned import planned_batches
from laion_etl.io.storage import Store

_READERS = 8  # stats files are small: reading them is mostly waiting
_READ_AHEAD = 4  # parquet files of batches, a few megabytes each, that are held while one is worked on
_log = logging.getLogger(__name__)
_ROWS_PER_READ = 8_192


@dataclass(frozen=True, slots=True)
class ScoredBatch:
    """A finished batch of the score stage."""

    number: int
    kept: int
    outputs: tuple[Output, ...]
    model: str
    columns: tuple[HeadColumn, ...] = ()  # of custom heads
    dropped: Mapping[str, int] = field(default_factory=dict)
    safety: str = ""  # where its safety tags come from; '' if its stats do not say
    fingerprint: str = ""
    thresholds: tuple[float, float] | None = None  # for English, for other languages; None likewise
    other_model: str = ""  # of other languages; '' if `model` scored them, too


@dataclass(frozen=True, slots=True)
class ScoredCrawl:
    """The complete batches of a crawl, ascending.

    `planned`: number of batches in the plan, None without a plan. `missing`: planned, not scored yet.
    `unplanned`: scored, but no longer in the plan (from an earlier run); they are not read.
    `damaged`: those of the missing ones that have stats, which cannot be used.
    `partitions`: number expected, None if unknown; `missing_partitions`: those not loaded.
    """

    crawl: str
    batches: tuple[ScoredBatch, ...]
    planned: int | None
    missing: tuple[int, ...]
    unplanned: tuple[int, ...]
    partitions: int | None = None
    missing_partitions: tuple[int, ...] = ()
    damaged: tuple[int, ...] = ()

    @property
    def kept(self) -> int:
        return sum(batch.kept for batch in self.batches)

    @property
    def models(self) -> tuple[str, ...]:
        """The CLIP models that scored it, sorted; scores of different models are not comparable."""
        return distinct_models(batch.model for batch in self.batches)

    @property
    def other_models(self) -> tuple[str, ...]:
        """The CLIP models of other languages, if there were any, sorted."""
        return distinct_models(batch.other_model for batch in self.batches)

    @property
    def safety(self) -> tuple[str, ...]:
        """Where the safety tags come from, a text for each set of prompts and heads."""
        return tuple(sorted({batch.safety for batch in self.batches if batch.safety}))

    @property
    def columns(self) -> tuple[HeadColumn, ...]:
        """The columns of custom heads. Raises InputError where batches were scored by different heads."""
        try:
            return merged(column for batch in self.batches for column in batch.columns)
        except ValueError as error:
            raise InputError(
                f"cannot publish {self.crawl}: its batches have the column {error} from different heads; "
                "score the crawl again"
            ) from error

    @property
    def coverage(self) -> Coverage:
        """Which batches these are, and which are missing."""
        return Coverage(
            self.crawl,
            tuple(number_ranges(batch.number for batch in self.batches)),
            self.planned,
            self.missing,
            self.unplanned,
            self.partitions,
            self.missing_partitions,
            self.damaged,
            self.models,
            self.columns,
            self.safety,
            tuple(sorted({batch.thresholds[0] for batch in self.batches if batch.thresholds})),
            tuple(sorted({batch.thresholds[1] for batch in self.batches if batch.thresholds})),
            digest_of_scores((batch.number, batch.fingerprint) for batch in self.batches),
            self.other_models,
            sum(not batch.other_model for batch in self.batches),
        )

    def shard_name(self, batch: int, suffix: str) -> str:
        """Return the name in the store of a file of a scored batch, such as its `.tar`."""
        return scored_stem(self.crawl, batch) + suffix


def find_scored(crawl: str, store: Store) -> ScoredCrawl:
    """Find the batches of a crawl that can be published. Raises InputError if there are none.

    A batch whose stats are damaged, of a newer format, or those of another one, is missing.
    """
    folder = f"scored/{crawl}"
    numbers = [number for name in store.list(folder) if (number := batch_of_stats(name)) is not None]
    with ThreadPoolExecutor(_READERS) as pool:
        read = pool.map(lambda number: read_batch_stats(crawl, number, store), numbers)
        found = {number: batch for number, batch in zip(numbers, read, strict=True) if batch is not None}
    planned = _planned(crawl, store)
    wanted = set(numbers) if planned is None else planned
    batches = tuple(found[number] for number in sorted(wanted & set(found)))
    if not batches:
        raise InputError(
            f"cannot find a scored batch of {crawl}: {store.uri(folder)} has none; run "
            f"`laion-etl stage score --crawl {crawl}` first"
        )
    return ScoredCrawl(
        crawl,
        batches,
        None if planned is None else len(planned),
        tuple(sorted(wanted - set(found))),
        tuple(sorted(set(found) - wanted)),
        damaged=tuple(sorted(wanted & set(numbers) - set(found))),
    )


def scored_among(crawl: str, numbers: Sequence[int], store: Store) -> ScoredCrawl:
    """Find which of some planned batches can be published, with a request for each, several at a time.

    There may be none. Scored batches that are not planned are not looked for, which would take a listing.
    """
    with ThreadPoolExecutor(_READERS) as pool:
        read = list(pool.map(lambda number: read_batch_stats(crawl, number, store), numbers))
        missing = tuple(number for number, found in zip(numbers, read, strict=True) if found is None)
        there = pool.map(lambda number: store.exists(f"{scored_stem(crawl, number)}_stats.json"), missing)
        damaged = tuple(number for number, exists in zip(missing, there, strict=True) if exists)
    batches = tuple(batch for batch in read if batch is not None)
    return ScoredCrawl(crawl, batches, len(numbers), missing, (), damaged=damaged)


def read_batch_stats(crawl: str, number: int, store: Store) -> ScoredBatch | None:
    """Return a scored batch; None where its stats are missing, damaged or those of another one."""
    name = f"{scored_stem(crawl, number)}_stats.json"
    try:
        stats = store.read_stats(name)
    except (DamagedFileError, NewerFormatError, MissingFileError) as error:  # missing: deleted meanwhile
        _log.warning("batch %d of %s counts as not scored: %s", number, crawl, error)
        return None
    if (stats.crawl, stats.unit) != (crawl, batch_name(number)):
        _log.warning(
            "batch %d of %s counts as not scored: %s has the stats of %s %s; score the batch again",
            number, crawl, store.uri(name), stats.crawl, stats.unit,
        )  # fmt: skip
        return None
    return None if stats.fingerprint == UNFINISHED else _batch(number, stats)


def _batch(number: int, stats: StageStats) -> ScoredBatch:
    model = model_text(stats.details)
    columns = from_plain(stats.details.get("columns", ()))
    return ScoredBatch(
        number, stats.kept, stats.outputs, model, columns, stats.dropped, _safety(stats),
        stats.fingerprint, _thresholds(stats), other_model_text(stats.details),
    )  # fmt: skip


def _thresholds(stats: StageStats) -> tuple[float, float] | None:
    found = [stats.details.get(name) for name in ("threshold_en", "threshold_other")]
    english, other = (float(one) if isinstance(one, int | float) else None for one in found)
    return None if english is None or other is None else (english, other)


def _safety(stats: StageStats) -> str:
    """Return where the tags of a batch come from, and whether that was ever measured."""
    safety = stats.details.get("safety")
    prompts = safety.get("prompts") if isinstance(safety, dict) else None
    if not isinstance(safety, dict) or not isinstance(prompts, dict):
        return ""
    name, provenance, validation = (str(prompts.get(key, "")) for key in ("name", "provenance", "validation"))
    head = f" punsafe comes from a trained head ({safety['nsfw_head']})." if safety.get("nsfw_head") else ""
    return f"Prompts {name}: {provenance} {validation}{head}"


def _planned(crawl: str, store: Store) -> set[int] | None:
    try:
        return set(planned_batches(crawl, store))
    except MissingFileError:
        return None


def read_batches(scored: ScoredCrawl, store: Store) -> Iterator[tuple[ScoredBatch, Iterator[pa.RecordBatch]]]:
    """Yield every batch with its rows (see `read_batch`), while the files of the next ones are read."""
    ahead: deque[tuple[ScoredBatch, Future[bytes]]] = deque()
    with ThreadPoolExecutor(_READ_AHEAD) as pool:
        try:
            for batch in scored.batches:
                name = scored.shard_name(batch.number, ".parquet")
                ahead.append((batch, pool.submit(store.read, name)))
                if len(ahead) > _READ_AHEAD:
                    yield _with_rows(scored, *ahead.popleft(), store)
            while ahead:
                yield _with_rows(scored, *ahead.popleft(), store)
        finally:
            pool.shutdown(cancel_futures=True)


def _with_rows(
    scored: ScoredCrawl, batch: ScoredBatch, data: Future[bytes], store: Store
) -> tuple[ScoredBatch, Iterator[pa.RecordBatch]]:
    return batch, _rows(scored, batch, io.BytesIO(data.result()), store)


def read_batch(scored: ScoredCrawl, batch: ScoredBatch, store: Store) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a scored batch, kept and rejected, in key order, a few thousand at a time.

    They have the columns of SCORED_SCHEMA, null where an earlier version wrote the file without them. Raises
    InputError if the file does not match its stats, or its keys are not ascending keys of this batch (the
    dataset's ids are made from them).
    """
    with store.open(scored.shard_name(batch.number, ".parquet")) as file:
        yield from _rows(scored, batch, file, store)


def _rows(scored: ScoredCrawl, batch: ScoredBatch, file: BinaryIO, store: Store) -> Iterator[pa.RecordBatch]:
    name = scored.shard_name(batch.number, ".parquet")
    advice = f"delete {store.uri(scored.shard_name(batch.number, '_stats.json'))} and score the batch again"
    kept, last = 0, batch_name(batch.number)
    try:
        parquet = BoundedParquet(file)
        written_by = SCORED_FILES.check(parquet.schema_arrow, store.uri(name), advice)
        if not has_columns(parquet.schema_arrow, batch.columns):
            raise InputError(
                f"cannot read {store.uri(name)}: it does not have the columns of a scored shard; {advice}"
            )
        for found in parquet.iter_batches(_ROWS_PER_READ):
            rows = found if written_by == SCORED_FILES.number else _upgraded(found)
            kept += rows.column("reason").null_count
            if not _ascending(last, rows, batch_name(batch.number)):
                raise InputError(
                    f"cannot read {store.uri(name)}: keys are out of order or of other batches; {advice}"
                )
            last = rows.column("key")[-1].as_py()
            yield rows
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"cannot read {store.uri(name)}: {error}; {advice}") from error
    if kept != batch.kept:
        raise InputError(
            f"cannot read {store.uri(name)}: it keeps {kept} rows, its stats say {batch.kept}; {advice}"
        )


def _upgraded(rows: pa.RecordBatch) -> pa.RecordBatch:
    table = SCORED_FILES.upgraded(pa.Table.from_batches([rows])).combine_chunks()
    return table.to_batches()[0]


def _ascending(last: str, rows: pa.RecordBatch, prefix: str) -> bool:
    """Whether the keys ascend strictly, starting above `last`, and are keys of the batch, `prefix`."""
    keys = [last, *rows.column("key").to_pylist()]
    whole = {len(key) for key in keys[1:]} <= {len(prefix) + INDEX_DIGITS}
    return whole and all(one < other for one, other in pairwise(keys)) and keys[-1].startswith(prefix)
