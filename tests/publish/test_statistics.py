import statistics as reference

import pyarrow as pa
import pytest

from laion_etl.publish.statistics import SIMILARITY_STEP, Statistics, Tally
from laion_etl.publish.subsets import published_rows, subsets
from laion_etl.records import SCORED_SCHEMA
from laion_etl.settings import PublishSettings
from tests.publish.world import CRAWL, World, build_world


def statistics_of(world: World) -> Statistics:
    found = Statistics(subsets(PublishSettings()))
    for rows in world.batches.values():
        for batch in pa.Table.from_pylist(rows, schema=SCORED_SCHEMA).to_batches(max_chunksize=7):
            found.add(batch, published_rows(batch, CRAWL))
    return found


def test_every_histogram_counts_every_kept_sample() -> None:
    world = build_world()
    found = statistics_of(world)
    kept = len(world.kept)
    assert (found.kept, found.rejected) == (kept, len(world.rows) - kept)
    for counts in (found.similarity_kept, found.sides, found.short_sides, found.file_bytes):
        assert counts.sum() == kept
    assert found.similarity_rejected.sum() == len(world.rows) - kept
    assert found.aesthetic.sum() == sum(row["aesthetic"] is not None for row in world.kept)
    for tally in (found.languages, found.licenses, found.domains, found.safety_kept):
        assert sum(count for _, count in tally.top()) == kept


def test_the_median_is_within_a_step_of_the_true_one() -> None:
    world = build_world(samples=100)
    true = reference.median(row["similarity"] for row in world.kept)
    assert statistics_of(world).quantile(0.5) == pytest.approx(true, abs=SIMILARITY_STEP)


def test_thresholds_are_read_from_the_rows() -> None:
    assert statistics_of(build_world()).thresholds == {"English": {0.28}, "other": {0.26}}


def test_hosts_are_counted_without_www_and_broken_urls_as_unknown() -> None:
    world = build_world(batches=1, samples=3)
    urls = ("https://www.Example.org/a", "https://example.org:8443/b", "https://[broken/c")
    for row, url in zip(world.batches[0], urls, strict=True):
        row["url"] = url
    assert statistics_of(world).domains.top() == [("example.org", 2), ("?", 1)]


def test_a_tally_of_endless_values_stays_small_and_keeps_the_large_ones() -> None:
    tally = Tally(most_values=100)
    for start in range(0, 5_000, 50):
        rare = [str(number) for number in range(start, start + 50)]
        tally.add(pa.chunked_array([[*rare, "often", "often"]]))
    assert len(tally) <= 100
    assert not tally.complete
    assert tally.top(1) == [("often", 200)]


def test_a_tally_ignores_the_order_of_its_input() -> None:
    values = ["b", "a", "c", "a", "b"]
    one, other = Tally(), Tally()
    one.add(pa.chunked_array([values]))
    other.add(pa.chunked_array([values[::-1]]))
    assert one.top() == other.top() == [("a", 2), ("b", 2), ("c", 1)]
