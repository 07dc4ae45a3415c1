"""Layers of a small network, as loops whose sums have the same order on every machine."""

import math

import numpy as np
import numpy.typing as npt

from laion_etl.core.kernels import Ints
from laion_etl.core.numba_cache import kernel

Floats = npt.NDArray[np.float32]


@kernel
def add_rows(weights: Floats, chosen: Ints, count: int, rows: Floats, total: Floats) -> None:
    """Add weighted rows, one after the other; four per pass, as each pass reads and writes the total."""
    index = 0
    while index + 4 <= count:
        first, second = rows[chosen[index]], rows[chosen[index + 1]]
        third, fourth = rows[chosen[index + 2]], rows[chosen[index + 3]]
        a, b, c, d = weights[index], weights[index + 1], weights[index + 2], weights[index + 3]
        for place in range(total.size):
            total[place] = (
                ((total[place] + a * first[place]) + b * second[place]) + c * third[place]
            ) + d * fourth[place]
        index += 4
    while index < count:
        row, weight = rows[chosen[index]], weights[index]
        for place in range(total.size):
            total[place] += weight * row[place]
        index += 1


@kernel
def probability(scores: Floats, highest: float) -> np.float32:
    """Return the share of the highest score after softmax."""
    total = np.float32(0.0)
    for index in range(scores.size):
        total += np.float32(math.exp(scores[index] - highest))
    return np.float32(1.0) / total
