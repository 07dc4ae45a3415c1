"""Encoded texts, in memory up to a number of bytes, and beyond that in an unlinked file on the local disk."""

import mmap
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import IO

import numpy as np

from laion_etl.core.text_columns import read_only
from laion_etl.database.kernels import Bytes

BYTES_IN_MEMORY = 1 << 29


@dataclass(slots=True)
class TextBuffer:
    """Bytes that are added at the end of `memory`, and moved to a file when it is full.

    `used`: bytes in memory. `written`: bytes in the file.
    """

    memory: Bytes = field(default_factory=lambda: np.empty(0, np.uint8))
    used: int = 0
    written: int = 0
    _file: IO[bytes] | None = None
    _is_closed: bool = False

    @property
    def content(self) -> Bytes:
        """What memory holds, or after `finish` all bytes; read-only."""
        if self._is_closed:
            raise ValueError(
                "cannot read the texts of pairs: they are closed; use them in the with statement"
            )
        return read_only(self.memory)

    @property
    def has_file(self) -> bool:
        """Whether some bytes were moved to the file."""
        return self._file is not None

    def is_full(self, size: int) -> bool:
        """Whether `size` bytes more are too many for memory; what it holds has to be moved before."""
        return self.used > 0 and self.used + size > BYTES_IN_MEMORY

    def room(self, size: int, expected: int) -> Bytes:
        """Returns the memory, with room for `size` bytes more; at first for all bytes that are expected."""
        if self.used + size <= len(self.memory):
            return self.memory
        wanted = 3 * self.used // 2 if self.used else expected
        larger = _memory(max(min(wanted + wanted // 16, BYTES_IN_MEMORY), self.used + size))
        larger[: self.used] = self.memory[: self.used]
        self.memory = larger
        return larger

    def move(self, pieces: Iterable[Bytes] | None = None) -> None:
        """Moves what memory holds to the file, or these pieces of it in its place."""
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="laion_etl-pairs-")  # noqa: SIM115 - closed by `close`
        for piece in [self.content[: self.used]] if pieces is None else pieces:
            self._file.write(piece.data)
            self.written += len(piece)
        self.used = 0

    def finish(self) -> None:
        """Ends the adding: all bytes can be read, those of the file as if they were in memory."""
        if self._file is None:
            return
        self._file.flush()
        if self.written:
            mapped = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
            self.memory = np.frombuffer(mapped, np.uint8)
        self._file.close()  # the mapping keeps the file

    def close(self) -> None:
        """Frees the memory and the disk."""
        self.memory, self._is_closed = np.empty(0, np.uint8), True
        if self._file is not None:
            self._file.close()


def _memory(size: int) -> Bytes:
    """Returns memory in small pages.

    NumPy asks for huge ones, for which the kernel may first have to move others: filling 200 MB took up to
    three times as long.
    """
    return np.frombuffer(mmap.mmap(-1, size), np.uint8)
