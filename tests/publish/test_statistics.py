import hashlib
import json
import re
import statistics as reference
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from laion_etl.core.schemas import SCORED_SCHEMA
from laion_etl.dataset.subsets import published_rows, subsets
from laion_etl.report.contents import MEASURES, PAIRS
from laion_etl.report.sketches import HexGrid, Repeats, Tally
from laion_etl.report.statistics import ENGLISH, OTHER, SIMILARITY_STEP, Statistics, hosts
from laion_etl.settings import PublishSettings
from tests.publish.world import CRAWL, World, build_world


def statistics_of(world: World) -> Statistics:
    found = Statistics(subsets(PublishSettings()))
    for rows in world.batches.values():
        for batch in pa.Table.from_pylist(rows, schema=SCORED_SCHEMA).to_batches(max_chunksize=7):
            found.add(batch, published_rows(batch, CRAWL))
    return found


def carried(found: Statistics) -> Statistics:
    """The statistics as another process reads them."""
    return Statistics.from_plain(json.loads(json.dumps(found.to_plain())), found.subsets)


def test_statistics_of_ranges_merge_into_those_of_one_pass() -> None:
    world = build_world(batches=4)
    merged = Statistics(subsets(PublishSettings()))
    for batch, rows in world.batches.items():
        merged.merge(carried(statistics_of(World({batch: rows}))))
    whole = statistics_of(world)
    assert merged.to_plain() == whole.to_plain()
    assert whole.images.by_count()
    assert len(whole.language_similarities) > 3


def test_a_language_that_a_range_did_not_count_has_no_histogram() -> None:
    def of(*languages: str) -> Statistics:
        found = Statistics(subsets(PublishSettings()))
        [row] = build_world(batches=1, samples=1).rows
        for language in languages:
            rows = pa.RecordBatch.from_pylist([row | {"language": language}], SCORED_SCHEMA)
            found.add(rows, published_rows(rows, CRAWL))
        return found

    codes = [f"x{number:03d}" for number in range(201)]
    full, few = of(*codes), of("x005", "x200", "other")
    for first, second in ((full, few), (few, full)):
        merged = carried(first)
        merged.merge(carried(second))
        assert merged.more_languages
        assert merged.language_similarities["x005"].sum() == 2
        assert not {"x200", "other"} & merged.language_similarities.keys(), "one side has not counted them"


def test_every_histogram_counts_every_kept_sample() -> None:
    world = build_world()
    found = statistics_of(world)
    kept = len(world.kept)
    assert (found.kept, found.rejected) == (kept, len(world.rows) - kept)
    for counts in (
        found.similarity_kept,
        found.short_sides,
        found.file_bytes,
        found.caption_chars,
        found.punsafe,
    ):
        assert counts.sum() == kept
    assert sum(group.rejected.sum() for group in found.similarities.values()) == len(world.rows) - kept
    assert sum(counts.sum() for counts in found.language_similarities.values()) == kept
    assert sum(count for _, _, count in found.sides.cells()) == kept
    assert sum(times * values for times, values in found.images.by_count()) == kept
    assert found.aesthetic.sum() == sum(row["aesthetic"] is not None for row in world.kept)
    for tally in (found.languages, found.licenses, found.domains, found.safety_kept):
        assert sum(count for _, count in tally.top()) == kept


def test_sides_words_and_correlations_are_those_of_the_rows() -> None:
    world = build_world(batches=2, samples=60)
    found = statistics_of(world).contents
    kept = [row for row in world.kept if row["original_width"]]
    both = [
        sum(min(r["original_width"], r["original_height"]) >= px for r in kept) for px in (256, 512, 1024)
    ]
    either = [
        sum(max(r["original_width"], r["original_height"]) >= px for r in kept) for px in (256, 512, 1024)
    ]
    assert found.resolutions.tolist() == [count for pair in zip(both, either, strict=True) for count in pair]
    assert found.aspects.sum() == len(world.kept)

    safe = [row for row in world.kept if row["nsfw_tag"] == "UNLIKELY" and row["language"] == "en"]
    words = Counter(
        word for row in safe for word in re.findall(r"[\w']+", row["caption"].lower()) if len(word) > 2
    )
    assert dict(found.words.of("en", 10_000)) == words
    pair = PAIRS.index((MEASURES.index("similarity"), MEASURES.index("aesthetic")))
    scored = [(row["similarity"], row["aesthetic"]) for row in world.kept if row["aesthetic"] is not None]
    expected = np.corrcoef(np.array(scored).T)[0, 1]
    assert found.correlation(pair) == pytest.approx(expected, abs=0.01)


def test_captions_that_are_not_tagged_as_safe_are_not_counted_in_words() -> None:
    [row] = build_world(batches=1, samples=1).rows
    found = Statistics(subsets(PublishSettings()))
    for tag in ("UNLIKELY", "NSFW", "UNSURE", None):
        rows = pa.RecordBatch.from_pylist([row | {"nsfw_tag": tag, "caption": f"seen {tag}"}], SCORED_SCHEMA)
        found.add(rows, published_rows(rows, CRAWL))
    assert [word for word, _ in found.contents.words.of(row["language"], 9)] == ["seen", "unlikely"]


def test_the_median_is_within_a_step_of_the_true_one() -> None:
    world = build_world(samples=100)
    true = reference.median(row["similarity"] for row in world.kept)
    assert statistics_of(world).quantile(0.5) == pytest.approx(true, abs=SIMILARITY_STEP)


def test_thresholds_are_read_from_the_rows() -> None:
    assert statistics_of(build_world()).thresholds == {"English": {0.28}, "other": {0.26}}


def test_hosts_are_counted_without_www_and_broken_urls_as_unknown() -> None:
    urls = {
        "https://www.Example.org/a": "example.org",
        "https://example.org:8443/b?c=https://other.example": "example.org",
        "http://user:word@bücher.example": "bücher.example",
        "https://[2001:DB8::1]:80/x": "[2001:db8::1]",
        "https://[broken/c": "?",
        "no url": "?",
    }
    assert hosts(pa.chunked_array([list(urls)])).to_pylist() == list(urls.values())


def test_similarities_are_grouped_by_the_language_their_threshold_depends_on() -> None:
    world = build_world()
    english = [row for row in world.kept if row["language"] == "en"]
    found = statistics_of(world)
    assert found.similarities[ENGLISH].kept.sum() == len(english)
    assert found.similarities[OTHER].kept.sum() == len(world.kept) - len(english)
    assert found.language_similarities["en"].tolist() == found.similarities[ENGLISH].kept.tolist()


def test_a_tally_of_endless_values_says_how_exact_it_is() -> None:
    tally = Tally(max_values=100)
    for start in range(0, 5_000, 50):
        rare = [str(number) for number in range(start, start + 50)]
        tally.add(pa.chunked_array([[*rare, "often", "often"]]))
    assert len(tally) <= 100
    assert not tally.complete
    (name, count), *_ = tally.top(1)
    assert name == "often"
    assert 200 - tally.error <= count <= 200
    assert tally.error <= 2 * 5_200 / 100


def test_tallies_of_parts_merge_within_the_error_that_they_state() -> None:
    values = [f"{number % (number % 97 + 2)}/{number % 31}" for number in range(20_000)] + ["often"] * 3_000
    true, merged = Counter(values), Tally(max_values=200)
    for start in range(0, len(values), 1_500):
        part = Tally(max_values=200)
        part.add(pa.chunked_array([values[start : start + 1_500]]))
        plain = json.loads(json.dumps(part.to_plain()))
        assert Tally.from_plain(plain).top() == part.top()
        merged.merge(part)
    assert len(merged) <= 200
    assert 0 < merged.error <= 2 * len(values) / 200
    for value, count in merged.top():
        assert true[value] - merged.error <= count <= true[value]
    assert merged.top(1)[0][0] == "often"


def test_repeats_of_parts_merge_into_those_of_one_pass() -> None:
    hashes = [hash_of(number % 7_000) for number in range(16_000)]
    whole, merged = Repeats(max_sampled=500), Repeats(max_sampled=500)
    whole.add(pa.chunked_array([hashes]))
    for start in (0, 500, 4_000, 12_000):
        part = Repeats(max_sampled=500)
        part.add(pa.chunked_array([hashes[start : {0: 500, 500: 4_000, 4_000: 12_000}.get(start, 16_000)]]))
        merged.merge(Repeats.from_plain(json.loads(json.dumps(part.to_plain()))))
    assert whole.factor > 1
    assert merged.to_plain() == whole.to_plain()


def test_repeats_are_exact_until_there_are_too_many_and_estimates_then() -> None:
    once = [f"{hash_of(number)}" for number in range(20_000)]
    exact, estimated = Repeats(), Repeats(max_sampled=2_000)
    for repeats in (exact, estimated):
        for _ in range(3):
            repeats.add(pa.chunked_array([[hash_of("image"), *once[:10_000], None, ""]]))
        repeats.add(pa.chunked_array([once[10_000:]]))
    assert (exact.factor, dict(exact.by_count())) == (1, {1: 10_000, 3: 10_001})
    assert estimated.factor == 16
    assert dict(estimated.by_count()) == {
        1: pytest.approx(10_000, rel=0.15),
        3: pytest.approx(10_001, rel=0.15),
    }


def hash_of(value: object) -> str:
    return hashlib.sha256(str(value).encode()).hexdigest()


def test_every_point_goes_to_the_hexagon_with_the_nearest_centre() -> None:
    rng = np.random.default_rng(3)
    points = rng.uniform(5.5, 13.5, (400, 2))
    grid = HexGrid(5.0, 14.0, 0.25)
    grid.add(points[:, 0], points[:, 1])
    cells = list(grid.cells())
    centres = np.array([(x, y) for x, y, _ in cells])
    nearest = np.linalg.norm(points[:, None] - centres[None], axis=2).argmin(axis=1)
    assert np.bincount(nearest, minlength=len(cells)).tolist() == [count for _, _, count in cells]


def test_points_outside_go_to_the_edge() -> None:
    grid = HexGrid(5.0, 14.0, 0.25)
    grid.add(np.array([0.0, 99.0]), np.array([5.0, 14.0]))
    assert sorted(round(x) for x, _, _ in grid.cells()) == [5, 14]


def test_a_tally_ignores_the_order_of_its_input() -> None:
    values = ["b", "a", "c", "a", "b"]
    one, other = Tally(), Tally()
    one.add(pa.chunked_array([values]))
    other.add(pa.chunked_array([values[::-1]]))
    assert one.top() == other.top() == [("a", 2), ("b", 2), ("c", 1)]


def test_similarities_by_the_source_of_the_caption() -> None:
    world = build_world(batches=1)
    [rows] = world.batches.values()
    sources = (None, "alt", "title", "og")
    marked = [row | {"caption_source": sources[place % 4]} for place, row in enumerate(rows)]
    found = carried(statistics_of(World({0: marked}))).source_similarities
    assert list(found) == ["alt", "og", "title"]
    for source, names in (("alt", (None, "alt")), ("title", ("title",)), ("og", ("og",))):
        mine = [row for row in marked if row["caption_source"] in names]
        kept = sum(row["reason"] is None for row in mine)
        assert (found[source].kept.sum(), found[source].rejected.sum()) == (kept, len(mine) - kept)
