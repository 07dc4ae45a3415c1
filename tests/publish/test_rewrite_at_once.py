"""Two removals that rewrite the same files at once, or after one of them was killed."""

import hashlib
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from laion_etl.blocklists.removal_requests import Matcher, Request, read_request_of, read_requests
from laion_etl.dataset.rewrite import blank_rows, rewrite_rows
from laion_etl.dataset.rewrite_shards import rewrite_scored, rewrite_shard
from laion_etl.io.storage import Guard, LocalStore, NewFile, Store
from laion_etl.io.tarshard import read_members
from laion_etl.removal.record import record
from laion_etl.removal.stage import remove
from laion_etl.settings import Settings
from tests.publish.test_removal import write_all
from tests.publish.world import CRAWL, World, build_world

SCORED, SHARD = f"scored/{CRAWL}/000000000", f"shards/{CRAWL}/000000000"
PAIRS, BATCH = f"pairs/{CRAWL}/part-00000.parquet", f"batches/{CRAWL}/000000000.parquet"
OF_A_SHARD = (".tar", "_stats.json", ".parquet")
Rewrite = Callable[[Store, Matcher], None]
OF_STATS = ("_stats.json 1", "_stats.json 2")
REWRITES: dict[str, tuple[Rewrite, tuple[str, ...]]] = {
    "scored": (lambda store, found: rewrite_scored(SCORED, store, found),
               (".tar 1", "_img_emb.npy 1", "_text_emb.npy 1", *OF_STATS, ".parquet 1")),
    "shards": (lambda store, found: rewrite_shard(SHARD, store, found), (".tar 1", *OF_STATS, ".parquet 1")),
    "pairs": (lambda store, found: rewrite_rows(PAIRS, store, found), (".json 1", ".parquet 1")),
    "batches": (lambda store, found: blank_rows(BATCH, store, found), (".parquet 1",)),
}  # fmt: skip
MOMENTS = [(kind, moment) for kind, (_, moments) in REWRITES.items() for moment in moments]
# The places of the rows that go, of the first and of the second removal.
GONE = [({1, 3}, {2, 6}), ({1, 3}, {3}), ({3}, {1, 3}), ({1}, {1})]


@pytest.fixture(scope="module")
def world() -> World:
    return build_world(batches=1, samples=12)


class Killed(BaseException):
    """Ends a removal in the middle, as SIGKILL does."""


class _Disturbed:
    """A store that calls `disturb` when all is ready to be written, the N-th time, to a name of an ending."""

    moment: str
    disturb: Callable[[], None]
    seen: int

    @contextmanager
    def create(self: Any, name: str, guard: Guard | None = None) -> Iterator[NewFile]:
        with super().create(name, guard) as file:  # type: ignore[misc]
            yield file
            self.reach(name)

    def swap(self: Any, name: str, data: bytes, etag: str | None) -> Any:
        self.reach(name)
        seen, self.seen = self.seen, -10  # LocalStore goes on with `create`
        try:
            return super().swap(name, data, etag)  # type: ignore[misc]
        finally:
            self.seen = seen

    def reach(self, name: str) -> None:
        ending, time = self.moment.split()
        if name.endswith(ending):
            self.seen += 1
            if self.seen == int(time):
                self.disturb()


def disturbed(store: Store, moment: str, disturb: Callable[[], None]) -> Store:
    found: Any = object.__new__(type("Disturbed", (_Disturbed, type(store)), {}))
    found.__dict__.update(store.__dict__ | {"moment": moment, "disturb": disturb, "seen": 0})
    assert isinstance(found, Store)
    return found


def naming(world: World, places: set[int]) -> Matcher:
    ids = tuple(world.rows[place]["pair_id"].hex() for place in sorted(places))
    return Matcher([Request({"pairs": ids})], 31)


def check(kind: str, world: World, gone: set[int], store: Store) -> None:
    """All that is named has gone, and nothing else."""
    left = [row for place, row in enumerate(world.rows) if place not in gone]
    name = {"scored": f"{SCORED}.parquet", "shards": f"{SHARD}.parquet", "pairs": PAIRS, "batches": BATCH}[
        kind
    ]
    data = store.read(name)
    table = pq.read_table(io.BytesIO(data))
    if kind == "batches":
        urls = ["" if place in gone else row["url"] for place, row in enumerate(world.rows)]
        assert table["url"].to_pylist() == urls
        return
    assert table["url"].to_pylist() == [row["url"] for row in left]
    digest = hashlib.sha256(data).hexdigest()
    if kind == "pairs":
        assert store.read_stats(PAIRS.replace(".parquet", ".json")).details["rewritten"]["sha256"] == digest
        return
    in_tar = left if kind == "shards" else [row for row in left if row["reason"] is None]
    with store.open(f"{name.removesuffix('.parquet')}.tar") as tar:
        keys = [member.removesuffix(".jpg") for member, _ in read_members(tar) if member.endswith(".jpg")]
    assert keys == [row["key"] for row in in_tar]
    if kind == "scored":
        kept = [row["key"] for row in world.kept]
        for what in ("img", "text"):
            rows = np.load(io.BytesIO(store.read(f"{SCORED}_{what}_emb.npy")))
            assert [int(row[0]) // 4 for row in rows] == [kept.index(key) for key in keys]
        stats = store.read_stats(f"{SCORED}_stats.json")
        assert [(one.bytes, one.sha256) for one in stats.outputs] == [(len(data), digest)]
        assert (stats.input, stats.kept) == (len(left), len(keys))


@pytest.mark.parametrize(("first", "second"), GONE)
@pytest.mark.parametrize(("kind", "moment"), MOMENTS)
def test_what_one_removes_does_not_come_back_by_the_other(
    store: Store, world: World, kind: str, moment: str, first: set[int], second: set[int]
) -> None:
    _at_once(store, world, kind, moment, first, second)


@pytest.mark.parametrize("moment", [".tar 1", "_img_emb.npy 1", "_stats.json 2", ".parquet 1"])
def test_nor_on_s3(s3_store: Store, world: World, moment: str) -> None:
    _at_once(s3_store, world, "scored", moment, *GONE[0])


def _at_once(store: Store, world: World, kind: str, moment: str, first: set[int], second: set[int]) -> None:
    write_all(world, CRAWL, store)
    rewrite, _ = REWRITES[kind]
    slow = disturbed(store, moment, lambda: rewrite(store, naming(world, second)))
    rewrite(slow, naming(world, first))
    check(kind, world, first | second, store)


@pytest.mark.parametrize(("kind", "moment"), MOMENTS)
@pytest.mark.parametrize(("first", "second"), GONE[:2])
def test_a_killed_removal_spoils_nothing_for_the_next_one(
    store: Store, world: World, kind: str, moment: str, first: set[int], second: set[int]
) -> None:
    def kill() -> None:
        raise Killed

    write_all(world, CRAWL, store)
    rewrite, _ = REWRITES[kind]
    with suppress(Killed):
        rewrite(disturbed(store, moment, kill), naming(world, first))
    rewrite(store, naming(world, second))
    rewrite(store, naming(world, first))
    check(kind, world, first | second, store)


def test_of_one_request_carried_out_twice_at_once_all_pairs_stay_known(store: Store) -> None:
    first = Request({"md5": ("0" * 32,)}, frozenset({"1" * 32}), ("A",), {"md5": 1}, lines={"x": 1})
    second = Request(first.rules, frozenset({"2" * 32}), ("B",), {"md5": 2}, lines={"x": 2})
    record(first, store)
    known = record(second, store)
    assert known.to_json() == read_request_of(first.id, store).to_json()
    assert (known.pair_ids, known.crawls) == (first.pair_ids | second.pair_ids, ("A", "B"))
    assert (known.counts["md5"], known.lines["x"]) == (2, 2)


def test_a_request_is_recorded_before_the_store_is_searched(tmp_path: Path, world: World) -> None:
    """Else what a stage wrote after the search, and before it could know of the request, would stay."""
    known: list[bool] = []

    class Searched(LocalStore):
        def read(self, name: str) -> bytes:
            if name.startswith("scored/") and name.endswith(".parquet"):
                known.append(bool(read_requests(self)))
            return super().read(name)

    store = Searched(tmp_path)
    write_all(world, CRAWL, store)
    remove(Request({"pairs": (world.rows[1]["pair_id"].hex(),)}), Settings(), store)
    assert known and all(known)
    check("scored", world, {1}, store)
