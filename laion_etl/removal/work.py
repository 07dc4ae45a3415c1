"""The files that a removal has to rewrite, divided into ranges that processes work on side by side.

`removing/<id>/files.parquet` lists them by unit while a divided removal is not finished; a range that is done
has `removing/<id>/range-<i>-of-<n>.json` with what could not be read; `found/` has the pairs of rewritten
files of pairs (found_pairs.py); republish.py has files here, too. All but the lines of the list
(requested_lines.py) is deleted at the end, after `finished.json` is written, by which a repeated end knows
that nothing is left to rewrite. A removal that is not divided writes it, too: receipts are only written of
what is finished.
"""

import io
import json
import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from laion_etl.blocklists.removal_requests import Matcher, Request
from laion_etl.core.errors import InputError, MissingFileError
from laion_etl.core.formats import check_format
from laion_etl.core.parquet_bounds import BoundedParquet
from laion_etl.core.plain_json import NOT_AS_EXPECTED, parse_json
from laion_etl.core.stage_stats import fingerprint
from laion_etl.dataset.locator.units import BATCH_FOLDERS, unit_of
from laion_etl.dataset.rewrite import OnFound, blank_rows, rewrite_rows
from laion_etl.dataset.rewrite_shards import rewrite_scored, rewrite_shard
from laion_etl.io.storage import Store
from laion_etl.removal.found_pairs import FoundPairs, records_of, work_folder
from laion_etl.removal.requested_lines import lines_name
from laion_etl.removal.search import Failures, Progress
from laion_etl.settings import Settings

FORMAT = 1
_log = logging.getLogger(__name__)
UNITS_PER_RANGE = 50  # ten minutes at the size of a crawl: 600 MB per batch to read and to write
_UNITS_AT_ONCE = 4  # most of the time they wait for the store; each has a tar on disk twice, 0.6 GB
MOST_RANGES = 1_024  # of a mapped Airflow task
_PARQUET = ".parquet"
_STEPS = ("scored", "shards", "batches", "pairs")


@dataclass(frozen=True, slots=True)
class Work:
    """Names of files to rewrite, unit after unit, and what the search could not read."""

    request_id: str
    units: tuple[tuple[str, ...], ...]
    failures: tuple[str, ...] = ()

    @classmethod
    def of(cls, request: Request, names: Iterable[str], failures: Iterable[str]) -> "Work":
        """Group files by their crawl and unit."""
        units: dict[tuple[str, str], list[str]] = {}
        for name in names:
            units.setdefault((name.split("/")[1], unit_of(name)), []).append(name)
        ordered = (sorted(units[unit], key=lambda name: _STEPS.index(_kind(name))) for unit in sorted(units))
        return cls(request.id, tuple(map(tuple, ordered)), tuple(failures))

    def batches(self, crawl: str) -> frozenset[int]:
        """Return the batches of a crawl that have something to rewrite."""
        names = (name.split("/") for unit in self.units for name in unit)
        return frozenset(
            int(place.partition(".")[0])
            for folder, of, place in names
            if of == crawl and folder in BATCH_FOLDERS
        )

    @property
    def ranges(self) -> int:
        return min(-(-len(self.units) // UNITS_PER_RANGE), MOST_RANGES)

    @property
    def fingerprint(self) -> str:
        return fingerprint("removal work", self.request_id, self.units)

    def range(self, number: int, ranges: int) -> Sequence[tuple[str, ...]]:
        """Return the units of one range, counted from 1. Raises InputError for another number of ranges."""
        if ranges != self.ranges or not 1 <= number <= ranges:
            raise InputError(
                f"cannot rewrite range {number}/{ranges} of removal {self.request_id}: it has {self.ranges} "
                "ranges; take the ranges that --prepare names"
            )
        first, last = ((place * len(self.units)) // ranges for place in (number - 1, number))
        return self.units[first:last]


def rewrite_units(
    units: Sequence[Sequence[str]],
    request: Request,
    settings: Settings,
    store: Store,
    failures: Failures,
    on_file: Progress | None = None,
    *,
    record: bool = False,
) -> None:
    """Rewrite the files of units without what the request matches, several units at once.

    With `record` the pairs of each file of pairs, and the lines that match them, are recorded before it is
    rewritten; see `found_pairs`.
    """
    distance = settings.download.pdq_distance
    record_of = FoundPairs(request.id, distance, store) if record else None
    rewriter = _Rewriter(store, Matcher([request], distance), record_of)
    done, count = 0, sum(map(len, units))
    with ThreadPoolExecutor(_UNITS_AT_ONCE) as pool:
        try:
            for unit, failed in zip(units, pool.map(rewriter.rewrite, units), strict=True):
                failures.messages |= failed.messages
                done += len(unit)
                if on_file is not None:
                    on_file(done, count)
        except BaseException:
            pool.shutdown(cancel_futures=True)  # those that have begun end: each file is whole, old or new
            raise


@dataclass(frozen=True, slots=True)
class _Rewriter:
    """Rewrites units; `record`: records the pairs of a file, if that is wanted."""

    store: Store
    matcher: Matcher
    record: FoundPairs | None
    _one_file_of_pairs: Lock = field(default_factory=Lock)  # two gigabytes in memory

    def rewrite(self, unit: Sequence[str]) -> Failures:
        """Rewrite the files of a unit; returns what could not be read."""
        failures = Failures()
        for name in unit:
            with failures.collected(), self._one_file_of_pairs if _kind(name) == "pairs" else nullcontext():
                _rewrite(name, self.store, self.matcher, self._on_found(name))
        return failures

    def _on_found(self, name: str) -> OnFound | None:
        return partial(self.record.write, name) if self.record else None


def _rewrite(name: str, store: Store, matcher: Matcher, on_found: OnFound | None) -> None:
    stem = name.removesuffix(_PARQUET)
    match _kind(name):
        case "scored":
            rewrite_scored(stem, store, matcher)
        case "shards":
            rewrite_shard(stem, store, matcher)
        case "batches":
            blank_rows(name, store, matcher)
        case _:
            rewrite_rows(name, store, matcher, on_found)


def _kind(name: str) -> str:
    return name.partition("/")[0]


def write_work(work: Work, store: Store) -> None:
    """Record the work of a divided removal; ranges that were done of former work count no more."""
    folder = work_folder(work.request_id)
    for name in store.list(folder):
        if name.startswith((f"{folder}/range-", f"{folder}/publish")):
            store.delete(name)
    rows = [(number, name) for number, unit in enumerate(work.units) for name in unit]
    metadata = {"laion_etl.format": str(FORMAT), "failures": json.dumps(work.failures)}
    schema = pa.schema([("unit", pa.int32()), ("name", pa.string())], metadata)
    table = pa.table([[unit for unit, _ in rows], [name for _, name in rows]], schema=schema)
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    store.write(f"{work_folder(work.request_id)}/files.parquet", sink.getvalue())
    store.delete(_finished_name(work.request_id))


def read_work(request_id: str, store: Store) -> Work:
    """Read the work of a divided removal, empty once it is finished. Raises InputError if it never began."""
    name = f"{work_folder(request_id)}/files.parquet"
    if not store.exists(name) and store.exists(_finished_name(request_id)):
        return Work(request_id, ())
    try:
        table = BoundedParquet(io.BytesIO(store.read(name))).read()
        check_format(store.uri(name), int(table.schema.metadata[b"laion_etl.format"]), FORMAT)
        failures = tuple(map(str, parse_json(table.schema.metadata[b"failures"])))
        rows = [(int(row["unit"]), str(row["name"])) for row in table.select(["unit", "name"]).to_pylist()]
    except MissingFileError as error:
        raise InputError(
            f"cannot continue removal {request_id}: {store.uri(name)} does not exist; run "
            "`laion-etl dataset remove --prepare` with its list"
        ) from error
    except (pa.ArrowException, OSError, *NOT_AS_EXPECTED) as error:
        raise InputError(f"cannot read {store.uri(name)}: {error}; prepare the removal again") from error
    units: dict[int, list[str]] = {}
    for unit, file in rows:
        units.setdefault(unit, []).append(file)
    return Work(request_id, tuple(tuple(units[unit]) for unit in sorted(units)), failures)


def write_done(work: Work, number: int, failures: Failures, store: Store) -> None:
    """Record that a range is done, what could not be read, and which pairs were recorded."""
    names = (name for unit in work.range(number, work.ranges) for name in unit if _kind(name) == "pairs")
    document = {
        "format": FORMAT,
        "work": work.fingerprint,
        "failures": list(failures.messages),
        "found": records_of(work.request_id, names, store),
    }
    store.write(_done_name(work, number), json.dumps(document, indent=1).encode() + b"\n")


def failures_of(work: Work, number: int, store: Store) -> list[str] | None:
    """Return what a finished range could not read; None if it is not done, or its record is damaged."""
    name = _done_name(work, number)
    try:
        document: dict[str, Any] = parse_json(store.read(name))
        check_format(store.uri(name), document.get("format"), FORMAT)
        return [*map(str, document["failures"])] if document["work"] == work.fingerprint else None
    except MissingFileError:
        return None
    except NOT_AS_EXPECTED as error:
        _log.warning(
            "%s is not the record of a range (%s): the range counts as not done", store.uri(name), error
        )
        return None


def begin_again(request_id: str, store: Store) -> None:
    """Record that a removal is not finished, or not any more."""
    store.delete(_finished_name(request_id))


def is_finished(request_id: str, store: Store) -> bool:
    """Whether a removal has ended without failures, and has not begun again since."""
    return store.exists(_finished_name(request_id))


def end_work(request_id: str, store: Store) -> None:
    """Record that a removal is finished, and delete the records of its ranges if it was divided."""
    store.write(_finished_name(request_id), json.dumps({"format": FORMAT}).encode() + b"\n")
    store.delete(f"{work_folder(request_id)}/files.parquet")
    # Records of ranges go first: by them `found_pairs` misses those of pairs.
    for name in sorted(store.list(work_folder(request_id)), key=lambda name: "/range-" not in name):
        if name not in (_finished_name(request_id), lines_name(request_id)):
            store.delete(name)


def _finished_name(request_id: str) -> str:
    return f"{work_folder(request_id)}/finished.json"


def _done_name(work: Work, number: int) -> str:
    return f"{work_folder(work.request_id)}/range-{number:04d}-of-{work.ranges:04d}.json"
