"""Of pairs with the same image only the best is published; a brute-force search confirms the rule."""

import random
from dataclasses import replace
from typing import Any

import pyarrow.parquet as pq
import pytest

from laion_etl.core.ids import sample_key
from laion_etl.dataset.scored import find_scored
from laion_etl.io.storage import Store
from laion_etl.publish import image_hashes
from laion_etl.publish.image_dedupe import (
    DUPLICATE,
    EARLIER_DUPLICATE,
    EARLIER_NEAR_DUPLICATE,
    NEAR_DUPLICATE,
    find_redundant,
)
from laion_etl.publish.stage import publish_dataset
from laion_etl.settings import PublishSettings, Settings
from tests.publish.world import CRAWL, World, build_world, write_world

Row = dict[str, Any]


def with_hashes(seed: int, *, families: int = 12) -> World:
    """A world with families of equal files and of hashes that differ in a few bits."""
    rng = random.Random(seed)
    world = build_world(batches=3, samples=60)
    parents = [rng.getrandbits(256) for _ in range(families)]
    for row in world.rows:
        family = rng.randrange(families)
        pdq = parents[family]
        for bit in rng.sample(range(256), rng.choice((0, 3, 6, 9, 14, 40))):
            pdq ^= 1 << bit
        row["pdq"] = f"{pdq:064x}" if rng.random() > 0.05 else None
        if rng.random() < 0.3:
            row["sha256"] = f"{family:064x}"
        if rng.random() < 0.1:
            row["pdq"] = "0" * 64  # a flat image
        row["pdq_quality"] = rng.choice((None, 50, 80, 100, 49))  # None: of an earlier version
        if rng.random() < 0.3:
            row["similarity"] = 0.4  # ties
    return world


def compared(row: Row) -> int | None:
    """The hash of an image that is recognised by it."""
    pdq = int(row["pdq"] or "0", 16)
    known = 96 <= pdq.bit_count() <= 160 and row["pdq_quality"] != 49
    return pdq if known else None


def by_hand(rows: list[Row], mode: str, bits: int) -> dict[str, str]:
    """Compare every sample with all better ones."""
    ordered = sorted(
        rows,
        key=lambda row: (-row["similarity"], -row["original_width"] * row["original_height"], row["key"]),
    )
    found: dict[str, str] = {}
    taken: list[int] = []
    for row in ordered if mode == "near" else []:
        pdq = compared(row)
        if pdq is None:
            continue
        if any((pdq ^ other).bit_count() <= bits for other in taken):
            found[row["key"]] = NEAR_DUPLICATE
        else:
            taken.append(pdq)
    files: set[str] = set()
    for row in ordered:
        if row["sha256"] in files:
            found[row["key"]] = DUPLICATE
        files.add(row["sha256"])
    return found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("mode", "bits"), [("exact", 10), ("near", 0), ("near", 10), ("near", 15)])
def test_what_is_redundant_is_what_comparing_all_with_all_finds(
    store: Store, seed: int, mode: str, bits: int
) -> None:
    world = with_hashes(seed)
    write_world(world, store)
    scored = find_scored(CRAWL, store)
    found = find_redundant(scored, PublishSettings(duplicates=mode, duplicate_bits=bits), store)
    keys = [key.decode() for key in found.keys.tolist()]
    expected = by_hand([{**row, "similarity": float(row["similarity"])} for row in world.kept], mode, bits)
    assert dict(zip(keys, found.reasons, strict=True)) == expected
    assert keys == sorted(keys)


def test_a_dataset_without_redundant_pairs_adds_up(store: Store) -> None:
    world = with_hashes(1)
    write_world(world, store)
    everything = publish_dataset(CRAWL, Settings(), store)
    assert (everything.kept, everything.dropped) == (len(world.kept), {})
    settings = Settings(publish=PublishSettings(duplicates="near"))
    stats = publish_dataset(CRAWL, settings, store)
    expected = by_hand(world.kept, "near", 10)
    assert stats.input == len(world.kept) == stats.kept + sum(stats.dropped.values())
    assert sum(stats.dropped.values()) == len(expected)
    published = set()
    for subset in ("laion-en", "laion-multi", "laion-nolang"):
        for name in store.list(f"dataset/laion/{CRAWL}.2/{subset}/"):
            with store.open(name) as file:
                published |= set(pq.read_table(file, columns=["key"])["key"].to_pylist())
    assert published == {row["key"] for row in world.kept} - set(expected)
    page = store.read(f"dataset/laion/{CRAWL}.2/report/index.html").decode()
    assert "near duplicate image" in page


@pytest.fixture
def plain() -> Settings:
    return Settings()


EARLIER = "CC-MAIN-2025-05"


def near_to(others: list[int], pdq: int | None, bits: int) -> bool:
    return pdq is not None and any((pdq ^ other).bit_count() <= bits for other in others)


def publish_earlier(world: World, store: Store, settings: Settings) -> None:
    """Publish the same samples, in other batches, as an earlier crawl."""
    batches = {
        number + 10: [row | {"key": sample_key(number + 10, index)} for index, row in enumerate(rows)]
        for number, rows in world.batches.items()
    }
    write_world(World(batches), store, crawl=EARLIER)
    publish_dataset(EARLIER, settings, store)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("mode", "bits"), [("exact", 10), ("near", 10), ("near", 15)])
def test_what_an_earlier_crawl_published_is_not_published_again(
    store: Store, seed: int, mode: str, bits: int, plain: Settings
) -> None:
    early, late = with_hashes(seed), with_hashes(seed + 10)
    for old, new in zip(early.rows[::3], late.rows[::3], strict=True):  # a third is known, more or less
        new["pdq"] = old["pdq"] and f"{int(old['pdq'], 16) ^ (1 << seed):064x}"
    for old, new in zip(early.rows[::7], late.rows[::7], strict=True):
        new["sha256"] = old["sha256"]
    publish_earlier(early, store, plain)
    write_world(late, store)
    settings = PublishSettings(duplicates=mode, duplicate_bits=bits, duplicates_of_earlier=True)
    scored = find_scored(CRAWL, store)
    known = image_hashes.find_earlier_files("laion", CRAWL, store)
    found = find_redundant(scored, settings, store, known)
    files = {row["sha256"] for row in early.kept}
    informative = [pdq for row in early.kept if (pdq := compared(row)) is not None]
    expected: dict[str, str] = {}
    for row in late.kept:
        pdq = compared(row)
        if row["sha256"] in files:
            expected[row["key"]] = EARLIER_DUPLICATE
        elif mode == "near" and near_to(informative, pdq, bits):
            expected[row["key"]] = EARLIER_NEAR_DUPLICATE
    rest = [row for row in late.kept if row["key"] not in expected]
    expected |= by_hand(rest, mode, bits)
    assert EARLIER_DUPLICATE in expected.values()
    assert dict(zip((key.decode() for key in found.keys.tolist()), found.reasons, strict=True)) == expected


def test_a_later_crawl_is_published_without_what_is_there(store: Store, plain: Settings) -> None:
    world = with_hashes(1)
    settings = replace(plain, publish=replace(plain.publish, duplicates="exact", duplicates_of_earlier=True))
    publish_earlier(world, store, settings)
    before = {name: store.read(name) for name in store.list(f"dataset/laion/{EARLIER}")}
    world.rows[0]["sha256"] = "ab" * 32  # the only image that is new
    write_world(world, store)
    stats = publish_dataset(CRAWL, settings, store)
    assert stats.kept == 1
    assert stats.dropped[EARLIER_DUPLICATE] == stats.input - 1
    assert {name: store.read(name) for name in store.list(f"dataset/laion/{EARLIER}")} == before
    again = publish_dataset(CRAWL, settings, store)
    assert again == stats
    with store.open(f"dataset/laion/{CRAWL}/{image_hashes.NAME}") as file:
        [row] = pq.read_table(file).to_pylist()
    assert row["sha256"] == b"\xab" * 32


def test_earlier_crawls_are_not_looked_at_unless_asked(store: Store, plain: Settings) -> None:
    world = with_hashes(2)
    publish_earlier(world, store, plain)
    write_world(world, store)
    settings = replace(plain, publish=replace(plain.publish, duplicates="exact"))
    assert EARLIER_DUPLICATE not in publish_dataset(CRAWL, settings, store).dropped
