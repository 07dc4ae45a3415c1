"""Writes what the locator of a crawl lacks: a segment for those units of a slice that none covers.

A slice whose files are all covered costs its listing. One whose files have changed in part gets a further
segment; from the fourth on a slice is written as a whole again, and its former segments are deleted.
"""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from laion_etl.core.errors import DamagedFileError, InputError, MissingFileError
from laion_etl.core.parquet_bounds import BoundedParquet
from laion_etl.core.schemas import BATCH_FILES, DATASET_FILES, PAIR_FILES, SCORED_FILES, SHARD_FILES, pair_id
from laion_etl.core.stage_stats import fingerprint
from laion_etl.dataset.locator.keys import RowKeys, row_keys
from laion_etl.dataset.locator.segment_reader import Segment, read_files, read_segment
from laion_etl.dataset.locator.segment_writer import (
    FILES_SCHEMA,
    FORMAT,
    SegmentWriter,
    url_rules,
)
from laion_etl.dataset.locator.units import BATCHES, PUBLISHED, Slice, cover, files, slices, unit_of
from laion_etl.io.planned import planned_batches
from laion_etl.io.storage import Store

FEWEST_BATCHES = 500  # of a crawl that gets a locator when it is published; less is read in minutes
_MOST_SEGMENTS = 4  # of a slice
_ROWS_PER_READ = 1 << 16
_READERS = 4
_OF_IMAGES = ["pair_id", "url", "caption", "md5", "sha256", "pdq", "pdq_quality"]
_COLUMNS = {
    "pairs": (PAIR_FILES, ["pair_id", "url", "caption"]),
    "batches": (BATCH_FILES, ["pair_id", "url", "caption"]),
    "shards": (SHARD_FILES, _OF_IMAGES),
    "scored": (SCORED_FILES, _OF_IMAGES),
    "dataset": (DATASET_FILES, ["URL", "TEXT"]),
}
_log = logging.getLogger(__name__)

File = tuple[str, str]  # name and tag


class Located(NamedTuple):
    """Units whose keys were written, in how many segments, and units that were covered before."""

    units: int
    segments: int
    covered: int


def folder_of(crawl: str) -> str:
    return f"locator/{crawl}"


def locate_large(crawl: str, store: Store) -> None:
    """Do what `locate` does, if the crawl has so many batches that a locator is worth while."""
    if _is_large(crawl, store):
        locate(crawl, store)


def locate_written(crawl: str, number: int, ranges: int, written: Sequence[File], store: Store) -> None:
    """Write what the locator of a large crawl lacks of one of the ranges that it is published in.

    `written`: the published files of the range with their tags. No manifest lists them before all ranges are
    merged, so they get a segment of their own, instead of the one that the range had for another version.
    """
    if not _is_large(crawl, store):
        return
    parts = [part for part in slices(crawl, store) if part.kind != PUBLISHED]
    for part in parts[number - 1 :: ranges]:
        locate_slice(crawl, part, store)
    own = Slice(f"{PUBLISHED}-{number:05d}")
    former = [one for one in read_segments(crawl, store) if _belongs(one, own)]
    covered = {one for segment in former for one in covers(segment, store)}
    if all(cover(*file) in covered for file in written):
        return
    units = [[file] for file in sorted(written)]
    stem = _renamed(crawl, own, units, former, store) or _write_segment(crawl, own, units, store)
    for segment in former:
        if segment.stem != stem:
            delete_segment(segment.stem, store)


def _is_large(crawl: str, store: Store) -> bool:
    try:
        return len(planned_batches(crawl, store)) >= FEWEST_BATCHES
    except MissingFileError:
        return False


def locate(crawl: str, store: Store, number: int = 1, ranges: int = 1) -> Located:
    """Write what the locator of a crawl lacks, or its part of that as one of several ranges, from 1.

    The slices of all ranges together are those of the crawl, however many ranges there are.
    """
    found = [locate_slice(crawl, part, store) for part in slices(crawl, store)[number - 1 :: ranges]]
    return Located(*(sum(counts) for counts in zip((0, 0, 0), *found, strict=True)))


def locate_slice(crawl: str, part: Slice, store: Store) -> Located:
    """Write a segment for the units of a slice that have files which no segment covers.

    A file that cannot be read is named in a warning and stays uncovered, so that removals read it.
    """
    known = read_segments(crawl, store)
    former = [one for one in known if _belongs(one, part)]
    by_range = [one for one in known if part.kind == PUBLISHED and _is_of_range(one)]
    covered = {one for segment in (*former, *by_range) for one in covers(segment, store)}
    units: dict[str, list[File]] = {}
    for name, tag in files(crawl, part, store):
        units.setdefault(unit_of(name), []).append((name, tag))
    missing = [unit for unit, found in units.items() if any(cover(*file) not in covered for file in found)]
    if not missing:
        return Located(0, 0, len(units))
    whole = len(former) >= _MOST_SEGMENTS - 1
    chosen = sorted(units if whole else missing)
    written = _write_segment(crawl, part, [units[unit] for unit in chosen], store)
    if whole:
        for segment in former:
            if segment.stem != written:
                delete_segment(segment.stem, store)
    return Located(len(chosen), 1, len(units) - len(chosen))


def read_segments(crawl: str, store: Store) -> list[Segment]:
    """Read the segments of a crawl that can be used; the others are named in the log."""
    names = [file.name for file in store.files(folder_of(crawl)) if file.name.endswith(".json")]
    with ThreadPoolExecutor(_READERS) as pool:
        found = list(pool.map(lambda name: read_segment(name.removesuffix(".json"), store), names))
    return [segment for segment in found if segment is not None]


def covers(segment: Segment, store: Store) -> list[int]:
    """Return the numbers of the files that a segment covers; none, with a warning, if it is damaged."""
    try:
        table = read_files(segment, store)
    except (DamagedFileError, MissingFileError) as error:
        _log.warning("%s", error)
        return []
    return [cover(*file) for file in zip(table["name"].to_pylist(), table["tag"].to_pylist(), strict=True)]


def delete_segment(stem: str, store: Store) -> None:
    """Delete the files of a segment, the stats first: without them the others do not count."""
    for ending in (".json", ".keys", ".pdq", ".parquet"):
        store.delete(stem + ending)


def _belongs(segment: Segment, part: Slice) -> bool:
    kind, first = segment.slice
    return kind == part.kind and part.holds(first)


def _is_of_range(segment: Segment) -> bool:
    """Whether a segment is about the files that a range published, see `locate_written`."""
    return segment.slice[0].startswith(f"{PUBLISHED}-")


def _renamed(
    crawl: str, part: Slice, units: Sequence[Sequence[File]], former: Sequence[Segment], store: Store
) -> str:
    """Write the segment of files that are copies of those of a former one, which is not read; '' if none is.

    A removal copies the files of ranges that hold nothing of it. Tags of published files are their digests.
    """
    listed = [(number, *file) for number, unit in enumerate(units) for file in unit]
    for segment in former:
        try:
            table = read_files(segment, store)
            if [*zip(*map(pa.ChunkedArray.to_pylist, (table["unit"], table["tag"])), strict=True)] != [
                (number, tag) for number, _, tag in listed
            ]:
                continue
            made_from = _made_from(part, units)
            stem = _stem(crawl, part, made_from)
            kept = [replace(segment.output(ending), name=stem + ending) for ending in (".keys", ".pdq")]
            for ending, output in zip((".keys", ".pdq"), kept, strict=True):
                store.copy(segment.output(ending), output.name)
        except (DamagedFileError, MissingFileError) as error:
            _log.warning("%s", error)
            continue
        with store.create(f"{stem}.parquet") as file:
            files = pa.table([*map(list, zip(*listed, strict=True))], schema=FILES_SCHEMA)
            pq.write_table(files, file, compression="zstd")
        details = {**segment.stats.details, "slice": [part.kind, unit_of(units[0][0][0])]}
        stats = replace(
            segment.stats,
            unit=stem.rpartition("/")[2],
            fingerprint=made_from,
            outputs=(*kept, file.output),
            details=details,
        )
        store.write(f"{stem}.json", stats.to_json())
        return stem
    return ""


def _made_from(part: Slice, units: Sequence[Sequence[File]]) -> str:
    return fingerprint("locate", FORMAT, url_rules(), part.kind, units)


def _stem(crawl: str, part: Slice, made_from: str) -> str:
    return f"{folder_of(crawl)}/{part.kind}-{made_from}"


def _write_segment(crawl: str, part: Slice, units: Sequence[Sequence[File]], store: Store) -> str:
    """Write the segment of some units; return its name. The same files give the same name and bytes."""
    made_from = _made_from(part, units)
    stem = _stem(crawl, part, made_from)
    listed: list[tuple[int, str, str]] = []
    readers = _READERS if part.kind == BATCHES else 1  # pairs of a partition are many
    with SegmentWriter(stem, store) as writer, ThreadPoolExecutor(readers) as pool:
        numbered = ((number, file) for number, unit in enumerate(units) for file in unit)
        for number, file, reading in _ahead(numbered, pool, readers, store):
            try:
                found = reading.result()
            except (InputError, DamagedFileError, MissingFileError) as error:
                _log.warning("removal requests will read this file, as it is not in the locator: %s", error)
                continue
            for keys, rows in found:
                writer.add(number, keys, rows)
            listed.append((number, *file))
        columns = list(zip(*listed, strict=True)) or [(), (), ()]
        table = pa.table([*columns], schema=FILES_SCHEMA)
        first = unit_of(units[0][0][0])
        writer.finish(crawl, made_from, len(units), table, [part.kind, first])
    return stem


def _ahead(
    numbered: Iterator[tuple[int, File]], pool: ThreadPoolExecutor, count: int, store: Store
) -> Iterator[tuple[int, File, "Future[list[tuple[RowKeys, int]]]"]]:
    """Yield files in order while the next ones are read."""
    begun = [
        (number, file, pool.submit(_keys_of, file[0], store)) for number, file in islice(numbered, count)
    ]
    while begun:
        yield begun.pop(0)
        begun += [
            (number, file, pool.submit(_keys_of, file[0], store)) for number, file in islice(numbered, 1)
        ]


def _keys_of(name: str, store: Store) -> list[tuple[RowKeys, int]]:
    kind = name.partition("/")[0]
    history, columns = _COLUMNS[kind]
    with store.open(name) as file:
        try:
            parquet = BoundedParquet(file)
            history.check_number(parquet.schema_arrow, store.uri(name))
            chosen = history.former_names(columns, parquet.schema_arrow)
            has = [one for one in chosen if one in parquet.schema_arrow.names]
            batches = parquet.iter_batches(_ROWS_PER_READ, has)
            return [(row_keys(_named(kind, rows)), rows.num_rows) for rows in batches]
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"cannot read {store.uri(name)}: {error}; run its stage again") from error


def _named(kind: str, rows: pa.RecordBatch) -> pa.RecordBatch:
    """Return rows with the names that keys go by; published ones with their pair ids."""
    if kind != "dataset":
        return rows.rename_columns(["caption" if name == "alt" else name for name in rows.schema.names])
    urls, texts = rows.column("URL"), rows.column("TEXT")
    ids = [pair_id(url, text) for url, text in zip(urls.to_pylist(), texts.to_pylist(), strict=True)]
    return pa.record_batch([pa.array(ids, pa.binary(16)), urls, texts], names=["pair_id", "url", "caption"])
