"""What the plan stage leaves in the store for the stages after it: which batches there are.

A crawl has 300,000 batches, so the record is in pieces. A window of the plan, some hundred batches, has one
file, written when they are: number, pairs, and name, size and SHA-256 of the file of each. The stats of the
stage name those files and have the runs of all numbers, which is enough for most readers. While a round is
being planned, they say where the files of its windows appear. Earlier versions listed each batch there.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from laion_etl.core.errors import DamagedFileError
from laion_etl.core.formats import check_format
from laion_etl.core.plain_json import NOT_AS_EXPECTED, parse_json
from laion_etl.core.schemas import plan_stats_name
from laion_etl.core.stage_stats import Output, StageStats, fingerprint
from laion_etl.io.storage import Store

FORMAT = 1  # of the file of a window
_READERS = 8  # the files are small: reading them is mostly waiting

Run = tuple[int, int]  # the first and the last number


@dataclass(frozen=True, slots=True)
class PlannedBatch:
    """A batch of a plan."""

    number: int
    pairs: int
    file: Output


@dataclass(frozen=True, slots=True)
class OpenRound:
    """A round that is being planned; `fingerprint` is in the names of the files of its windows."""

    fingerprint: str
    windows: int


def window_file_name(crawl: str, of: str, window: int) -> str:
    """Name in the store of the file that lists the batches of a window; `of` is its round's fingerprint."""
    return f"plan/{crawl}/{of}/window-{window:05d}.json"


def write_window(name: str, crawl: str, batches: Sequence[PlannedBatch], store: Store) -> Output:
    """Write the file of a window. It depends on nothing but its batches."""
    plain = {"format": FORMAT, "crawl": crawl, "batches": [asdict(batch) for batch in batches]}
    return store.write(name, json.dumps(plain, indent=0).encode() + b"\n")


def runs(numbers: Iterable[int]) -> list[Run]:
    """Return the runs of ascending numbers."""
    found: list[Run] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def plan_fingerprint(files: Sequence[Mapping[str, object]]) -> str:
    """Return the fingerprint of a plan: what the files of its windows list, by round and window."""
    return fingerprint("plan", [file["sha256"] for file in files])


def plan_stats(
    crawl: str,
    pairs: tuple[int, int],
    windows: Sequence[tuple[Output, Sequence[Run]]],
    being_planned: OpenRound | None,
) -> StageStats:
    """Return the stats of the stage, about the rounds that are done.

    `pairs`: those that went in, and those in batches; `windows`: their files and numbers.
    """
    files = [asdict(file) for file, _ in windows]
    details: dict[str, Any] = {"batches": _joined(numbers for _, numbers in windows)}
    whole = plan_fingerprint(files)
    if being_planned:
        details["being_planned"] = asdict(being_planned)
        whole = fingerprint("plan", whole, being_planned)
    outputs = tuple(file for file, _ in windows)
    return StageStats("plan", crawl, "batches", whole, *pairs, outputs=outputs, details=details)


def batches_in(stats: StageStats) -> list[int]:
    """Return the numbers of the batches that the stats of the plan stage list, of any version, ascending."""
    numbers: list[int] = []
    for item in stats.details.get("batches", ()):
        first, last = (item, item) if isinstance(item, int) else item
        numbers.extend(range(first, last + 1))
    return sorted(numbers)


def planned_batches(crawl: str, store: Store) -> list[int]:
    """Return the numbers of a crawl's batches so far, ascending; MissingFileError if it is not planned."""
    stats = store.read_stats(plan_stats_name(crawl))
    numbers = batches_in(stats)
    if (being_planned := _open_round(stats)) is not None:
        done = _done_windows(crawl, being_planned, store)
        numbers = sorted({*numbers, *(batch.number for batches in done for batch in batches)})
    return numbers


def planned_files(crawl: str, store: Store) -> Iterator[PlannedBatch]:
    """Yield a crawl's batches so far with their files, window by window. Raises MissingFileError."""
    stats = store.read_stats(plan_stats_name(crawl))
    for output in stats.outputs:
        yield from read_window(output.name, store)
    if (being_planned := _open_round(stats)) is not None:
        for batches in _done_windows(crawl, being_planned, store):
            yield from batches


def is_being_planned(crawl: str, store: Store) -> bool:
    """Whether a plan of a crawl has begun and is not finished: it will have more batches."""
    name = plan_stats_name(crawl)
    return store.exists(name) and _open_round(store.read_stats(name)) is not None


def is_without_batches(crawl: str, store: Store) -> bool:
    """Whether a crawl is planned to its end and has no batch: all its pairs were known before."""
    name = plan_stats_name(crawl)
    if not store.exists(name):
        return False
    stats = store.read_stats(name)
    return not batches_in(stats) and _open_round(stats) is None


def read_window(name: str, store: Store) -> list[PlannedBatch]:
    """Return the batches of a window. Raises DamagedFileError, MissingFileError."""
    data = store.read(name)
    try:
        plain = parse_json(data)
        check_format(store.uri(name), plain.get("format"), FORMAT)
        return [
            PlannedBatch(int(one["number"]), int(one["pairs"]), Output(**one["file"]))
            for one in plain["batches"]
        ]
    except NOT_AS_EXPECTED as error:
        raise DamagedFileError(
            f"cannot read {store.uri(name)}: it does not list the batches of a window ({error}); delete it "
            "and run `laion-etl stage plan` for the crawl again"
        ) from error


def _joined(parts: Iterable[Sequence[Run]]) -> list[list[int]]:
    """Return the runs of all parts, ascending, neighbouring ones as one, as JSON has them."""
    joined: list[list[int]] = []
    for first, last in sorted((run[0], run[1]) for part in parts for run in part):
        if joined and first == joined[-1][1] + 1:
            joined[-1][1] = last
        else:
            joined.append([first, last])
    return joined


def _done_windows(crawl: str, being_planned: OpenRound, store: Store) -> list[list[PlannedBatch]]:
    names = store.list(f"plan/{crawl}/{being_planned.fingerprint}")
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(lambda name: read_window(name, store), names))


def _open_round(stats: StageStats) -> OpenRound | None:
    plain = stats.details.get("being_planned")
    return OpenRound(**plain) if plain else None
