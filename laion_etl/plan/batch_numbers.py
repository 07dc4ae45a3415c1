"""Gives batches their numbers, each once and forever, whatever a database still remembers.

A number is the prefix of the crawl and six digits counted within the crawl. The prefix of CC-MAIN-2024-38 is
202438; that of a crawl with another name is a hash of the name, at least 300000, which no year and week
reaches. The store records which numbers are given, in `ids/<prefix>/NNN.json`: for every thousand numbers a
file with the crawl and, for each number, a digest of the batch's pairs in their order. So a batch with the
same pairs gets the same number again, after `db forget`, in another database or after a backup was restored;
one with other pairs never does.

Planners that work side by side each have a slot, numbers that no other one gives (slots.py). Slots may share
a file of the record; it is replaced only if it has not changed, and otherwise read again.

Refused: counting from the highest number in the database (a forgotten crawl or a second database begins
again), a number by hash of the pairs (six digits are too few for that), and a table of Postgres (it is lost
with the database). Two names whose hash is the same get neighbouring prefixes: the first to be planned in the
store has the hash, which makes one of 700,000 pairs of names depend on their order.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import pyarrow as pa

from laion_etl.core.errors import ChangedError, InputError
from laion_etl.core.formats import check_format
from laion_etl.core.ids import BATCHES_PER_CRAWL
from laion_etl.core.plain_json import NOT_AS_EXPECTED, parse_json
from laion_etl.core.quantities import quantity
from laion_etl.io.storage import Store
from laion_etl.plan.earlier_numbers import EarlierNumbers

FORMAT = 1
NUMBERS_PER_FILE = 1_000  # so that what a planner rewrites does not grow with the crawl
_FIRST_HASHED, _END = 300_000, 1_000_000
_YEAR_WEEK = re.compile(r"CC-MAIN-(20\d\d)-(\d\d)\Z")
_PLACE = re.compile(r"(\d{3})\.json\Z")
_READERS = 8


def prefixes(crawl: str) -> Iterator[int]:
    """Yield the prefix of a crawl, and those to take if another crawl has it."""
    if match := _YEAR_WEEK.match(crawl):
        yield int(match[1] + match[2])
        return
    span = _END - _FIRST_HASHED
    first = int.from_bytes(hashlib.sha256(crawl.encode()).digest()[:8]) % span
    yield from (_FIRST_HASHED + (first + step) % span for step in range(span))


def contents_digest(batch: pa.Table) -> str:
    """Return a digest of the pairs of a batch in their order, rows of BATCH_SCHEMA: 16 hexadecimal digits."""
    ids = batch["pair_id"].combine_chunks()
    width = ids.type.byte_width
    data = memoryview(ids.buffers()[1])[ids.offset * width : (ids.offset + len(ids)) * width]
    return hashlib.sha256(data).hexdigest()[:16]


class Taken(Protocol):
    """The batch numbers that a database has: no other batch gets them.

    Those of a slot are its planner's own.
    """

    def highest(self, first: int, last: int) -> int | None:
        """Return the highest number between two."""
        ...

    def among(self, numbers: Sequence[int]) -> set[int]:
        """Return those of some numbers that are taken."""
        ...


@dataclass(frozen=True, slots=True)
class Slot:
    """Consecutive numbers, empty if `last` is below `first`, that one planner gives."""

    first: int
    last: int

    def __len__(self) -> int:
        return max(0, self.last - self.first + 1)


@dataclass(frozen=True, slots=True)
class _Thousand:
    """A file of the record: digests of a thousand numbers, empty for one whose batch is unknown."""

    digests: tuple[str, ...] = ()
    etag: str | None = None  # None: not written yet


class BatchNumbers:
    """The numbers of a crawl."""

    def __init__(self, crawl: str, store: Store, taken: Taken) -> None:
        """Find the prefix of the crawl, recording it if the crawl is new to the store.

        Raises InputError if the record is invalid, or of a newer laion-etl.
        """
        self._crawl = crawl
        self._store = store
        self._taken = taken
        self.prefix = self._own_prefix()
        self.first = self.prefix * BATCHES_PER_CRAWL
        self.last = self.first + BATCHES_PER_CRAWL - 1
        self._known: EarlierNumbers | None = None

    def following(self) -> int:
        """Return the number after all that were ever given or reserved."""
        highest = self._taken.highest(self.first, self.last)
        following = self.first if highest is None else highest + 1
        if places := self._places():
            digests = self._thousand(places[-1]).digests
            following = max(following, self._start(places[-1]) + len(digests))
        return following

    def reserve(self, last: int) -> None:
        """Make `following` return a number above `last`: those up to it are given in slots."""
        place, index = divmod(last - self.first, NUMBERS_PER_FILE)
        while True:
            before = self._thousand(place)
            if len(before.digests) > index:
                return
            digests = [*before.digests, *[""] * (index + 1 - len(before.digests))]
            with suppress(ChangedError):
                self._swap(place, digests, before.etag)
                return

    def give(
        self,
        digests: Sequence[str],
        slot: Slot | None = None,
        before: int | None = None,
        taken: Taken | None = None,
    ) -> list[int]:
        """Return numbers for batches with these pairs, and record them.

        Batches get the numbers that they have below `before`, or have in the slot, and otherwise the next
        ones of the slot. `before` is the first number of all slots of the round, by default the slot's own;
        the default slot is all numbers that follow. `taken` replaces that of the crawl. The numbers are
        recorded before anyone writes a file under them, so that two planners that work on one store with
        different databases do not get the same. Raises InputError if the slot has none left.
        """
        while True:
            mine = slot or Slot(self.following(), self.last)
            record = self._record(mine)
            earlier = self._earlier(mine.first if before is None else before)
            given, new = self._assigned(digests, mine, record, earlier, taken or self._taken)
            with suppress(ChangedError):  # another planner has recorded some meanwhile
                self._write(new, record)
                return given

    def _assigned(
        self,
        digests: Sequence[str],
        slot: Slot,
        record: Mapping[int, _Thousand],
        earlier: EarlierNumbers,
        taken: Taken,
    ) -> tuple[list[int], dict[int, str]]:
        """Return numbers for batches, and the digests of those that are not recorded yet, ascending."""
        own: dict[str, int] = {}
        for one, digest in self._within(slot, record):
            own.setdefault(digest, one)
        before = [None if digest in own else earlier.number_of(digest) for digest in digests]
        used = taken.among([number for number in before if number is not None])
        highest = taken.highest(slot.first, slot.last)
        following = max([slot.first, *(number + 1 for number in own.values())])
        following = max(following, slot.first if highest is None else highest + 1)
        given: list[int] = []
        new: dict[int, str] = {}
        for digest, had in zip(digests, before, strict=True):
            number = own.get(digest, had)
            if number is None or number in used:
                number, following = following, following + 1
                new[number] = digest
            used.add(number)
            given.append(number)
        if following > slot.last + 1:
            raise self._no_number_left(len(digests), slot)
        return given, new

    def _no_number_left(self, batches: int, slot: Slot) -> InputError:
        if slot.last == self.last:
            return InputError(
                f"cannot plan {self._crawl}: its {BATCHES_PER_CRAWL:,} batch numbers are used up; plan "
                "larger batches (LAION_ETL_PLAN_BATCH_SIZE)"
            )
        return InputError(
            f"cannot plan {self._crawl}: a window of its pairs makes "
            f"{quantity(batches, 'batch', 'batches')}, and {len(slot):,} numbers, {slot.first} to "
            f"{slot.last}, are reserved for it; raise LAION_ETL_PLAN_BATCH_SIZE, and plan it again"
        )

    def _within(self, slot: Slot, record: Mapping[int, _Thousand]) -> Iterator[tuple[int, str]]:
        """Yield the numbers of a slot that are given, each with its digest."""
        for place, thousand in record.items():
            for number, digest in enumerate(thousand.digests, self._start(place)):
                if digest and slot.first <= number <= slot.last:
                    yield number, digest

    def _write(self, new: Mapping[int, str], record: Mapping[int, _Thousand]) -> None:
        """Record numbers. Raises ChangedError if another planner has recorded some meanwhile."""
        for place, numbers in groupby(new, lambda number: (number - self.first) // NUMBERS_PER_FILE):
            before = record.get(place, _Thousand())
            digests = list(before.digests)
            for number in numbers:
                index = number - self._start(place)
                digests += [""] * (index + 1 - len(digests))
                digests[index] = new[number]
            self._swap(place, digests, before.etag)

    def _record(self, slot: Slot) -> dict[int, _Thousand]:
        """Return the files of the record that a slot has numbers in, ascending."""
        low, high = ((number - self.first) // NUMBERS_PER_FILE for number in (slot.first, slot.last))
        return self._thousands(place for place in self._places() if low <= place <= high)

    def _earlier(self, before: int) -> EarlierNumbers:
        """Return the numbers that were given below `before`; they are read once."""
        if self._known is None or self._known.before != before:
            end = (before - self.first - 1) // NUMBERS_PER_FILE
            files = self._thousands(place for place in self._places() if place <= end)
            self._known = EarlierNumbers.of(before, self._within(Slot(self.first, before - 1), files))
        return self._known

    def _places(self) -> list[int]:
        folder = f"ids/{self.prefix}"
        names = (name.removeprefix(f"{folder}/") for name in self._store.list(folder))
        return [int(match[1]) for name in names if (match := _PLACE.match(name))]

    def _start(self, place: int) -> int:
        return self.first + place * NUMBERS_PER_FILE

    def _thousands(self, places: Iterable[int]) -> dict[int, _Thousand]:
        wanted = list(places)
        with ThreadPoolExecutor(_READERS) as pool:
            return dict(zip(wanted, pool.map(self._thousand, wanted), strict=True))

    def _thousand(self, place: int) -> _Thousand:
        name = _name(self.prefix, place)
        if (found := self._store.read_with_etag(name)) is None:
            return _Thousand()
        return _Thousand(_parse(found[0], self._store.uri(name))[1], found[1])

    def _swap(self, place: int, digests: Sequence[str], etag: str | None) -> None:
        self._store.swap(_name(self.prefix, place), _document(self._crawl, digests), etag)

    def _own_prefix(self) -> int:
        for prefix in prefixes(self._crawl):
            while True:
                if (found := self._store.read_with_etag(_name(prefix, 0))) is not None:
                    owner, _ = _parse(found[0], self._store.uri(_name(prefix, 0)))
                    if owner == self._crawl:
                        return prefix
                    break
                with suppress(ChangedError):
                    self._store.swap(_name(prefix, 0), _document(self._crawl, ()), None)
                    return prefix
        raise InputError(
            f"cannot number the batches of {self._crawl}: {self._store.uri('ids')} says that another crawl "
            "has its prefix; restore these files, or give the crawl another name"
        )


def _name(prefix: int, place: int) -> str:
    return f"ids/{prefix}/{place:03d}.json"


def _document(crawl: str, digests: Sequence[str]) -> bytes:
    plain = {"format": FORMAT, "crawl": crawl, "batches": list(digests)}
    return json.dumps(plain, indent=0).encode() + b"\n"


def _parse(data: bytes, uri: str) -> tuple[str, tuple[str, ...]]:
    """Return the crawl and the digests of a file of the record. Raises InputError if it is not one."""
    try:
        document = parse_json(data)
        check_format(uri, document.get("format"), FORMAT)
        return str(document["crawl"]), tuple(map(str, document["batches"]))
    except NOT_AS_EXPECTED as error:
        raise InputError(
            f"cannot read {uri}: it is not a record of batch numbers ({error}); restore it"
        ) from error
