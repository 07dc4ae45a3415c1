"""How the batch numbers that are left are divided among the windows of a plan."""

from itertools import pairwise

import pytest

from laion_etl.plan.batch_numbers import Slot
from laion_etl.plan.slots import slots

END = 999_999


def test_a_single_window_has_all_numbers_that_are_left() -> None:
    assert slots(7, END, 1, 100) == [Slot(7, END)]


def test_windows_have_four_times_the_numbers_they_need() -> None:
    made = slots(7, END, 3, 100)
    assert [len(slot) for slot in made] == [416, 416, 416]
    assert [slot.first for slot in made] == [7, 423, 839]


def test_a_whole_crawl_leaves_numbers_to_a_later_round() -> None:
    first = slots(0, END, 3_000, 100)
    assert min(map(len, first)) == 216
    later = slots(first[-1].last + 1, END, 150, 100)
    assert min(map(len, later)) == 416
    assert later[-1].last < END


def test_large_slots_share_no_file_of_the_record() -> None:
    made = slots(1_234, END, 5, 1_000)
    assert [(slot.first, len(slot)) for slot in made] == [(2_000 + 4_000 * n, 4_000) for n in range(5)]


@pytest.mark.parametrize("following", [END - 20, END, END + 1])
def test_slots_may_be_too_small_or_empty_but_never_overlap(following: int) -> None:
    made = slots(following, END, 9, 100)
    assert len(made) == 9
    assert all(one.last < other.first for one, other in pairwise(made))
    assert made[-1].last <= END
