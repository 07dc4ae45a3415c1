"""Reads values of Thrift's compact protocol, in which parquet files describe themselves.

Its field numbers are those of parquet.thrift.
"""

from collections.abc import Iterator

import pyarrow as pa

I32, I64, BINARY, LIST, STRUCT = 5, 6, 8, 9, 12  # kinds of values
_STOP, _TRUE, _FALSE, _BYTE, _I16, _DOUBLE, _SET = 0, 1, 2, 3, 4, 7, 10
_WHOLE = (_I16, I32, I64)
_BITS = {I32: 32, I64: 64}
_MOST_NESTED = 16


class CompactReader:
    """Reads from `at` on. Raises IndexError where the data end, pa.ArrowInvalid for what is damaged.

    That is also what other readers may read in another way: a field given twice, a number too large for its
    kind. A field whose kind is not the expected one does not count, as for them.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def fields(self) -> Iterator[tuple[int, int]]:
        """Yield number and kind of each field of a struct; read or skip its value before the next one."""
        field, seen = 0, set()
        while kind := (byte := self._byte()) & 0x0F:
            field = field + (byte >> 4) if byte >> 4 else self._signed()
            if field in seen:
                raise pa.ArrowInvalid("what it says of itself is damaged")
            seen.add(field)
            yield field, kind

    def numbers(self) -> dict[int, int]:
        """Return the whole numbers in 32 bits of a struct, by field."""
        found = {}
        for field, kind in self.fields():
            if kind == I32:
                found[field] = self.number(kind)
            else:
                self.skip(kind)
        return found

    def texts(self) -> dict[int, bytes]:
        """Return the texts of a struct, by field."""
        found = {}
        for field, kind in self.fields():
            if kind == BINARY:
                found[field] = self.text()
            else:
                self.skip(kind)
        return found

    def text(self) -> bytes:
        """Return a text, or other bytes with their length."""
        length = self._unsigned()  # moves `at`
        self._move(length)
        return self._data[self.at - length : self.at]

    def count(self) -> int:
        """Return the number of values of a list."""
        return self._list()[0]

    def number(self, kind: int) -> int:
        """Return a whole number of a kind."""
        value, most = self._signed(), 1 << _BITS[kind] - 1
        if not -most <= value < most:
            raise pa.ArrowInvalid("what it says of itself is damaged")
        return value

    def _signed(self) -> int:
        value = self._unsigned()
        return value >> 1 ^ -(value & 1)

    def skip(self, kind: int, nested: int = 0) -> None:
        """Pass over a value."""
        if nested > _MOST_NESTED:
            raise pa.ArrowInvalid("what it says of itself is nested too deep")
        if kind in _WHOLE:
            self._unsigned()
        elif kind == BINARY:
            length = self._unsigned()  # moves `at`
            self._move(length)
        elif kind == STRUCT:
            for _, inner in self.fields():
                self.skip(inner, nested + 1)
        elif kind in (LIST, _SET):
            count, inner = self._list()
            for _ in range(count):
                self.skip(_BYTE if inner in (_TRUE, _FALSE) else inner, nested + 1)
        elif kind in (_BYTE, _DOUBLE):
            self._move(1 if kind == _BYTE else 8)
        elif kind not in (_TRUE, _FALSE):
            raise pa.ArrowInvalid("what it says of itself is damaged")

    def _list(self) -> tuple[int, int]:
        """Return number and kind of the values of a list."""
        byte = self._byte()
        return self._unsigned() if byte >> 4 == 15 else byte >> 4, byte & 0x0F

    def _move(self, count: int) -> None:
        if self.at + count > len(self._data):
            raise IndexError
        self.at += count

    def _byte(self) -> int:
        byte = self._data[self.at]
        self.at += 1
        return byte

    def _unsigned(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 0x80:
            value |= (byte & 0x7F) << shift
            shift += 7
            if shift > 63:
                raise pa.ArrowInvalid("what it says of itself is damaged")
        return value | byte << shift
