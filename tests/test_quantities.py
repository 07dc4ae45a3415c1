"""Numbers with their nouns, and lists that are cut short."""

import pytest

from laion_etl.core.quantities import first_in_line, first_items, quantity


def test_a_count_of_one_has_a_singular_noun() -> None:
    assert [quantity(number, "batch", "batches") for number in (0, 1, 2_000)] == [
        "0 batches",
        "1 batch",
        "2,000 batches",
    ]
    assert quantity(3, "pair") == "3 pairs"


@pytest.mark.parametrize(
    ("most", "items", "line"),
    [
        (3, ["a", "b", "c"], "a, b, c"),
        (2, ["a", "b", "and 1 more"], "a, b and 1 more"),
    ],
)
def test_a_list_that_is_cut_short_says_how_many_are_left_out(most: int, items: list[str], line: str) -> None:
    assert first_items(["a", "b", "c"], most) == items
    assert first_in_line(["a", "b", "c"], most) == line
