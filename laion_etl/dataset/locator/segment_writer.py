"""Writes a segment of a locator: the keys of up to 65,536 units, sorted, in bounded memory.

A segment has four files; the stats are written last:

- `.keys`: buckets of entries (key, unit), a bucket for each value of the first `bucket_bits` bits of a key.
  A bucket has the next 32 bits of each key (little-endian uint32, ascending), then the unit of each (uint16).
  After the buckets comes the index: for each bucket how many entries are before it and the CRC-32 of its
  bytes, and at the end how many entries there are (uint32 each, counts first).
- `.pdq`: a record of 34 bytes per image: the PDQ hash, and its unit (uint16).
- `.parquet`: the files that each unit was read from, see units.py.
- `.json`: stats, with format, versions of the URL rule and bucket_bits.

Buckets have about 4,096 entries, 24 KiB, so a key is looked up with one read, and found by chance once in a
million. Entries are sorted in runs of 4 million, which are merged one part of the key space after another:
about 200 MB of memory, and on disk (TMPDIR) 10 bytes per entry.
"""

import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from laion_etl.blocklists.near_hashes import HASH_BYTES
from laion_etl.blocklists.near_hashes import Hashes as PdqHashes
from laion_etl.core.kernels import Hashes
from laion_etl.core.quantities import quantity
from laion_etl.core.stage_stats import Output, StageStats
from laion_etl.dataset.locator.keys import RowKeys
from laion_etl.io.storage import NewFile, Store
from laion_etl.urls import normalize

FORMAT = 1
FILES_SCHEMA = pa.schema(
    [
        pa.field("unit", pa.int32(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("tag", pa.string(), nullable=False),
    ]
)
PDQ_RECORD = np.dtype([("pdq", "u1", (HASH_BYTES,)), ("unit", "<u2")])
MOST_UNITS = 1 << 16
MOST_ENTRIES = 1 << 32
BUCKET_ENTRIES = 4_096
RUN_ENTRIES = 1 << 22


@dataclass(frozen=True, slots=True)
class _Entries:
    """Keys, and the unit of each; in a run ordered by both and distinct."""

    keys: Hashes
    units: NDArray[np.uint16]

    def part(self, start: int, end: int) -> "_Entries":
        return _Entries(self.keys[start:end], self.units[start:end])


class SegmentWriter:
    """Collects the keys of units, in ascending order of units; `finish` writes the files."""

    def __init__(self, stem: str, store: Store, run_entries: int = RUN_ENTRIES) -> None:
        self._stem = stem
        self._store = store
        self._run_entries = run_entries
        self._waiting: list[_Entries] = []
        self._waiting_entries = 0
        self._runs: list[_Entries] = []
        self._stack = ExitStack()
        self._pdq_rows, self._pdq_unit = 0, 0
        self._pdq_waiting: list[PdqHashes] = []
        self.rows = 0

    def __enter__(self) -> "SegmentWriter":
        self._pdq = self._stack.enter_context(tempfile.TemporaryFile())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._runs.clear()
        self._stack.close()

    def add(self, unit: int, found: RowKeys, rows: int) -> None:
        """Add the keys of some rows of a unit."""
        self._waiting.append(_Entries(found.keys, np.full(found.keys.size, unit, np.uint16)))
        self._waiting_entries += found.keys.size
        if unit != self._pdq_unit:
            self._end_unit()
            self._pdq_unit = unit
        self._pdq_waiting.append(found.pdq)
        self.rows += rows
        if self._waiting_entries >= self._run_entries:
            self._end_run()

    def finish(
        self, crawl: str, fingerprint: str, units: int, files: pa.Table, part: list[str]
    ) -> StageStats:
        """Write the files of the segment; `files` (FILES_SCHEMA) names what its units were read from."""
        self._end_run()
        self._end_unit()
        bits = _bucket_bits(_total(self._runs))
        with self._store.create(f"{self._stem}.keys") as keys:
            entries = _write_buckets(keys, self._runs, bits, self._run_entries)
        with self._store.create(f"{self._stem}.pdq") as pdq:
            _copy(self._pdq, pdq)
        with self._store.create(f"{self._stem}.parquet") as listed:
            pq.write_table(files, listed, compression="zstd")
        details = {
            "format": FORMAT,
            "url_rules": url_rules(),
            "slice": part,
            "bucket_bits": bits,
            "entries": entries,
            "images": self._pdq_rows,
            "units": units,
            "files": files.num_rows,
        }
        outputs: tuple[Output, ...] = (keys.output, pdq.output, listed.output)
        unit = self._stem.rpartition("/")[2]
        stats = StageStats("locate", crawl, unit, fingerprint, self.rows, self.rows, {}, outputs, details)
        self._store.write(f"{self._stem}.json", stats.to_json())
        return stats

    def _end_unit(self) -> None:
        """Write the PDQ hashes of a unit, each once: its shard and its scored shard have the same."""
        if self._pdq_waiting:
            hashes = np.unique(np.concatenate(self._pdq_waiting), axis=0)
            records = np.empty(len(hashes), PDQ_RECORD)
            records["pdq"], records["unit"] = hashes, self._pdq_unit
            self._pdq.write(records.tobytes())
            self._pdq_rows += len(records)
            self._pdq_waiting = []

    def _end_run(self) -> None:
        if not self._waiting_entries:
            return
        run = _ordered(self._waiting)
        self._waiting, self._waiting_entries = [], 0
        file = self._stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
        file.write(run.keys.tobytes() + run.units.tobytes())
        file.flush()
        count = len(run.keys)
        keys = np.memmap(file, np.uint64, "r", 0, (count,))
        self._runs.append(_Entries(keys, np.memmap(file, np.uint16, "r", 8 * count, (count,))))


def url_rules() -> list[int]:
    """Return the versions of the URL rule by whose forms links are hashed: today's, and earlier ones."""
    return sorted({*normalize.EARLIER_RULES, normalize.RULE_VERSION})


def _bucket_bits(entries: int) -> int:
    return max(entries // BUCKET_ENTRIES, 1).bit_length() - 1


def _total(runs: Sequence[_Entries]) -> int:
    return sum(len(run.keys) for run in runs)


def _ordered(parts: Sequence[_Entries]) -> _Entries:
    """Return the entries of parts by key and unit, each once; the units of the parts ascend."""
    keys = np.concatenate([part.keys for part in parts])
    units = np.concatenate([part.units for part in parts])
    order = np.argsort(keys, kind="stable")
    keys, units = keys[order], units[order]
    new = np.ones(len(keys), np.bool_)
    new[1:] = (keys[1:] != keys[:-1]) | (units[1:] != units[:-1])
    return _Entries(keys[new], units[new])


def _write_buckets(file: NewFile, runs: Sequence[_Entries], bits: int, at_once: int) -> int:
    """Merge the runs into buckets, and write the index after them; return how many entries there are."""
    counts, checksums = np.zeros((1 << bits) + 1, np.uint64), np.zeros(1 << bits, "<u4")
    for part in _parts(runs, at_once):
        numbers = _first_bits(part.keys, bits)
        short = (part.keys >> np.uint64(32 - bits)).astype("<u4")
        bounds = np.searchsorted(numbers, np.arange(int(numbers[0]), int(numbers[-1]) + 2))
        for place, bucket in enumerate(range(int(numbers[0]), int(numbers[-1]) + 1)):
            rows = slice(int(bounds[place]), int(bounds[place + 1]))
            data = short[rows].tobytes() + part.units[rows].tobytes()
            file.write(data)
            counts[bucket + 1] = rows.stop - rows.start
            checksums[bucket] = zlib.crc32(data)
    before = np.cumsum(counts)
    if before[-1] >= MOST_ENTRIES:
        raise ValueError(
            f"a segment cannot have {quantity(int(before[-1]), 'entry', 'entries')}; give it fewer units"
        )
    file.write(before.astype("<u4").tobytes() + checksums.tobytes())
    return int(before[-1])


def _first_bits(keys: Hashes, bits: int) -> Hashes:
    return keys >> np.uint64(64 - bits) if bits else np.zeros_like(keys)


def _parts(runs: Sequence[_Entries], at_once: int) -> Iterator[_Entries]:
    """Yield all entries by key and unit, in parts of about `at_once`, none cut within a bucket or empty."""
    total = _total(runs)
    bits = min(max(-(-total // at_once) - 1, 0).bit_length(), _bucket_bits(total))
    starts = [0] * len(runs)
    for number in range(1 << bits):
        last = np.uint64(((number + 1) << (64 - bits)) - 1)
        ends = [int(np.searchsorted(run.keys, last, "right")) for run in runs]
        if ends != starts:
            yield _ordered([run.part(*span) for run, *span in zip(runs, starts, ends, strict=True)])
        starts = ends


def _copy(source: IO[bytes], target: NewFile) -> None:
    source.seek(0)
    while data := source.read(1 << 22):
        target.write(data)
