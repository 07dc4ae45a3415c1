"""Slices of hashes that are compared, kept in the store until all are.

Comparing the images of a hundred million published rows takes a quarter of an hour, and a pod may be lost at
any time. So what a slice connects is written when it is known: a comparison that was killed goes on with the
slices that are left, in this or in another pod, and ends with the same bytes. Only the last step,
which decides on what all slices have connected, starts over; it takes a few minutes at most.

A checkpoint has the records of near images and of known ones, then the format, their numbers and a CRC-32. It
appears complete, and its name has the fingerprint of what is compared: one that was made from other files is
not used. A task for each band was refused: they would leave the same files, and one more task would read all
of them.
"""

import logging
import struct
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, count

import numpy as np

from laion_etl.core.errors import MissingFileError
from laion_etl.io.storage import Store
from laion_etl.publish.band_files import IMAGE, Records

FORMAT = 1
_END = struct.Struct("<IQQI")  # format, numbers of records, CRC-32 of all
_DELETED_AT_ONCE = 16
_log = logging.getLogger(__name__)

Compared = tuple[Records, Records]


@dataclass(frozen=True, slots=True)
class ComparedSlices:
    """The checkpoints of one comparison, in a folder of their own."""

    folder: str
    made_from: str
    store: Store
    dtype: np.dtype[np.void] = IMAGE

    def once(self, band: int, number: int, compare: Callable[[], Compared]) -> Compared:
        """Return what a slice connects: as it was written, or else as `compare` returns it."""
        name = self._name(band, number)
        if (found := self._read(name)) is None:
            found = compare()
            self._write(name, found)
        return found

    def parts(self, band: int, number: int, compare: Callable[[], Iterator[Compared]]) -> Iterator[Compared]:
        """Yield what a slice connects in parts: as they were written, or else as `compare` yields them.

        An empty part is the end. If one is not there, all are compared again; what was read is not yielded
        twice.
        """
        read: list[int] = []  # checksums
        for part in count():
            if (found := self._read(self._name(band, number, part))) is None:
                break
            if not any(map(len, found)):
                return
            read.append(_checksum(found))
            yield found
        last = np.empty(0, self.dtype), np.empty(0, self.dtype)
        parts = (found for found in compare() if any(map(len, found)))
        for part, found in enumerate(chain(parts, [last])):
            if part < len(read) and _checksum(found) == read[part]:
                continue
            self._write(self._name(band, number, part), found)
            yield found

    def _name(self, band: int, number: int, part: int | None = None) -> str:
        of = "" if part is None else f"-{part:06}"
        return f"{self.folder}/{self.made_from}-{band:02}-{number:05}{of}.slice"

    def delete(self) -> None:
        """Delete all checkpoints, also those made from other files."""
        names = self.store.list(self.folder)
        with ThreadPoolExecutor(_DELETED_AT_ONCE) as pool:
            list(pool.map(self.store.delete, names))

    def _read(self, name: str) -> Compared | None:
        try:
            data = self.store.read(name)
        except MissingFileError:
            return None
        content, end = memoryview(data)[: -_END.size], data[-_END.size :]
        pairs, known = _END.unpack(end)[1:3] if len(end) == _END.size else (0, 0)
        if end == _END.pack(FORMAT, pairs, known, zlib.crc32(content)):
            records = np.frombuffer(content, self.dtype)
            return records[:pairs], records[pairs:]
        _log.warning("%s is not a whole checkpoint; its slice is compared again", self.store.uri(name))
        return None

    def _write(self, name: str, found: Compared) -> None:
        with self.store.create(name) as file:
            for records in found:
                file.write(records.tobytes())
            file.write(_END.pack(FORMAT, len(found[0]), len(found[1]), _checksum(found)))


def _checksum(found: Compared) -> int:
    checksum = 0
    for records in found:
        checksum = zlib.crc32(records.tobytes(), checksum)
    return checksum
