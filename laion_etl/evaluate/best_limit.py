"""The limit of a score that fits labels best."""

import numpy as np
from numpy.typing import NDArray


def best_limit(scores: NDArray[np.float64], labels: NDArray[np.bool_]) -> float | None:
    """Return the limit with the best F1, the lower of equals; None unless there are labels of both kinds."""
    wanted = int(labels.sum())
    if not 0 < wanted < len(labels):
        return None
    limits = np.unique(scores)
    found = len(scores) - np.searchsorted(np.sort(scores), limits)
    right = wanted - np.searchsorted(np.sort(scores[labels]), limits)
    return float(limits[int(np.argmax(2 * right / (found + wanted)))])
