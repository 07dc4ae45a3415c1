"""Records in temporary files (TMPDIR), which are read back in parts, or mapped."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from laion_etl.blocklists.near_hashes import Ints
from laion_etl.publish.band_files import IMAGE

STEP = 1 << 20


class Spool:
    """Records in a temporary file."""

    def __init__(self, file: IO[bytes], dtype: np.dtype[Any] = IMAGE) -> None:
        self._file = file
        self.dtype = dtype
        self.count = 0

    def add(self, records: NDArray[Any]) -> None:
        self._file.write(records.tobytes())
        self.count += len(records)

    def read(self) -> NDArray[Any]:
        """Return all records, mapped."""
        self._file.flush()
        if not self.count:
            return np.empty(0, self.dtype)
        return np.memmap(self._file, self.dtype, "r", shape=(self.count,))

    def parts(self, at_once: int | None = None) -> Iterator[NDArray[Any]]:
        """Yield the records in parts, which are read: what is mapped would count as memory of the process."""
        count = at_once or STEP
        for start in range(0, self.count, count):
            self._file.seek(start * self.dtype.itemsize)
            data = self._file.read(min(count, self.count - start) * self.dtype.itemsize)
            yield np.frombuffer(data, self.dtype)
        self._file.seek(0, 2)


def spools(count: int, dtype: np.dtype[Any], stack: ExitStack) -> list[Spool]:
    """Return empty spools."""
    return [Spool(stack.enter_context(tempfile.TemporaryFile()), dtype) for _ in range(count)]


def deal(records: NDArray[Any], numbers: Ints, to: Sequence[Spool]) -> None:
    """Add each record to the spool of its number."""
    order = np.argsort(numbers, kind="stable")
    bounds = np.searchsorted(numbers[order], np.arange(len(to) + 1))
    for number in np.unique(numbers).tolist():
        to[number].add(records[order[bounds[number] : bounds[number + 1]]])
