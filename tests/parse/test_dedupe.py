import hashlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from laion_etl.parse.dedupe import RecentPairs, RepeatedTextCounter


def ids(numbers: list[int]) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    digests = b"".join(hashlib.md5(str(n).encode(), usedforsecurity=False).digest() for n in numbers)
    return np.frombuffer(digests, np.uint8).reshape(-1, 16).copy()


@given(st.lists(st.lists(st.integers(0, 60), max_size=40), max_size=6))
def test_fresh_are_those_not_seen_before(columns: list[list[int]]) -> None:
    seen, known = RecentPairs(1_000_000), set[int]()
    for column in columns:
        expected = []
        for number in column:
            expected.append(int(number not in known))
            known.add(number)
        assert seen.add(ids(column)).tolist() == expected


def test_hundreds_of_thousands_are_remembered_exactly() -> None:
    seen = RecentPairs(1_000_000)
    column = ids(list(range(300_000)))
    assert seen.add(column).sum() == 300_000
    assert seen.add(column).sum() == 0


def test_memory_is_bounded_and_the_latest_are_remembered() -> None:
    seen = RecentPairs(1_000)
    for first in range(0, 20_000, 250):
        assert seen.add(ids(list(range(first, first + 250)))).sum() == 250
    assert seen.add(ids(list(range(19_500, 20_000)))).sum() == 0
    assert seen.add(ids(list(range(100)))).sum() == 100  # forgotten


def test_the_id_of_zeros_is_never_known() -> None:
    seen = RecentPairs(100)
    assert seen.add(np.zeros((2, 16), np.uint8)).tolist() == [1, 1]


def test_a_text_is_repeated_from_the_next_time_on() -> None:
    texts = RepeatedTextCounter(2)
    hashes = np.array([7, 8, 7, 7, 8, 7, 8], np.uint64)
    assert texts.mark(hashes).tolist() == [0, 0, 0, 1, 0, 1, 1]
    assert texts.mark(hashes[:1]).tolist() == [1]


def test_a_full_table_counts_no_new_texts() -> None:
    texts = RepeatedTextCounter(1)
    assert texts.mark(np.arange(2_000_000, dtype=np.uint64)).sum() == 0
    assert texts.mark(np.array([5], np.uint64)).tolist() == [1]
