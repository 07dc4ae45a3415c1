"""Of pairs that show the same picture the best is published, by a rule that brute force confirms."""

import random
from dataclasses import replace
from typing import Any

import pyarrow.parquet as pq
import pytest

from laion_etl.errors import SettingsError
from laion_etl.publish.redundancy import DUPLICATE, NEAR_DUPLICATE, find_redundant
from laion_etl.publish.scored import find_scored
from laion_etl.publish.stage import publish_dataset
from laion_etl.settings import PublishSettings, Settings
from laion_etl.storage import Store
from tests.publish.world import CRAWL, World, build_world, write_world

Row = dict[str, Any]


def with_hashes(seed: int, *, families: int = 12) -> World:
    """A world whose pictures come in families of equal files and of hashes a few bits apart."""
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
            row["pdq"] = "0" * 64  # a flat picture
        if rng.random() < 0.3:
            row["similarity"] = 0.4  # ties
    return world


def by_hand(rows: list[Row], mode: str, bits: int) -> dict[str, str]:
    """Every sample against all better ones."""
    ordered = sorted(
        rows,
        key=lambda row: (-row["similarity"], -row["original_width"] * row["original_height"], row["key"]),
    )
    found: dict[str, str] = {}
    taken: list[int] = []
    for row in ordered if mode == "near" else []:
        pdq = int(row["pdq"] or "0", 16)
        if not 96 <= pdq.bit_count() <= 160:
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
        for name in store.list(f"dataset/laion/{CRAWL}/{subset}/"):
            with store.open(name) as file:
                published |= set(pq.read_table(file, columns=["key"])["key"].to_pylist())
    assert published == {row["key"] for row in world.kept} - set(expected)
    page = store.read(f"dataset/laion/{CRAWL}/report/index.html").decode()
    assert "near duplicate image" in page


@pytest.mark.parametrize("wrong", [{"duplicates": "some"}, {"duplicates": "near", "duplicate_bits": 16}])
def test_unknown_settings_are_refused(store: Store, wrong: dict[str, Any]) -> None:
    write_world(build_world(batches=1), store)
    with pytest.raises(SettingsError, match="LAION_ETL_PUBLISH_DUPLICATE"):
        publish_dataset(CRAWL, Settings(publish=replace(PublishSettings(), **wrong)), store)
