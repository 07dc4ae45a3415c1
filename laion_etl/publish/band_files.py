"""Files of PDQ hashes by bands: records whose bands fall into the same slice are stored together.

Near hashes agree in at least one of `bits + 1` bands (blocklists/near_hashes.py), so it is enough to compare
hashes that agree in a band. For each band a file has all its records, cut into slices by a hash of the band's
value. A slice of all files together has about two million records, however many there are in all, and is read
into memory. At the end of a file is the number of records before each slice, and the CRC-32 of each slice.

A writer sorts a million records at a time and puts them into a temporary file (TMPDIR), from which the file
is written slice by slice: 110 MB of memory, and as much disk as the file takes.
"""

import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from laion_etl.blocklists.near_hashes import HASH_BYTES, Hashes, Ints, cuts, to_words
from laion_etl.blocklists.near_kernels import band_values
from laion_etl.core.errors import DamagedFileError
from laion_etl.core.kernels import Hashes as Words
from laion_etl.core.stage_stats import Output
from laion_etl.io.storage import NewFile, Store

# An image: `key` as a number (`key_numbers`), and whether others of the same hash are worse and left out.
IMAGE = np.dtype(
    [
        ("pdq", "u1", (HASH_BYTES,)),
        ("key", "<i8"),
        ("pixels", "<i8"),
        ("similarity", "<f4"),
        ("several", "u1"),
    ]
)
KNOWN = np.dtype([("pdq", "u1", (HASH_BYTES,))])  # an image of an earlier crawl
RECORDS_AT_ONCE = 1 << 20
_RECORDS_PER_SLICE = 1 << 21
_MIX = np.uint64(0x9E3779B97F4A7C15)
_KEY_DIGITS = 17

Records = NDArray[np.void]


class Division(Protocol):
    """How records are divided: `count` times into as many slices."""

    @property
    def count(self) -> int: ...

    @property
    def slices(self) -> int: ...

    def slices_of(self, records: Records, band: int) -> Ints:
        """Return the slice of each record in one of the divisions."""


@dataclass(frozen=True, slots=True)
class Bands:
    """How hashes are divided. `bits`: how many near hashes may differ in; `slices`: of each band."""

    bits: int
    slices: int

    @classmethod
    def for_records(cls, bits: int, records: int) -> "Bands":
        """Return bands for about this many records in total."""
        return cls(bits, max(-(-records // _RECORDS_PER_SLICE), 1))

    @property
    def count(self) -> int:
        return self.bits + 1

    def values(self, hashes: Hashes, band: int) -> Words:
        """Return a band of hashes as numbers."""
        firsts, widths = cuts(self.bits)
        return band_values(to_words(hashes), int(firsts[band]), int(widths[band]))

    def slices_of(self, records: Records, band: int) -> Ints:
        """Return the slice of each record by its hash."""
        mixed = (self.values(records["pdq"], band) * _MIX) >> np.uint64(32)
        return (mixed % np.uint64(self.slices)).astype(np.int64)


def key_numbers(keys: NDArray[np.bytes_]) -> Ints:
    """Return numbers that are in the order of the keys of samples, which have 14 or 17 digits."""
    if not len(keys):  # np.char.ljust looks for the longest
        return np.empty(0, np.int64)
    lengths = np.char.str_len(keys)
    return np.char.ljust(keys, _KEY_DIGITS, b"0").astype(np.int64) * 32 + lengths


class SliceSpool:
    """Records in a temporary file, from which a file is written slice by slice."""

    def __init__(self, division: Division, dtype: np.dtype[np.void]) -> None:
        self._division = division
        self._dtype = dtype
        self._starts: list[int] = []  # of each part, in records
        self._ends: list[Ints] = []  # of each slice of each band, likewise, for each part
        self.records = 0

    def __enter__(self) -> Self:
        self._sorted = tempfile.TemporaryFile()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._sorted.close()

    def add(self, records: Records) -> None:
        """Add records, at most `RECORDS_AT_ONCE`."""
        ends = []
        before = self.records * self._division.count
        for band in range(self._division.count):
            numbers = self._division.slices_of(records, band)
            order = np.argsort(numbers, kind="stable")
            self._sorted.write(records[order].tobytes())
            bounds = np.searchsorted(numbers[order], np.arange(self._division.slices), "right")
            ends.append(before + band * len(records) + bounds)
        self._starts.append(before)
        self._ends.append(np.concatenate(ends))
        self.records += len(records)

    def write_to(self, file: NewFile) -> None:
        """Write the slices, then the index."""
        self._sorted.flush()
        count = self._division.count * self._division.slices
        before, checksums = np.zeros(count + 1, "<u8"), np.zeros(count, "<u4")
        found = np.memmap(self._sorted, self._dtype, "r") if self.records else np.empty(0, self._dtype)
        starts = self._starts.copy()
        for number in range(count):
            parts = []
            for part, ends in enumerate(self._ends):
                parts.append(found[starts[part] : int(ends[number])].tobytes())
                starts[part] = int(ends[number])
            data = b"".join(parts)
            file.write(data)
            before[number + 1] = before[number] + len(data) // self._dtype.itemsize
            checksums[number] = zlib.crc32(data)
        file.write(before.tobytes() + checksums.tobytes())


class BandsWriter(SliceSpool):
    """Writes records of a type that has `pdq` to an open file, by bands."""

    def __init__(self, file: NewFile, bands: Bands, dtype: np.dtype[np.void]) -> None:
        super().__init__(bands, dtype)
        self._file = file

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self.write_to(self._file)
        finally:
            super().__exit__(kind, error, traceback)


@dataclass(frozen=True, slots=True)
class BandsFile:
    """Reads one slice after another."""

    output: Output
    bands: Division
    dtype: np.dtype[np.void]
    store: Store
    before: NDArray[np.uint64]
    checksums: NDArray[np.uint32]

    @classmethod
    def open(cls, output: Output, bands: Division, dtype: np.dtype[np.void], store: Store) -> "BandsFile":
        """Read the index of a file. Raises DamagedFileError if it has other bands."""
        count = bands.count * bands.slices
        size = 8 * (count + 1) + 4 * count
        data = store.read_range(output.name, max(output.bytes - size, 0), size)
        if len(data) == size:
            before = np.frombuffer(data, "<u8", count + 1)
            if int(before[-1]) * dtype.itemsize + size == output.bytes:
                checksums = np.frombuffer(data, "<u4", count, 8 * (count + 1))
                return cls(output, bands, dtype, store, before, checksums)
        raise _damaged(output, store)

    def count(self, band: int, number: int) -> int:
        """Return how many records a slice of a band has."""
        place = band * self.bands.slices + number
        return int(self.before[place + 1]) - int(self.before[place])

    def read(self, band: int, number: int) -> Records:
        """Read a slice of a band. Raises DamagedFileError."""
        count = self.count(band, number)
        return next(self.parts(band, number, count)) if count else np.empty(0, self.dtype)

    def parts(self, band: int, number: int, at_once: int) -> Iterator[Records]:
        """Yield a slice of a band in parts. Raises DamagedFileError, at its end if its content is damaged."""
        place = band * self.bands.slices + number
        start, end = (int(one) * self.dtype.itemsize for one in self.before[place : place + 2])
        checksum = 0
        for first in range(start, end, at_once * self.dtype.itemsize):
            size = min(at_once * self.dtype.itemsize, end - first)
            data = self.store.read_range(self.output.name, first, size)
            checksum = zlib.crc32(data, checksum)
            if len(data) != size or (first + size == end and checksum != self.checksums[place]):
                raise _damaged(self.output, self.store)
            yield np.frombuffer(data, self.dtype)


def _damaged(output: Output, store: Store) -> DamagedFileError:
    return DamagedFileError(
        f"cannot read {store.uri(output.name)}: it is not the file of its stats; publish the hashes of its "
        "range again"
    )
