"""Small products are the same for any number of rows: the terms are summed in a documented order."""

import numpy as np
import pytest

from laion_etl.score.products import product, row_products


def matrices() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    return tuple(random.standard_normal(shape).astype(np.float32) for shape in ((37, 100), (100, 9)))  # type: ignore[return-value]


def one_after_the_other(row: np.ndarray, column: np.ndarray) -> float:
    total = 0.0
    for left, right in zip(row.tolist(), column.tolist(), strict=True):
        total += left * right
    return total


def test_terms_are_summed_up_from_first_to_last() -> None:
    rows, columns = matrices()
    expected = [[one_after_the_other(row, column) for column in columns.T] for row in rows]
    assert product(rows, columns).tolist() == expected
    assert product(rows, columns[:, 4]).tolist() == [values[4] for values in expected]
    assert row_products(rows, rows).tolist() == [one_after_the_other(row, row) for row in rows]


@pytest.mark.parametrize("count", [1, 2, 16, 36])
def test_the_number_of_rows_and_their_layout_change_no_bit(count: int) -> None:
    rows, columns = matrices()
    expected = product(rows, columns)[:count]
    assert np.array_equal(product(rows[:count], columns), expected)
    assert np.array_equal(product(np.asfortranarray(rows[:count]), np.asfortranarray(columns)), expected)
    for column in range(columns.shape[1]):
        assert np.array_equal(product(rows[:count], columns[:, column]), expected[:, column])


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        ((2, 3), (4, 2)),
        ((2, 3), (2,)),
        ((3,), (3, 1)),
        ((2, 3), (3, 1, 1)),
        ((2, 3, 1), (3, 1)),
        ((2, 3), ()),
    ],
)
def test_what_does_not_fit_together_is_refused(rows: tuple[int, ...], columns: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="cannot multiply"):
        product(np.ones(rows), np.ones(columns))
    with pytest.raises(ValueError, match="cannot multiply"):
        row_products(np.ones((2, 3)), np.ones(rows[:1]))
