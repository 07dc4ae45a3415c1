"""Runs of gzip members that are read as one stream, because a record may begin in one and end in another.

RFC 1952 2.2: the content of a file is that of its members, one after the other. Writers of WAT files give
each record a member of its own; others split head and body, or cut the stream into equal blocks.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from laion_etl.core.byte_arena import ByteArena
from laion_etl.core.kernels import Ints, Longs
from laion_etl.parse.gzip_members import MAX_MEMBER_BYTES, Members
from laion_etl.parse.warc_records import NoRecord, WarcRecord, begins_a_record, split_records


@dataclass(slots=True)
class MemberRun:
    """Bytes of consecutive members, and for each of these its row in the batch, its offset and its place.

    A row of -1 is a member of an earlier batch.
    """

    data: bytearray
    rows: list[int]
    offsets: list[int]
    starts: list[int]

    def add(self, row: int, offset: int, data: bytes) -> None:
        """Appends a member."""
        self.rows.append(row)
        self.offsets.append(offset)
        self.starts.append(len(self.data))
        self.data += data

    def place(self, position: int) -> tuple[int, int]:
        """Returns row and offset of the member that has the byte at this position."""
        member = bisect_right(self.starts, position) - 1
        return self.rows[member], self.offsets[member]

    def rest(self, position: int) -> "MemberRun | None":
        """Returns what begins at a position, for the next batch; None if it is too long for a record."""
        if len(self.data) - position > MAX_MEMBER_BYTES:
            return None
        return MemberRun(self.data[position:], [-1], [self.place(position)[1]], [0])


def member_runs(
    rest: MemberRun | None,
    arena: ByteArena,
    members: tuple[Ints, Ints, Longs],
    rows: list[int],
    after_damage: Collection[int],
) -> list[MemberRun]:
    """Returns the runs among some members of a batch, given by their rows in ascending order.

    A member that begins with a record, or comes after a damaged one, begins a run; others continue the run of
    the member before. `rest` is what the batch before left. `members` are starts and ends in the arena, and
    offsets in the file.
    """
    starts, ends, offsets = members
    runs = [] if rest is None else [rest]
    previous = -1
    for row in rows:
        data = arena.bytes(int(starts[row]), int(ends[row]))
        if not runs or row != previous + 1 or row in after_damage or begins_a_record(data):
            runs.append(MemberRun(bytearray(), [], [], []))
        runs[-1].add(row, int(offsets[row]), data)
        previous = row
    return runs


def spans_of(group: Members) -> tuple[Ints, Ints]:
    """Returns where the members of a group begin and end in the arena."""
    ends = group.ends
    return np.concatenate([np.zeros(min(1, ends.size), np.int32), ends[:-1]]), ends


class RunRecords:
    """The records in runs of members, batch by batch: one that goes on in the next batch waits for it."""

    def __init__(self) -> None:
        self._rest: MemberRun | None = None

    @property
    def has_rest(self) -> bool:
        """Whether the last batch ended within a record."""
        return self._rest is not None

    def records(
        self,
        arena: ByteArena,
        members: tuple[Ints, Ints, Longs],
        rows: list[int],
        after_damage: Collection[int],
        *,
        ended: bool,
    ) -> Iterator[tuple[tuple[int, int], WarcRecord | NoRecord]]:
        """Yields the records in some members of a batch, each with its place: row, and offset in the file.

        The arguments are those of `member_runs`. `ended`: nothing follows.
        """
        size = members[0].size
        runs = member_runs(self._rest, arena, members, rows, after_damage)
        ends_open = bool(rows) and rows[-1] == size - 1 and not ended and size not in after_damage
        self._rest = None
        for run in runs:
            for record in split_records(bytes(run.data)):
                is_cut = isinstance(record, WarcRecord) and not record.is_whole
                if is_cut and ends_open and run is runs[-1]:
                    self._rest = run.rest(record.start)
                    if self._rest is not None:
                        break
                yield run.place(record.start), record

    def rest_records(self) -> Iterator[tuple[tuple[int, int], WarcRecord | NoRecord]]:
        """Yields what is left after the last batch."""
        rest, self._rest = self._rest, None
        if rest is not None:
            for record in split_records(bytes(rest.data)):
                yield rest.place(record.start), record
