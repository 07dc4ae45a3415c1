"""Sums of products in one order, compiled: with numpy's BLAS their last bits depend on the kernel it
chooses for the machine or takes from OPENBLAS_CORETYPE, and on the number of rows.
"""

import numpy as np
import numpy.typing as npt

from laion_etl.core.numba_cache import kernel

Doubles = npt.NDArray[np.float64]


@kernel
def add_products(rows: Doubles, columns: Doubles, out: Doubles) -> None:
    """out (n, k) += rows (n, d) @ columns (d, k), from the first of the d terms to the last."""
    for row in range(rows.shape[0]):
        for term in range(rows.shape[1]):
            value = rows[row, term]
            for column in range(columns.shape[1]):
                out[row, column] += value * columns[term, column]


@kernel
def add_row_products(left: Doubles, right: Doubles, out: Doubles) -> None:
    """out (n) += the products of each two rows of left and right (n, d)."""
    for row in range(left.shape[0]):
        for term in range(left.shape[1]):
            out[row] += left[row, term] * right[row, term]
