"""The index of PDQ hashes compared with comparing all."""

import logging
import tracemalloc
from typing import Any

import numpy as np
import pytest

from laion_etl.blocklists import near_better as near_better_module
from laion_etl.blocklists import near_lists, near_runs, near_sets
from laion_etl.blocklists.near_better import near_better, near_listed
from laion_etl.blocklists.near_hashes import Hashes, NearIndex, NearListed, cuts, to_words
from laion_etl.blocklists.near_kept import mark_near_kept
from laion_etl.blocklists.near_kernels import band_values, flatten, join
from laion_etl.blocklists.near_rest import Rest
from laion_etl.blocklists.near_sets import mark_near_in_sets
from laion_etl.blocklists.turned_hashes import turned
from laion_etl.core.errors import InputError
from laion_etl.core.kernels import Longs


def hashes_and_variants(bits: int) -> tuple[Hashes, Hashes]:
    """Return 300 random hashes, and others that differ from one of them in up to `bits` + 2 bits."""
    rng = np.random.default_rng(bits)
    hashes = rng.integers(0, 256, (300, 32), dtype=np.uint8)
    flips = [rng.choice(256, min(256, int(rng.integers(0, bits + 3))), replace=False) for _ in range(80)]
    masks = np.zeros((80, 256), np.uint8)
    for mask, places in zip(masks, flips, strict=True):
        mask[places] = 1
    return hashes, hashes[rng.integers(0, 300, 80)] ^ np.packbits(masks, axis=1)


@pytest.mark.parametrize("bits", [0, 1, 3, 7, 10, 15, 16, 23, 31, 32, 120, 256])
def test_the_same_as_comparing_all(bits: int) -> None:
    hashes, others = hashes_and_variants(bits)
    near = np.bitwise_count(hashes[:, None] ^ others[None]).sum(axis=2, dtype=np.int64) <= bits
    index = NearIndex(hashes, bits)
    assert index.near(others).tolist() == np.flatnonzero(near.any(axis=1)).tolist()
    assert [index.has_near(other[None]) for other in others] == near.any(axis=0).tolist()
    assert NearListed(others, bits).near(hashes).tolist() == near.any(axis=1).tolist()
    assert near.any() and (bits > 100 or not near.all())


@pytest.mark.parametrize("bits", [0, 3, 10, 15, 31])
def test_what_is_near_to_a_better_one_that_is_kept_is_what_comparing_all_finds(bits: int) -> None:
    both = np.concatenate(hashes_and_variants(bits))
    both = both[np.random.default_rng(1).permutation(len(both))]
    near = np.bitwise_count(both[:, None] ^ both[None]).sum(axis=2, dtype=np.int64) <= bits
    kept: list[int] = []
    for row in range(len(both)):
        if not near[row, kept].any():
            kept.append(row)
    assert np.flatnonzero(~near_better(both, bits)).tolist() == kept
    assert len(kept) < len(both)


@pytest.mark.parametrize(("most_steps", "most_kept"), [(2_000, 2_048), (0, 2_048), (0, 3)])
@pytest.mark.parametrize("bits", [0, 3, 10, 15, 31])
def test_what_is_near_a_listed_one_is_what_comparing_all_finds(
    bits: int, most_steps: int, most_kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near_better_module, "_MOST_STEPS", most_steps)
    monkeypatch.setattr(near_sets, "_MOST_KEPT", most_kept)
    listed, hashes = hashes_and_variants(bits)
    rng = np.random.default_rng(bits)
    listed = np.concatenate([listed, listed[:9], around(listed[:9], 60, bits, rng)])  # near each other, too
    hashes = np.concatenate([hashes, around(hashes, 100, bits, rng)])
    near = np.bitwise_count(hashes[:, None] ^ listed[None]).sum(axis=2, dtype=np.int64) <= bits
    assert near_listed(listed, hashes, bits).tolist() == near.any(axis=1).tolist()
    assert near.any() and not near.any(axis=1).all()


def alike(count: int, equal: int, rng: np.random.Generator) -> Hashes:
    """Return hashes with the same first bits and random others."""
    hashes = rng.integers(0, 256, (count, 32), dtype=np.uint8)
    hashes[:, : equal // 8] = 0x5A
    return hashes


def kept_of(hashes: Hashes, bits: int) -> list[int]:
    """Return the rows that are kept, by comparing each hash with all kept ones."""
    words, kept = to_words(hashes), [0]
    kept_words = words.copy()
    for row in range(1, len(words)):
        if np.bitwise_count(kept_words[: len(kept)] ^ words[row]).sum(axis=1, dtype=np.int64).min() > bits:
            kept_words[len(kept)] = words[row]
            kept.append(row)
    return kept


@pytest.mark.parametrize("bits", [0, 3, 10, 15, 31])
def test_where_many_hashes_agree_in_bands_the_kept_ones_are_those_that_comparing_all_finds(bits: int) -> None:
    """Long lists of hashes are divided, those of 120 equal bits twice."""
    rng = np.random.default_rng(bits)
    hashes = np.concatenate([alike(500, 64, rng), alike(700, 120, rng)])
    masks = np.zeros((400, 256), np.uint8)
    for mask in masks:
        mask[rng.choice(256, int(rng.integers(0, bits + 3)), replace=False)] = 1
    hashes = np.concatenate(
        [hashes, hashes[rng.integers(0, len(hashes), len(masks))] ^ np.packbits(masks, axis=1)]
    )
    kept = kept_of(hashes, bits)
    assert np.flatnonzero(~near_better(hashes, bits)).tolist() == kept
    assert 1200 < len(kept) < len(hashes)


def steps_for(hashes: Hashes) -> int:
    """Return how many steps finding the kept of some hashes takes."""
    near = np.zeros(len(hashes), np.bool_)
    return mark_near_kept(to_words(hashes), 10, *cuts(10), near)


@pytest.mark.parametrize("equal", [0, 24, 64, 96])
def test_work_grows_with_the_number_of_hashes_also_where_all_agree_in_bands(equal: int) -> None:
    rng = np.random.default_rng(equal)
    hashes = alike(16_000, equal, rng)
    copies = np.repeat(hashes[:4_000], 4, axis=0)[rng.permutation(16_000)]
    for some in (hashes, copies):
        steps = [steps_for(some[:count]) for count in (4_000, 16_000)]
        assert steps[1] < 1.5 * 4 * steps[0]
        assert steps[1] < 300 * len(some)


def steps_in_sets(hashes: Hashes, bits: int, monkeypatch: pytest.MonkeyPatch) -> float:
    """Compare the kept with those that comparing all finds; returns the steps for each hash."""
    steps: list[int] = []

    def counted(*arguments: Any) -> int:
        steps.append(mark_near_in_sets(*arguments))
        return steps[-1]

    monkeypatch.setattr(near_better_module, "mark_near_in_sets", counted)
    monkeypatch.setattr(near_better_module, "_MOST_STEPS", 10)  # is passed by fewer hashes
    assert np.flatnonzero(~near_better(hashes, bits)).tolist() == kept_of(hashes, bits)
    assert len(steps) == 1, "sets of them are connected"
    return steps[0] / len(hashes)


def changed(hashes: Hashes, count: int, rng: np.random.Generator) -> Hashes:
    """Return the hashes with so many of their last 64 bits changed."""
    places = 192 + np.argsort(rng.random((len(hashes), 64)), axis=1)[:, :count]
    masks = np.zeros((len(hashes), 256), np.uint8)
    np.put_along_axis(masks, places, 1, axis=1)
    return hashes ^ np.packbits(masks, axis=1)


@pytest.mark.parametrize(("apart", "count", "most"), [(1, 1_000, 2), (10, 3_000, 700)])
def test_where_hashes_agree_in_most_bits_work_is_bounded_also_if_each_has_a_near_one(
    apart: int, count: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With copies 10 bits apart all hashes are connected, as their leaders may be."""
    rng = np.random.default_rng(apart)
    far = alike(count, 192, rng)
    hashes = np.concatenate([far, changed(far, apart, rng)])[rng.permutation(2 * count)]
    assert steps_in_sets(hashes, 10, monkeypatch) < most


def test_where_hashes_agree_in_most_bits_memory_has_a_bound_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists of the kept hashes would take 12 kB for each. The same are kept as by comparing all."""
    monkeypatch.setattr(near_lists, "_ALWAYS_ALLOWED_SLOTS", 0)
    rng = np.random.default_rng(6)
    far = alike(1_000, 192, rng)
    hashes = np.concatenate([far, changed(far, 10, rng)])[rng.permutation(2_000)]
    near = near_better(hashes, 10)  # loads what is compiled
    assert np.flatnonzero(~near).tolist() == kept_of(hashes, 10)
    tracemalloc.start()
    try:
        near_better(hashes, 10)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < (4 << 20) + 700 * len(hashes), "4 MiB are there at first"


@pytest.mark.parametrize("bits", [3, 10, 15])
def test_where_hashes_agree_in_most_bits_the_same_are_kept_of_chains_clusters_and_copies(
    bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(bits)
    far = alike(1_000, 192, rng)
    chain = [far[:1]]
    for _ in range(300):
        chain.append(changed(chain[-1], bits, rng))
    clusters = np.concatenate([around(far[:60], 500, bits, rng), around(far[:1], 300, 4, rng)])
    hashes = np.concatenate([far, *chain, clusters, far[:500], np.repeat(far[:1], 500, axis=0)])
    assert steps_in_sets(hashes[rng.permutation(len(hashes))], bits, monkeypatch) < 500


@pytest.mark.parametrize("bits", [0, 1, 3, 10, 15, 31])
def test_a_set_that_keeps_many_is_decided_by_the_bits_in_which_they_differ(
    bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near_sets, "_MOST_KEPT", 4)
    rng = np.random.default_rng(bits)
    far = alike(300, 192, rng)
    hashes = np.concatenate([far, around(far[:200], 600, min(bits + 2, 30), rng), far[:50]])
    hashes = hashes[rng.permutation(len(hashes))]
    near, halves = np.zeros(950, np.bool_), [kept_of(hashes[:475], bits), kept_of(hashes[475:], bits)]
    mark_near_in_sets(to_words(hashes), np.repeat([0, 475], 475), bits, near)
    assert np.flatnonzero(~near).tolist() == halves[0] + [475 + row for row in halves[1]]
    near[:] = False
    mark_near_in_sets(to_words(hashes), np.zeros(950, np.int64), bits, near)
    assert np.flatnonzero(~near).tolist() == kept_of(hashes, bits)
    assert 10 < near.sum() < 945


def connected(hashes: Hashes, bits: int, band: int = 0) -> tuple[Longs, Rest]:
    """Return the set of each hash, all of which agree in a band, and how it was found."""
    rest = Rest(to_words(hashes), bits, band, *cuts(bits))
    edges, parents = rest.run(), np.arange(len(hashes))
    join(parents, edges[:, 0].copy(), edges[:, 1].copy())
    flatten(parents)
    return parents, rest


def around(centres: Hashes, count: int, most: int, rng: np.random.Generator) -> Hashes:
    """Return hashes that differ in up to `most` of their last 64 bits from one of the centres."""
    masks = np.zeros((count, 256), np.uint8)
    for mask in masks:
        mask[192 + rng.choice(64, int(rng.integers(0, most + 1)), replace=False)] = 1
    return centres[rng.integers(0, len(centres), count)] ^ np.packbits(masks, axis=1)


@pytest.mark.parametrize("bits", [0, 1, 3, 10, 15])
def test_where_hashes_agree_in_most_bits_all_near_ones_are_connected(bits: int) -> None:
    """Hashes far apart, copies, a crowd around one of them, and a half with all other bits changed."""
    rng = np.random.default_rng(bits)
    far = alike(700, 192, rng)
    hashes = np.concatenate([far, around(far[:60], 200, bits, rng), around(far[:1], 300, 4, rng), far[:50]])
    hashes = np.concatenate([hashes, hashes ^ np.repeat(np.uint8([0, 255, 0]), (8, 16, 8))])
    hashes = hashes[rng.permutation(len(hashes))]
    parents, _ = connected(hashes, bits)
    words = to_words(hashes)
    expected = np.arange(len(hashes))
    for row in range(len(hashes)):
        near = np.flatnonzero(np.bitwise_count(words[row] ^ words).sum(axis=1, dtype=np.int64) <= bits)
        assert (parents[near] == parents[row]).all()
        join(expected, np.full(len(near), row), near)
    flatten(expected)
    assert bits or (parents == expected).all()
    assert bits > 3 or len(np.unique(parents)) > 400, "what is far is not connected"


@pytest.mark.parametrize("equal", [0, 96, 160, 192])
def test_work_hardly_grows_by_hash_where_all_agree_in_most_bits(equal: int) -> None:
    rng = np.random.default_rng(equal)
    hashes = alike(16_000, equal, rng)
    half = hashes.copy()
    half[8_000:, : equal // 8] ^= 0xFF  # each of these bits differs in half of the hashes, and says the same
    for some in (hashes, half, np.repeat(hashes[:4_000], 4, axis=0)):
        _, rest = connected(some, 10)
        assert rest.compared < 3_000 * len(some), "eight times 16,000 when all are compared in equal bands"


def test_an_empty_index_and_no_others() -> None:
    nothing = np.zeros((0, 32), np.uint8)
    some, _ = hashes_and_variants(0)
    for bits in (0, 31, 40):
        assert not NearIndex(nothing, bits).has_near(some[:1])
        assert NearIndex(nothing, bits).near(some).tolist() == []
        assert NearIndex(some, bits).near(nothing).tolist() == []
        assert not NearListed(nothing, bits).near(some).any()
    assert near_better(nothing, 10).tolist() == []


def test_a_list_longer_than_places_can_name_is_refused() -> None:
    listed = np.broadcast_to(np.uint8(0), (126_322_568, 32))  # takes one byte
    with pytest.raises(InputError, match=r"126,322,568 listed hashes: at most 126,322,567 fit"):
        NearListed(listed, 31)


def test_places_of_listed_hashes_do_not_grow_with_the_bands() -> None:
    """Counted over all bands they would pass 32 bits from 7.9 million hashes on."""
    hashes, others = hashes_and_variants(7)
    index = NearListed(hashes, 7)
    assert int(index._starts.max()) == 17 * len(hashes)
    assert index.near(others).any()


@pytest.mark.parametrize(("bits", "band"), [(0, 0), (1, 1), (10, 0), (10, 3), (10, 10), (15, 8), (31, 31)])
def test_where_many_hashes_agree_in_a_band_near_ones_are_connected_as_by_comparing_all(
    bits: int, band: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Most are far from each other, so that they are compared by the bits outside the band."""
    monkeypatch.setattr(near_runs, "_MOST_LEADERS", 50)
    caplog.set_level(logging.INFO)
    both = np.unpackbits(np.concatenate(hashes_and_variants(bits)), axis=1)
    firsts, widths = cuts(bits)
    alike = slice(int(firsts[band]), int(firsts[band] + widths[band]))
    spread = alike.stop + np.arange(bits + 1) * (256 - int(widths[band])) // (bits + 1)
    for row in range(80):  # pairs that differ in one bit of each band of the others but one
        places = np.delete(spread + row % 6, row % (bits + 1)) % 256
        both[100 + row] = both[row]
        both[100 + row, places] ^= 1
    both[:, alike] = both[0, alike]
    hashes = np.packbits(both, axis=1)
    parents = np.arange(len(hashes))
    for number in range(bits + 1):
        values = band_values(to_words(hashes), int(firsts[number]), int(widths[number]))
        order = np.argsort(values, kind="stable")
        edges = order[near_runs.connected(to_words(hashes[order]), values[order], bits, number)]
        join(parents, edges[:, 0].copy(), edges[:, 1].copy())
    flatten(parents)
    near = np.bitwise_count(hashes[:, None] ^ hashes[None]).sum(axis=2, dtype=np.int64) <= bits
    ones, others = np.nonzero(np.triu(near, 1))
    assert (parents[ones] == parents[others]).all()
    assert len(ones) > 30
    assert len(np.unique(parents)) > 200, "what is far is not connected"
    compared = [record.args for record in caplog.records if isinstance(record.args, tuple)]
    assert 1 < max(found[3] for found in compared if found[0] == len(hashes)) < 50, "not all with all"


@pytest.mark.parametrize("bits", [0, 10, 31, 40])
def test_each_pair_of_a_hash_and_a_listed_one_is_found_once(bits: int) -> None:
    """Equal hashes agree in all 16 bands, and those of a symmetric image in several of its positions."""
    rng = np.random.default_rng(bits)
    stripes = np.tile(np.array([0xAA], np.uint8), (1, 32))
    listed = turned(np.concatenate([rng.integers(0, 256, (20, 32), np.uint8), stripes]))
    others = np.repeat(listed, 2, axis=0)
    others[1::2, rng.integers(0, 32, len(listed))] ^= np.uint8(0b11)
    found = NearListed(listed, bits).pairs(others)
    differing = np.bitwise_count(others[:, None] ^ listed[None]).sum(axis=2)
    expected = np.argwhere(differing <= bits)
    assert found[np.lexsort(found.T[::-1])].tolist() == expected.tolist()
