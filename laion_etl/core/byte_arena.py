"""An arena allocator: one array holds all bytes of a batch; texts and URLs are spans (start, end) of it."""

import numpy as np

_SLACK = 128  # zero bytes after the data: kernels read whole blocks of words


class ByteArena:
    """A growing array of bytes; its views `data` and `words` are replaced when it grows."""

    def __init__(self, capacity: int) -> None:
        self.size = 0
        self._allocate(capacity)

    def _allocate(self, capacity: int) -> None:
        capacity = (capacity + _SLACK + 8) // 8 * 8
        self._capacity = capacity - _SLACK
        self._buffer = bytearray(capacity)
        self._view = memoryview(self._buffer)
        self.data = np.frombuffer(self._buffer, np.uint8)
        self.words = self.data.view(np.uint64)

    def clear(self) -> None:
        """Discards the contents."""
        self.size = 0

    def reserve(self, count: int) -> None:
        """Makes room for `count` more bytes; views taken earlier may then show the old array."""
        if self.size + count > self._capacity:
            old = self._view[: self.size]
            self._allocate(max(self.size + count, 2 * self.size))
            self._view[: self.size] = old

    def add(self, data: bytes | bytearray) -> tuple[int, int]:
        """Appends bytes and returns their span."""
        start, end = self.size, self.size + len(data)
        if end > self._capacity:
            self.reserve(len(data))
        self._view[start:end] = data
        self.size = end
        return start, end

    def bytes(self, start: int, end: int) -> bytes:
        """Returns a copy of a span."""
        return self._view[start:end].tobytes()

    def text(self, start: int, end: int) -> str:
        """Returns a span as a string; invalid UTF-8 becomes U+FFFD."""
        return self.bytes(start, end).decode(errors="replace")
