import hashlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from laion_etl.parse.dedupe import RecentPairs, RepeatedTextCounter
from laion_etl.parse.kernels.pairs import FRESH, SAME_ID, SEEN

SIZE = 20  # of each URL, unless a test is about it


def fresh(seen: RecentPairs, column: np.ndarray[tuple[int, int], np.dtype[np.uint8]]) -> list[int]:
    return seen.add(column, np.full(len(column), SIZE)).tolist()


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
        assert fresh(seen, ids(column)) == expected


def test_hundreds_of_thousands_are_remembered_exactly() -> None:
    seen = RecentPairs(1_000_000)
    column = ids(list(range(300_000)))
    assert sum(fresh(seen, column)) == 300_000
    assert sum(fresh(seen, column)) == 0


def test_memory_is_bounded_and_the_latest_are_remembered() -> None:
    seen = RecentPairs(1_000)
    for first in range(0, 20_000, 250):
        assert sum(fresh(seen, ids(list(range(first, first + 250))))) == 250
    assert sum(fresh(seen, ids(list(range(19_500, 20_000))))) == 0
    assert sum(fresh(seen, ids(list(range(100))))) == 100  # forgotten


def test_one_id_for_two_pairs_is_found_however_long_ago_the_first_one_was() -> None:
    """The hash of URL and caption has no separator, so the size of the URL says which pair it was."""
    seen = RecentPairs(20_000)
    column = ids(list(range(9_000)))  # more than fit into the first table
    assert seen.add(column, np.arange(9_000)).sum() == 9_000
    assert seen.add(ids([7, 8_500]), np.array([7, 8_499])).tolist() == [SEEN, SAME_ID]
    assert seen.add(ids([20_000]), np.array([70_000])).tolist() == [FRESH]
    assert seen.add(ids([*range(20_000, 22_000), 7]), np.full(2_001, 70_000)).tolist()[-1] == SAME_ID


def test_the_id_of_zeros_is_never_known() -> None:
    seen = RecentPairs(100)
    assert fresh(seen, np.zeros((2, 16), np.uint8)) == [1, 1]


def test_a_text_is_repeated_from_the_next_time_on() -> None:
    texts = RepeatedTextCounter(2)
    hashes = np.array([7, 8, 7, 7, 8, 7, 8], np.uint64)
    assert texts.mark(hashes).tolist() == [0, 0, 0, 1, 0, 1, 1]
    assert texts.mark(hashes[:1]).tolist() == [1]


def test_a_full_table_counts_no_new_texts() -> None:
    texts = RepeatedTextCounter(1)
    assert texts.mark(np.arange(2_000_000, dtype=np.uint64)).sum() == 0
    assert texts.mark(np.array([5], np.uint64)).tolist() == [1]
