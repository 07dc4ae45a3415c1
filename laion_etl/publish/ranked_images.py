"""The order of samples from best to worst: by similarity, then by pixels, then by key."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from laion_etl.blocklists.near_hashes import Ints


def best_first(similarity: NDArray[np.float32], pixels: Ints, keys: NDArray[Any]) -> Ints:
    """Return the order of samples from best to worst."""
    return np.lexsort((keys, -pixels, -similarity))
