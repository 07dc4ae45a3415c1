"""Layers of a small network, as loops whose sums have the same order on every machine."""

import math

import numpy as np
import numpy.typing as npt

from laion_etl.core.numba_cache import borrowing_kernel

Floats = npt.NDArray[np.float32]


@borrowing_kernel
def add_rows(weights: Floats, rows: Floats, totals: Floats, texts: int) -> None:
    """Add weighted rows to the totals of some texts, one row after the other.

    Four rows per pass, as each pass reads and writes the totals; and all texts per pass, as the rows do not
    fit in the fastest cache.
    """
    index = 0
    while index + 4 <= rows.shape[0]:
        first, second, third, fourth = rows[index], rows[index + 1], rows[index + 2], rows[index + 3]
        for text in range(texts):
            total, weight = totals[text], weights[text]
            a, b, c, d = weight[index], weight[index + 1], weight[index + 2], weight[index + 3]
            for place in range(total.size):
                total[place] = (
                    ((total[place] + a * first[place]) + b * second[place]) + c * third[place]
                ) + d * fourth[place]
        index += 4
    while index < rows.shape[0]:
        for text in range(texts):
            for place in range(rows.shape[1]):
                totals[text, place] += weights[text, index] * rows[index, place]
        index += 1


@borrowing_kernel
def best_of(scores: Floats) -> int:
    """Return the first of the highest scores."""
    best = 0
    for index in range(1, scores.size):
        if scores[index] > scores[best]:
            best = index
    return best


@borrowing_kernel
def probability(scores: Floats, highest: float) -> np.float32:
    """Return the share of the highest score after softmax."""
    total = np.float32(0.0)
    for index in range(scores.size):
        total += np.float32(math.exp(scores[index] - highest))
    return np.float32(1.0) / total
