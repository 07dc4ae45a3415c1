"""What the segments of a JPEG file say about it without a decoder.

A JPEG may be stored unchanged, and without decoding it, where its segments show that a decoder takes it and
finds every pixel. libjpeg takes any entropy-coded data (it fills in what is damaged), so only the segments
decide: tables, frame, scans and end. What is unusual in them is left to a decoder.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice

from laion_etl.download.jpeg_segments import END, MAX_SCANS, SCAN, is_application, segments

_MAX_MCU_BLOCKS, _MAX_COMPONENTS_IN_SCAN = 10, 4
_INKS = 4
_MAX_TABLES = 4
_COEFFICIENTS, _BLOCK_PX = 64, 8
_MAX_DC_SYMBOL = 15
_MAX_SHIFT = 13

_HUFFMAN, _QUANTIZATION, _RESTARTS = 0xC4, 0xDB, 0xDD
_BASELINE, _EXTENDED, _PROGRESSIVE = 0xC0, 0xC1, 0xC2
_SHOW_WHAT_IS_MISSING = frozenset({_PROGRESSIVE, _RESTARTS})
_ARITHMETIC = frozenset({0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_MARKER = re.compile(rb"\xff[^\x00\x01\xd8\xff]")
_FIRST_RESTART, _RESTART_NUMBERS = 0xD0, 8


@dataclass(slots=True)
class _Component:
    """A colour component of the frame. `shifts`: the bits that are still missing of each coefficient."""

    width: int
    height: int
    table: int
    shifts: list[int] = field(default_factory=lambda: [_MAX_SHIFT + 1] * _COEFFICIENTS)

    @property
    def blocks(self) -> int:
        return self.width * self.height


class Structure:
    """What the segments so far have defined. `add` returns False where a decoder has to judge the file."""

    def __init__(self) -> None:
        self._quantization: set[int] = set()
        self._huffman: set[int] = set()  # 0 to 3 of DC, 16 to 19 of AC
        self._components: dict[int, _Component] = {}
        self._progressive = False
        self._scans = 0
        self._size = (0, 0)
        self._interval = 0  # between restart markers, in units that a scan is coded in
        self._is_whole = True  # has all restart markers

    @property
    def has_every_coefficient(self) -> bool:
        """Whether there was a whole scan for every bit of every coefficient of all components."""
        found = self._components.values()
        return self._is_whole and bool(found) and not any(any(component.shifts) for component in found)

    @property
    def least_bytes(self) -> int:
        """The fewest bytes that the pixels take: two codes for each block of a component, of a bit each.

        A progressive image has one for each block; of the others, many blocks may share one.
        """
        sides = max((one.width for one in self._components.values()), default=1)
        sides *= max((one.height for one in self._components.values()), default=1)
        width, height = self._size
        samples = width * height * sum(one.blocks for one in self._components.values()) // sides
        return samples // _COEFFICIENTS * (1 if self._progressive else 2) // 8

    @property
    def is_in_inks(self) -> bool:
        """Whether there are four components, which are CMYK in one notation or another."""
        return len(self._components) == _INKS

    def add(self, marker: int, data: bytes, start: int, end: int) -> bool:
        """Take note of a segment other than metadata."""
        body = data[start:end]
        if marker == _QUANTIZATION:
            return self._add_quantization(body)
        if marker == _HUFFMAN:
            found = _huffman_tables(body)
            self._huffman |= found
            return bool(found) or not body
        if marker in (_BASELINE, _EXTENDED, _PROGRESSIVE):
            return self._add_frame(body, progressive=marker == _PROGRESSIVE)
        if marker == SCAN:
            self._scans += 1
            scanned = self._add_scan(body) if self._scans <= MAX_SCANS else []
            self._is_whole &= bool(scanned) and self._has_restarts(data, end, self._units(scanned))
            return bool(scanned)
        if marker == _RESTARTS:
            self._interval = int.from_bytes(body, "big")
        return marker == _RESTARTS and len(body) == 2

    def _add_quantization(self, body: bytes) -> bool:
        while body:
            size = 1 + _COEFFICIENTS * (1 + (body[0] >> 4))
            if body[0] & 0xF >= _MAX_TABLES or body[0] >> 4 > 1 or len(body) < size:
                return False
            self._quantization.add(body[0] & 0xF)
            body = body[size:]
        return True

    def _add_frame(self, body: bytes, *, progressive: bool) -> bool:
        count = body[5]
        if self._components or body[0] != 8 or count not in (1, 3, _INKS) or len(body) != 6 + 3 * count:
            return False
        parts = [body[place : place + 3] for place in range(6, len(body), 3)]
        sides = [divmod(part[1], 16) for part in parts]
        for axis in zip(*sides, strict=True):
            if min(axis) < 1 or max(axis) > _MAX_TABLES or any(max(axis) % side for side in axis):
                return False
        self._components = {
            part[0]: _Component(*side, part[2]) for part, side in zip(parts, sides, strict=True)
        }
        self._progressive = progressive
        height, width = struct.unpack_from(">HH", body, 1)
        self._size = (width, height)
        return len(self._components) == count

    def _add_scan(self, body: bytes) -> list[_Component]:
        """Return the components of a scan; none where a decoder has to judge it."""
        count = body[0]
        if not 1 <= count <= _MAX_COMPONENTS_IN_SCAN or len(body) != 4 + 2 * count:
            return []
        chosen = [(body[place], body[place + 1]) for place in range(1, 1 + 2 * count, 2)]
        names = {name for name, _ in chosen}
        if len(names) < count or not names <= self._components.keys():
            return []
        found = [self._components[name] for name in names]
        if count > 1 and sum(one.blocks for one in found) > _MAX_MCU_BLOCKS:
            return []
        if any(one.table not in self._quantization for one in found):
            return []
        first, last, high, low = (*body[-3:-1], *divmod(body[-1], 16))
        if not self._progressive:
            first, last, high, low = 0, _COEFFICIENTS - 1, 0, 0
        elif not _is_progression(count, first, last, high, low):
            return []
        needed = {tables >> 4 for _, tables in chosen} if first == 0 and high == 0 else set()
        if last:
            needed |= {16 | tables & 0xF for _, tables in chosen}
        for one in found:
            one.shifts[first : last + 1] = [low] * (last + 1 - first)
        return found if needed <= self._huffman else []

    def _units(self, scanned: list[_Component]) -> int:
        """Return how many units a scan is coded in: blocks, or groups of blocks of several components."""
        widest = max(one.width for one in self._components.values())
        highest = max(one.height for one in self._components.values())
        alone = scanned[0] if len(scanned) == 1 else _Component(1, 1, 0)
        across = -(-self._size[0] * alone.width // (_BLOCK_PX * widest))
        return across * -(-self._size[1] * alone.height // (_BLOCK_PX * highest))

    def _has_restarts(self, data: bytes, start: int, units: int) -> bool:
        """Whether the data of a scan have all restart markers in order; libjpeg makes up for missing ones."""
        needed = max(0, -(-units // self._interval) - 1) if self._interval else 0
        found = 0
        for match in islice(_MARKER.finditer(data, start), needed):
            if data[match.end() - 1] != _FIRST_RESTART + found % _RESTART_NUMBERS:
                return False
            found += 1
        return found == needed


@lru_cache(maxsize=32)  # most files have one of a few
def _huffman_tables(body: bytes) -> frozenset[int]:
    """Returns the numbers of the tables of a segment; none where a decoder has to judge them."""
    found = set()
    while body:
        counts = body[1:17]
        symbols = body[17 : 17 + sum(counts)]
        if body[0] & 0xEF >= _MAX_TABLES or len(counts) < 16 or len(symbols) != min(sum(counts), 256):
            return frozenset()
        if body[0] < 16 and symbols and max(symbols) > _MAX_DC_SYMBOL:
            return frozenset()
        if not symbols or sum(count << (16 - bits) for bits, count in enumerate(counts, 1)) >= 1 << 16:
            return frozenset()  # more codes than there are of these lengths; that of only ones is not used
        found.add(body[0])
        body = body[17 + sum(counts) :]
    return frozenset(found)


def _is_progression(count: int, first: int, last: int, high: int, low: int) -> bool:
    """Whether libjpeg takes a progressive scan with these parameters."""
    band = last == 0 if first == 0 else first <= last < _COEFFICIENTS and count == 1
    return band and low <= _MAX_SHIFT and (high == 0 or low == high - 1)


def has_every_coefficient(data: bytes) -> bool:
    """Whether a JPEG has a scan for every bit of every coefficient, whatever its end."""
    structure = _structure(data)
    return structure is not None and structure.has_every_coefficient


def lacks_scans(data: bytes) -> bool:
    """Whether a JPEG has an end marker in the place of scans, or of parts between restart markers.

    Encoders write scans for every bit of every coefficient; without the last ones a decoder shows a blurred
    image. A file with anything unusual in it is not judged.
    """
    if _SHOW_WHAT_IS_MISSING.isdisjoint(_markers_up_to_scan(data)):
        return False
    structure = _structure(data)
    return structure is not None and not structure.has_every_coefficient


def lacks_bytes(data: bytes, pixels: int) -> bool:
    """Whether a JPEG is too short for its pixels; 4 kB that claim many keep a decoder busy for seconds."""
    if len(data) >= pixels // _COEFFICIENTS:  # more than any needs, and less than most have
        return False
    if not _ARITHMETIC.isdisjoint(_markers_up_to_scan(data)):
        return False
    structure = _structure(data)
    least = pixels // _COEFFICIENTS // 8 if structure is None else structure.least_bytes
    return least > len(data)


def _markers_up_to_scan(data: bytes) -> Iterator[int]:
    try:
        for marker, _, _ in segments(data):
            yield marker
            if marker == SCAN:
                return
    except (IndexError, struct.error):
        return


def _structure(data: bytes) -> Structure | None:
    """Returns what the segments define, up to where the file ends or is cut off; None for what is unusual."""
    structure, marker = Structure(), -1
    try:
        for marker, start, end in segments(data):
            if not is_application(marker) and marker != END and not structure.add(marker, data, start, end):
                return None
    except (IndexError, struct.error):
        return structure  # cut off behind the last scan
    return structure if marker in {SCAN, END} else None  # bytes between segments, which decoders skip
