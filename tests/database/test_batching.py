from collections import Counter
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from laion_etl.plan.batching import BatchLimits, assign_batches, assign_batches_by_language

hosts_lists = st.lists(st.integers(0, 12), max_size=300)
sizes = st.integers(1, 50)


def hashes(hosts: list[int]) -> "np.ndarray[tuple[int], np.dtype[np.uint64]]":
    """As far apart as hashes are."""
    return (np.array(hosts, np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)


@given(hosts_lists, sizes, sizes)
def test_every_pair_is_in_one_batch_and_no_batch_is_too_large(
    hosts: list[int], batch_size: int, cap: int
) -> None:
    batches = assign_batches(hashes(hosts), BatchLimits(batch_size, cap, 1_000))
    assert sorted(row for batch in batches for row in batch) == list(range(len(hosts)))
    lengths = [len(batch) for batch in batches]
    assert all(0 < length <= batch_size for length in lengths)
    assert max(lengths, default=0) - min(lengths, default=0) <= 1  # no small last batch
    for batch in batches:
        assert max(Counter(hosts[row] for row in batch).values()) <= cap


@given(hosts_lists, sizes, sizes)
def test_no_more_batches_than_sizes_and_cap_ask_for(hosts: list[int], batch_size: int, cap: int) -> None:
    largest = max(Counter(hosts).values(), default=0)
    assert len(assign_batches(hashes(hosts), BatchLimits(batch_size, cap, 1_000))) == max(
        -(-len(hosts) // batch_size), -(-largest // cap), 0
    )


def test_a_host_is_spread_over_the_whole_batch() -> None:
    hosts = [0] * 100 + list(range(1, 301))
    (batch,) = assign_batches(hashes(hosts), BatchLimits(1000, 1000, 1000))
    places = [place for place, row in enumerate(batch) if hosts[row] == 0]
    gaps = np.diff([-1, *places, len(batch)])
    assert gaps.max() <= 16  # every fourth on average
    assert len([gap for gap in gaps if gap == 1]) < 20


def test_two_hosts_take_turns() -> None:
    (batch,) = assign_batches(hashes([0] * 50 + [1] * 50), BatchLimits(1000, 1000, 1000))
    turns = [row // 50 for row in batch]
    assert all(first != second for first, second in pairwise(turns))


@given(hosts_lists, st.data())
def test_languages_with_a_full_batch_have_batches_of_their_own(hosts: list[int], data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from("abc"), min_size=len(hosts), max_size=len(hosts)))
    batches = assign_batches_by_language(hashes(hosts), np.array(names, object), BatchLimits(20, 1000, 1000))
    assert sorted(row for batch in batches for row in batch) == list(range(len(hosts)))
    large = {name for name, count in Counter(names).items() if count >= 20}
    for batch in batches:
        languages = {names[row] for row in batch}
        assert len(languages) == 1 or not languages & large


@given(hosts_lists, sizes, st.integers(1, 5), st.integers(0, 20), st.booleans())
def test_with_few_numbers_a_host_has_more_pairs_in_each_batch(
    hosts: list[int], batch_size: int, cap: int, more: int, by_language: bool
) -> None:
    names = np.array(["ab"[host % 2] for host in hosts], object)
    groups = Counter(names.tolist()).values() if by_language else [len(hosts)]
    numbers = sum(-(-size // batch_size) for size in groups) + more
    limits = BatchLimits(batch_size, cap, numbers)
    if by_language:
        batches = assign_batches_by_language(hashes(hosts), names, limits)
    else:
        batches = assign_batches(hashes(hosts), limits)
    assert sorted(row for batch in batches for row in batch) == list(range(len(hosts)))
    assert len(batches) <= numbers
    assert all(0 < len(batch) <= batch_size for batch in batches)
    largest = max((max(Counter(hosts[row] for row in batch).values()) for batch in batches), default=0)
    assert largest <= cap or len(batches) == numbers or by_language
