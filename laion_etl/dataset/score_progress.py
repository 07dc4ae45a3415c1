"""How far the score stage is: one small record per group.

    score/<crawl>/groups.json              number of groups of the latest run
    score/<crawl>/group-<i>-of-<g>.json    what a group has scored so far, and what it could not score

For readers that have the store but not Postgres: 300,000 shards are too many to list or to read one by one.
Workers that score from the queue write the record of a single group when nothing is left (`write_record`).
Shards scored without the queue have a record for each group (`stage score --group I/G`), which the group
writes at most every ten seconds, atomically, and exactly at its end. Which batches it has scored is kept as
runs of equally spaced numbers: a group takes every G-th batch, so that most groups have one run.

Of a crawl that is scored in another number of groups than before, the groups of the latest run count: they
recognise what is scored already. Batches that are scored by number, outside of groups, count where a group
had missed them.
"""

import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from laion_etl.core.errors import DamagedFileError, InputError, MissingFileError, StorageError
from laion_etl.core.formats import check_format
from laion_etl.core.plain_json import NOT_AS_EXPECTED, parse_json
from laion_etl.core.schemas import scored_stem
from laion_etl.core.stage_stats import UNFINISHED, StageStats, fingerprint
from laion_etl.dataset.missing_batches import Fault, MissingBatch, group_file
from laion_etl.dataset.number_runs import Run, read_runs, runs_of, within
from laion_etl.io.storage import Store

FORMAT = 1  # of groups.json
_EVERY_S = 10.0
_MISSING_NAMED = 1_000  # by a record, and by all of them together; all are counted
_MISSING_LOOKED_AT = 100
_READERS = 16  # small files: reading them is mostly waiting
_MOST_GROUPS = 100_000
_log = logging.getLogger(__name__)


def groups_file(crawl: str) -> str:
    """Return the name of the file that says how many groups there are."""
    return f"score/{crawl}/groups.json"


class GroupRecord:
    """The record of a group at work, `I/G`. `total`: its batches."""

    def __init__(
        self,
        crawl: str,
        group: str,
        total: int,
        store: Store,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._crawl, self._group, self._total = crawl, group, total
        self._store, self._clock = store, clock
        self._written_at = clock()
        self._digest = hashlib.sha256()
        self._scored: set[int] = set()
        self._samples = Counter[str]()
        self._dropped = Counter[str]()
        self._missing: list[MissingBatch] = []
        self._raw_deleted = 0

    def begin(self) -> None:
        """Make this division into groups the one that counts. Raises StorageError."""
        name, groups = groups_file(self._crawl), int(self._group.partition("/")[2])
        if _groups(self._crawl, self._store) != groups:
            document = {"format": FORMAT, "crawl": self._crawl, "groups": groups}
            self._store.write(name, json.dumps(document).encode() + b"\n")
        self._store.write(group_file(self._crawl, self._group), self._stats(running=True).to_json())

    def add(self, stats: StageStats) -> None:
        """Count a scored batch."""
        self._scored.add(int(stats.unit))
        self._digest.update(stats.fingerprint.encode())
        self._samples.update(input=stats.input, kept=stats.kept)
        self._dropped.update(stats.dropped)
        self._write_if_due()

    def count_all(
        self, scored: Sequence[tuple[int, str]], totals: "Totals", missing: Sequence[MissingBatch]
    ) -> None:
        """Count all batches at once."""
        for number, made_by in scored:
            self._scored.add(number)
            self._digest.update(made_by.encode())
        self._samples.update(input=totals.samples, kept=totals.kept)
        self._dropped.update(totals.dropped)
        self._missing = list(missing)
        self._raw_deleted = totals.raw_deleted

    def miss(self, missing: MissingBatch) -> None:
        """Count a batch that cannot be scored."""
        self._missing.append(missing)
        self._write_if_due()

    def finish(self) -> StageStats:
        """Write the final record and return it. Raises StorageError."""
        stats = self._stats(running=False)
        self._store.write(group_file(self._crawl, self._group), stats.to_json())
        return stats

    def _write_if_due(self) -> None:
        if self._clock() - self._written_at < _EVERY_S:
            return
        self._written_at = self._clock()
        try:
            self._store.write(group_file(self._crawl, self._group), self._stats(running=True).to_json())
        except StorageError as error:  # the next shard needs the store, too; this is only a display
            _log.warning("the progress of group %s is not up to date: %s", self._group, error)

    def _stats(self, *, running: bool) -> StageStats:
        counts = Counter(one.cause.value for one in self._missing)
        return StageStats(
            stage="score group",
            crawl=self._crawl,
            unit=self._group,
            fingerprint=fingerprint(self._digest.hexdigest(), list(self._missing)),
            input=len(self._scored) + len(self._missing),
            kept=len(self._scored),
            dropped={cause.value: counts[cause.value] for cause in Fault if counts[cause.value]},
            details={
                "samples": {
                    "input": self._samples["input"],
                    "kept": self._samples["kept"],
                    "dropped": {reason: count for reason, count in sorted(self._dropped.items()) if count},
                },
                "missing": [one.to_plain() for one in self._missing[:_MISSING_NAMED]],
                "batches": runs_of(sorted(self._scored)),
                "of": self._total,
                "running": running,
                **({"raw_shards_deleted": self._raw_deleted} if self._raw_deleted else {}),
            },
        )


class Totals(Protocol):
    """Counts of all scored batches."""

    @property
    def samples(self) -> int: ...
    @property
    def kept(self) -> int: ...
    @property
    def dropped(self) -> Mapping[str, int]: ...
    @property
    def raw_deleted(self) -> int: ...


def write_record(
    crawl: str,
    scored: Sequence[tuple[int, str]],
    totals: Totals,
    missing: Sequence[MissingBatch],
    store: Store,
) -> None:
    """Write the record of a crawl that was scored as one group: batches, ascending, with fingerprints."""
    record = GroupRecord(crawl, "0/1", len(scored) + len(missing), store)
    record.count_all(scored, totals, missing)
    document = {"format": FORMAT, "crawl": crawl, "groups": 1}
    store.write(groups_file(crawl), json.dumps(document).encode() + b"\n")
    record.finish()


@dataclass(frozen=True, slots=True)
class ScoreProgress:
    """What is scored of a crawl: `units` shards and their samples; and the batches that cannot be scored, of
    which `missing` names at most a thousand.
    """

    units: int = 0
    input: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    runs: tuple[Run, ...] = ()
    missing: tuple[MissingBatch, ...] = ()
    missing_count: int = 0
    damaged: tuple[str, ...] = ()

    def count_between(self, first: int, last: int) -> int:
        """Count the scored batches with numbers from `first` to `last`."""
        return sum(len(within(run, first, last)) for run in self.runs)

    def between(self, first: int, last: int) -> set[int]:
        """Return the numbers of the scored batches from `first` to `last`."""
        return {number for run in self.runs for number in within(run, first, last)}

    def at(self, place: int) -> int:
        """Return the number of a scored batch by its place, 0 to `units` - 1, in the order of `runs`."""
        for first, step, count in self.runs:
            if place < count:
                return first + step * place
            place -= count
        raise IndexError(place)


def read_score_progress(crawl: str, store: Store) -> ScoreProgress:
    """Read the records of a crawl's groups, at most 1,024 small files. Raises StorageError or InputError.

    A damaged record counts nothing and is one of `damaged`.
    """
    groups = _groups(crawl, store)
    names = [group_file(crawl, f"{index}/{groups}") for index in range(groups)]
    with ThreadPoolExecutor(_READERS) as pool:
        read = pool.map(lambda name: _record(name, store, _check_group), names)
        found = [stats for stats in read if stats is not None]
        records = [one for one in found if isinstance(one, StageStats)]
        missing = [MissingBatch.from_plain(one) for stats in records for one in stats.details["missing"]]
        missing = sorted(missing, key=lambda one: one.batch)[:_MISSING_NAMED]
        looked_at = missing[:_MISSING_LOOKED_AT]
        names = [f"{scored_stem(crawl, one.batch)}_stats.json" for one in looked_at]
        read = pool.map(lambda name: _record(name, store, lambda one: int(one.unit)), names)
        since = [one for one in read if isinstance(one, StageStats) and one.fingerprint != UNFINISHED]
    numbers = {int(stats.unit) for stats in since}
    samples = [*map(_samples, records), *((stats.input, stats.kept, stats.dropped) for stats in since)]
    dropped: Counter[str] = Counter()
    for _, _, counts in samples:
        dropped.update(counts)
    return ScoreProgress(
        units=sum(stats.kept for stats in records) + len(since),
        input=sum(count for count, _, _ in samples),
        kept=sum(count for _, count, _ in samples),
        dropped=dropped,
        runs=(
            *(run for stats in records for run in _runs(stats)),
            *((number, 1, 1) for number in sorted(numbers)),
        ),
        missing=tuple(one for one in missing if one.batch not in numbers),
        missing_count=sum(stats.input - stats.kept for stats in records) - len(since),
        damaged=tuple(one for one in found if isinstance(one, str)),
    )


def raw_shards_deleted(crawl: str, store: Store) -> int:
    """Return how many raw shards of a crawl were deleted after they were scored, as of the last record."""
    record = _record(group_file(crawl, "0/1"), store, _raw_deleted)
    return _raw_deleted(record) if isinstance(record, StageStats) else 0


def _groups(crawl: str, store: Store) -> int:
    """Return the number of groups of the latest run, 0 if there was none."""
    name = groups_file(crawl)
    try:
        document = parse_json(store.read(name))
        check_format(store.uri(name), document.get("format"), FORMAT)
        return _counted(int(document["groups"]))
    except MissingFileError:
        return 0
    except NOT_AS_EXPECTED as error:
        raise DamagedFileError(
            f"cannot read {store.uri(name)}: {error}; run the score stage again, which writes it"
        ) from error


def _record(name: str, store: Store, check: Callable[[StageStats], object]) -> StageStats | str | None:
    """Return a stats file, None without one, and the message if it is damaged or `check` raises."""
    try:
        stats = store.read_stats(name)
        check(stats)
    except MissingFileError:
        return None
    except (DamagedFileError, InputError) as error:  # InputError: a newer laion-etl wrote it
        return str(error)
    except NOT_AS_EXPECTED as error:
        return f"cannot read {store.uri(name)}: {error!r}; run the score stage again, which writes it"
    return stats


def _check_group(stats: StageStats) -> None:
    _samples(stats)
    _runs(stats)
    for one in stats.details["missing"]:
        MissingBatch.from_plain(one)


def _counted(groups: int) -> int:
    if not 0 <= groups <= _MOST_GROUPS:
        raise ValueError(f"{groups} is not a number of groups")
    return groups


def _raw_deleted(stats: StageStats) -> int:
    return int(stats.details.get("raw_shards_deleted", 0))


def _samples(stats: StageStats) -> tuple[int, int, dict[str, int]]:
    samples = stats.details["samples"]
    return int(samples["input"]), int(samples["kept"]), dict(samples.get("dropped", {}))


def _runs(stats: StageStats) -> list[Run]:
    return read_runs(stats.details.get("batches", ()))
