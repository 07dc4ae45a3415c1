"""Counts of streams in bounded memory: frequent values, repeated values, and points on a grid.

Each reports its own error. They are exact up to their size limits, which small datasets do not reach.
Sketches of parts of a stream merge into one of the whole, of the same size and with the same bound of its
error; `to_plain` and `from_plain` carry them from process to process.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_MAX_VALUES = 100_000
_MAX_SAMPLED = 65_536
_HASH_DIGITS = 16  # of a hexadecimal digest: 64 bits
_HASHES = 1 << 64


class Tally:
    """Counts of text values, the frequent ones exact to within `error`.

    Past 100,000 distinct values the median count is taken off all and what has nothing left is forgotten
    (the summary of Misra and Gries, which merges batches: Agarwal et al., Mergeable summaries, 2012). A count
    is then at most `error` too low, and never too high; `error` is at most 2 / 100,000 of all counted.
    """

    def __init__(self, max_values: int = _MAX_VALUES) -> None:
        self._counts: Counter[str] = Counter()
        self._max_values = max_values
        self.error = 0

    @property
    def complete(self) -> bool:
        """Whether no value was forgotten: counts and their number are exact."""
        return self.error == 0

    def add(self, values: pa.Array | pa.ChunkedArray) -> None:
        if isinstance(values, pa.ChunkedArray):
            values = values.combine_chunks()
        counted = pc.value_counts(values)
        pairs = zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True)
        for value, count in pairs:
            if value is not None:
                self._counts[value] += count
        self._forget()

    def merge(self, other: "Tally") -> None:
        """Add the counts of another part of the stream; the errors add up, within the same share of all."""
        self._counts.update(other._counts)
        self.error += other.error
        self._forget()

    def to_plain(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"counts": dict(self._counts), "error": self.error}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Read what `to_plain` returned. Raises KeyError, TypeError or ValueError."""
        tally = cls()
        tally._counts.update({str(value): int(count) for value, count in plain["counts"].items()})
        tally.error = int(plain["error"])
        return tally

    def _forget(self) -> None:
        if len(self._counts) <= self._max_values:
            return
        ordered = sorted(self._counts.values(), reverse=True)
        taken = ordered[self._max_values // 2]
        self.error += taken
        self._counts = Counter({v: count - taken for v, count in self._counts.items() if count > taken})

    def top(self, count: int | None = None) -> list[tuple[str, int]]:
        """Return values and counts, most frequent first, ties by name."""
        ordered = sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))
        return ordered if count is None else ordered[:count]

    def __len__(self) -> int:
        """Number of distinct values; a lower bound if values were forgotten."""
        return len(self._counts)


class Repeats:
    """How many values occur how often, from their hashes (hexadecimal digests).

    Keeps hashes below a limit and halves the limit when there are more than 65,536: a sample of the distinct
    values, each with its true count (Gibbons and Tirthapura, 2001). `factor` is the number of distinct values
    that each kept one represents; 1 means exact.
    """

    def __init__(self, max_sampled: int = _MAX_SAMPLED) -> None:
        self._counts: Counter[int] = Counter()
        self._max_sampled = max_sampled
        self._limit = _HASHES
        self.factor = 1

    def add(self, digests: pa.Array | pa.ChunkedArray) -> None:
        """Add digests; empty ones and nulls are ignored."""
        starts = [digest[:_HASH_DIGITS] for digest in digests.to_pylist() if digest]
        hashes = np.frombuffer(bytes.fromhex("".join(starts)), ">u8")
        values, counts = np.unique(hashes[hashes <= np.uint64(self._limit - 1)], return_counts=True)
        self._counts.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        while len(self._counts) > self._max_sampled:
            self._lower_limit(self.factor * 2)

    def merge(self, other: "Repeats") -> None:
        """Add another part of the stream; the result is that of one pass over both."""
        self._lower_limit(max(self.factor, other.factor))
        self._counts.update({v: count for v, count in other._counts.items() if v < self._limit})
        while len(self._counts) > self._max_sampled:
            self._lower_limit(self.factor * 2)

    def to_plain(self) -> dict[str, Any]:
        """Return plain JSON values: the hashes that occur once, and the others with their counts."""
        return {
            "factor": self.factor,
            "once": sorted(v for v, count in self._counts.items() if count == 1),
            "repeated": sorted((v, count) for v, count in self._counts.items() if count > 1),
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Read what `to_plain` returned. Raises KeyError, TypeError or ValueError."""
        repeats = cls()
        repeats._lower_limit(int(plain["factor"]))
        repeats._counts.update({int(value): 1 for value in plain["once"]})
        repeats._counts.update({int(value): int(count) for value, count in plain["repeated"]})
        return repeats

    def _lower_limit(self, factor: int) -> None:
        if factor == self.factor:
            return
        self.factor, self._limit = factor, _HASHES // factor
        self._counts = Counter({v: count for v, count in self._counts.items() if v < self._limit})

    def by_count(self) -> list[tuple[int, int]]:
        """Return (times, number of values that occur so often), ascending; estimated if `factor` > 1."""
        times = Counter(self._counts.values())
        return [(count, values * self.factor) for count, values in sorted(times.items())]


class HexGrid:
    """Points counted in hexagons: two lattices of centres, and each point goes to the nearest."""

    def __init__(self, low: float, high: float, width: float) -> None:
        self._low, self._high = low, high
        self.width = width
        columns = round((high - low) / width) + 2
        lines = round((high - low) / (width * math.sqrt(3))) + 2
        self._counts = np.zeros((2, columns, lines), np.int64)

    def add(self, x: Floats, y: Floats) -> None:
        """Add points; those outside are counted at the edge."""
        across = (np.clip(x, self._low, self._high) - self._low) / self.width
        up = (np.clip(y, self._low, self._high) - self._low) / (self.width * math.sqrt(3))
        first, second = (np.rint(across), np.rint(up)), (np.floor(across), np.floor(up))
        to_first = (across - first[0]) ** 2 + 3 * (up - first[1]) ** 2
        to_second = (across - second[0] - 0.5) ** 2 + 3 * (up - second[1] - 0.5) ** 2
        lattice = (to_second < to_first).astype(np.intp)
        column, row = (np.where(lattice, *pair).astype(np.intp) for pair in zip(second, first, strict=True))
        np.add.at(self._counts, (lattice, column, row), 1)

    def merge(self, other: "HexGrid") -> None:
        """Add the points of another grid of the same size."""
        self._counts += other._counts

    def to_plain(self) -> list[list[int]]:
        """Return plain JSON values: the hexagons that have points, as lattice, column, line and count."""
        return [[*map(int, place), int(self._counts[tuple(place)])] for place in np.argwhere(self._counts)]

    def add_plain(self, plain: list[list[int]]) -> None:
        """Add what `to_plain` of a grid of the same size returned. Raises ValueError or IndexError."""
        for lattice, column, row, count in plain:
            self._counts[lattice, column, row] += count

    def cells(self) -> Iterator[tuple[float, float, int]]:
        """Yield centre and count of every hexagon that has points."""
        for lattice, column, row in np.argwhere(self._counts):
            x = self._low + (column + lattice / 2) * self.width
            y = self._low + (row + lattice / 2) * self.width * math.sqrt(3)
            yield float(x), float(y), int(self._counts[lattice, column, row])
