"""Gives batches their numbers, each once and forever, whatever a database still remembers.

A number is the prefix of the crawl and six digits counted within the crawl. The prefix of CC-MAIN-2024-38 is
202438; that of a crawl with another name is a hash of the name, at least 300000, which no year and week
reaches. The store records which numbers are given, in `ids/<prefix>/NNN.json`: for every thousand numbers a
file with the crawl and, for each number, a digest of the batch's pairs in their order. So a batch with the
same pairs gets the same number again, after `db forget`, in another database or after a backup was restored;
one with other pairs never does.

Refused: counting from the highest number in the database (a forgotten crawl or a second database begins
again), a number by hash of the pairs (six digits are too few for that), and a table of Postgres (it is lost
with the database). Two names whose hash is the same get neighbouring prefixes: the first to be planned in the
store has the hash, which makes one of 700,000 pairs of names depend on their order.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby

import pyarrow as pa

from laion_etl.core.errors import ChangedError, InputError
from laion_etl.core.formats import check_format
from laion_etl.core.ids import BATCHES_PER_CRAWL
from laion_etl.io.storage import Store

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


@dataclass(frozen=True, slots=True)
class _Thousand:
    """A file of the record: digests of a thousand numbers, empty for one whose batch is unknown."""

    digests: tuple[str, ...] = ()
    etag: str | None = None  # None: not written yet


class BatchNumbers:
    """The numbers of a crawl."""

    def __init__(self, crawl: str, store: Store, taken: Callable[[int, int], Iterable[int]]) -> None:
        """Find the prefix of the crawl, recording it if the crawl is new to the store.

        `taken` returns the batch numbers between two that a database has: no other batch gets them. Raises
        InputError if the record is invalid, or of a newer laion-etl.
        """
        self._crawl = crawl
        self._store = store
        self.prefix = self._own_prefix()
        self._first = self.prefix * BATCHES_PER_CRAWL
        self._last = self._first + BATCHES_PER_CRAWL - 1
        self._taken = set(taken(self._first, self._last))
        self._record: dict[int, _Thousand] = {}
        self._known: dict[str, int] = {}  # numbers by digest
        self._following = self._first
        self._read()

    def give(self, digests: Sequence[str]) -> list[int]:
        """Return numbers for batches with these pairs, and record them.

        They are recorded before anyone writes a file under them, so that two planners that work on one store
        with different databases do not get the same. Raises InputError if none are left.
        """
        while True:
            given, new = self._assigned(digests)
            try:
                self._write(new)
            except ChangedError:
                self._read()
                continue
            self._taken.update(given)
            return given

    def _assigned(self, digests: Sequence[str]) -> tuple[list[int], dict[int, str]]:
        """Return numbers for batches, and the digests of those that are not recorded yet, ascending."""
        given: list[int] = []
        new: dict[int, str] = {}
        used, following = set(self._taken), self._following
        for digest in digests:
            number = self._known.get(digest)
            if number is None or number in used:
                number, following = following, following + 1
                new[number] = digest
            used.add(number)
            given.append(number)
        if following > self._last + 1:
            raise InputError(
                f"cannot plan {self._crawl}: its {BATCHES_PER_CRAWL:,} batch numbers are used up; plan "
                "larger batches (LAION_ETL_PLAN_BATCH_SIZE)"
            )
        return given, new

    def _write(self, new: Mapping[int, str]) -> None:
        """Record numbers. Raises ChangedError if another planner has recorded some meanwhile."""
        for place, numbers in groupby(new, lambda number: (number - self._first) // NUMBERS_PER_FILE):
            before = self._record.get(place, _Thousand())
            digests = list(before.digests)
            for number in numbers:
                index = (number - self._first) % NUMBERS_PER_FILE
                digests += [""] * (index - len(digests)) + [new[number]]
            name = _name(self.prefix, place)
            self._store.swap(name, _document(self._crawl, digests), before.etag)
            self._note(place, self._thousand(place))

    def _read(self) -> None:
        folder = f"ids/{self.prefix}"
        names = (name.removeprefix(f"{folder}/") for name in self._store.list(folder))
        places = [int(match[1]) for name in names if (match := _PLACE.match(name))]
        self._known = {}
        self._following = max((number + 1 for number in self._taken), default=self._first)
        with ThreadPoolExecutor(_READERS) as pool:
            for place, thousand in zip(places, pool.map(self._thousand, places), strict=True):
                self._note(place, thousand)

    def _note(self, place: int, thousand: _Thousand) -> None:
        self._record[place] = thousand
        start = self._first + place * NUMBERS_PER_FILE
        for number, digest in enumerate(thousand.digests, start):
            self._known.setdefault(digest, number)
        self._following = max(self._following, start + len(thousand.digests))

    def _thousand(self, place: int) -> _Thousand:
        name = _name(self.prefix, place)
        if (found := self._store.read_with_etag(name)) is None:
            return _Thousand()
        return _Thousand(_parse(found[0], self._store.uri(name))[1], found[1])

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
        document = json.loads(data)
        check_format(uri, document.get("format"), FORMAT)
        return str(document["crawl"]), tuple(map(str, document["batches"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"cannot read {uri}: it is not a record of batch numbers ({error}); restore it"
        ) from error
