"""A removal beside load and plan: once all have ended, no text of a removed pair is left.

A removal first rewrites the files of the store, and then empties rows in Postgres. Both happen here at every
pair of moments of a load and of a plan.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import combinations_with_replacement
from typing import Any

import pyarrow.parquet as pq
import pytest

from laion_etl.blocklists.removal_requests import Request, read_request_of
from laion_etl.core.schemas import pair_id
from laion_etl.database.connection import Database
from laion_etl.database.load import _Load, load_partition
from laion_etl.database.pairs_file import PairsFile
from laion_etl.database.range_load import RangeLoad
from laion_etl.database.redact import redact_pairs
from laion_etl.io.storage import Store
from laion_etl.plan import stage as plan_stage
from laion_etl.plan import window_batches
from laion_etl.plan.stage import plan_batches
from laion_etl.plan.window_batches import WindowBatches
from laion_etl.removal.lists import read_list
from laion_etl.removal.stage import remove
from laion_etl.settings import LoadSettings, PlanSettings, Settings
from tests.database.pairs import numbered_pairs, write_pairs
from tests.database.test_redact import texts

PAIRS = numbered_pairs(0, 20)
GONE, KEPT = PAIRS[3:6], [*PAIRS[:3], *PAIRS[6:]]
IDS = [pair_id(url, caption).hex() for url, caption in GONE]


class KilledError(BaseException):
    """Stands for the end of the process."""


def by_url() -> Request:
    return read_list("\n".join(url for url, _ in GONE).encode(), "list")


def by_pair() -> Request:
    return Request({"pairs": tuple(IDS)})


@dataclass(slots=True)
class Beside:
    """The steps of a removal, each at a moment of another stage, or before (moment 0)."""

    request: Request
    steps: list[tuple[int, Callable[["Beside"], None]]]
    store: Store
    settings: Settings
    database: Database
    killed_at: int = -1
    passed: set[int] = field(default_factory=set)

    def at(self, moment: int) -> None:
        """Do what is due at a moment, the first time that it comes; a later one ends those before it."""
        if moment in self.passed:
            return
        self.passed.add(moment)
        while self.steps and self.steps[0][0] <= moment:
            self.steps.pop(0)[1](self)
        if moment == self.killed_at:
            self.killed_at = -1
            raise KilledError

    def rewrite_files(self) -> None:
        remove(self.request, self.settings, self.store)

    def empty_rows(self) -> None:
        with self.database.another() as another:
            found = read_request_of(self.request.id, self.store)
            redact_pairs(found.named_pairs, self.settings, another)


def before(owner: Any, name: str, moment: int, beside: Beside, patch: pytest.MonkeyPatch) -> None:
    work = getattr(owner, name)

    def first(*arguments: Any, **named: Any) -> Any:
        beside.at(moment)
        return work(*arguments, **named)

    patch.setattr(owner, name, first)


def behind(owner: Any, name: str, moment: int, beside: Beside, patch: pytest.MonkeyPatch) -> None:
    work = getattr(owner, name)

    def then(*arguments: Any, **named: Any) -> Any:
        found = work(*arguments, **named)
        beside.at(moment)
        return found

    patch.setattr(owner, name, then)


LOAD = ("begin", "keys read", "texts read", "a range written", "all written", "checked", "end")
PLAN = ("begin", "pairs read", "files written", "window recorded", "end")


def beside_load(beside: Beside, patch: pytest.MonkeyPatch) -> None:
    behind(PairsFile, "candidates", 1, beside, patch)
    behind(PairsFile, "texts", 2, beside, patch)
    behind(RangeLoad, "_step", 3, beside, patch)
    before(_Load, "_check_file", 4, beside, patch)
    behind(_Load, "_check_file", 5, beside, patch)


def beside_plan(beside: Beside, patch: pytest.MonkeyPatch) -> None:
    behind(window_batches, "read_pairs", 1, beside, patch)
    behind(WindowBatches, "_files", 2, beside, patch)
    behind(plan_stage, "record_window", 3, beside, patch)


def moments(names: tuple[str, ...]) -> Iterator[Any]:
    for files, rows in combinations_with_replacement(range(len(names)), 2):
        yield pytest.param(files, rows, id=f"files: {names[files]}, rows: {names[rows]}")


@pytest.fixture(params=["pair", "url"])
def by(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    """Settings with one dedupe rule or the other, and ranges that are written one after another."""
    return replace(
        settings, load=LoadSettings(dedupe=request.param, connections=1), plan=PlanSettings(batch_size=8)
    )


def steps(files: int, rows: int) -> list[tuple[int, Callable[[Beside], None]]]:
    return [(files, Beside.rewrite_files), (rows, Beside.empty_rows)]


def written(store: Store) -> set[tuple[str, str]]:
    """The URLs and captions in the batch files that are there."""
    found: set[tuple[str, str]] = set()
    for name in store.list("batches/C"):
        if name.endswith(".parquet"):
            with store.open(name) as file:
                rows = pq.read_table(file)
            found |= set(zip(rows["url"].to_pylist(), rows["caption"].to_pylist(), strict=True))
    return found


@pytest.mark.parametrize(("files", "rows"), moments(LOAD))
def test_load(
    files: int,
    rows: int,
    store: Store,
    database: Database,
    by: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_pairs(store, "C", 0, PAIRS)
    beside = Beside(by_url(), steps(files, rows), store, by, database)
    beside_load(beside, monkeypatch)
    beside.at(0)
    load_partition("C", 0, by, store, database)
    beside.at(len(LOAD))
    assert set(texts(database)) - {("", "")} == set(KEPT)
    assert load_partition("C", 0, by, store, database).kept <= len(PAIRS)


@pytest.mark.parametrize("killed_at", [2, 3, 4, 5])
@pytest.mark.parametrize("files_before", [False, True])
@pytest.mark.parametrize("rows_before", [False, True])
def test_a_load_that_is_killed_beside_a_removal_and_run_again(
    killed_at: int,
    files_before: bool,
    rows_before: bool,
    store: Store,
    database: Database,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_pairs(store, "C", 0, PAIRS)
    after = len(LOAD)
    due = steps(killed_at if files_before else after, killed_at if files_before and rows_before else after)
    beside = Beside(by_url(), due, store, settings, database, killed_at)
    beside_load(beside, monkeypatch)
    with pytest.raises(KilledError):
        load_partition("C", 0, settings, store, database)
    beside.at(after)
    load_partition("C", 0, settings, store, database)
    assert set(texts(database)) - {("", "")} == set(KEPT)


@pytest.mark.parametrize(("files", "rows"), moments(PLAN))
def test_plan(
    files: int,
    rows: int,
    store: Store,
    database: Database,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    by = replace(settings, plan=PlanSettings(batch_size=8))
    write_pairs(store, "C", 0, PAIRS)
    load_partition("C", 0, by, store, database)
    request = (by_url, by_pair)[files % 2]()
    beside = Beside(request, steps(files, rows), store, by, database)
    beside_plan(beside, monkeypatch)
    beside.at(0)
    assert plan_batches("C", by, store, database).kept == len(PAIRS)
    beside.at(len(PLAN))
    assert written(store) - {("", "")} == set(KEPT)
    assert set(texts(database)) - {("", "")} == set(KEPT)
