"""The order of samples from best to worst: by similarity, then by pixels, then by key."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from laion_etl.blocklists.near_hashes import Ints


def best_first(similarity: NDArray[np.float32], pixels: Ints, keys: NDArray[Any]) -> Ints:
    """Return the order of samples from best to worst."""
    return np.lexsort((keys, -pixels, -similarity))


def ranks(similarity: NDArray[np.float32], pixels: Ints, keys: Ints) -> NDArray[np.bytes_]:
    """Return for each sample bytes that are in that order."""
    found = np.zeros(len(keys), [("similarity", ">u4"), ("pixels", ">i8"), ("key", ">i8")])
    comparable = np.nan_to_num(similarity, nan=-np.inf) + np.float32(0)  # -0 is 0
    plain = comparable.view(np.uint32)
    found["similarity"] = np.where(plain >> 31, plain, ~plain & 0x7FFFFFFF)
    found["pixels"], found["key"] = np.iinfo(np.int64).max - pixels, keys
    return found.view("S20")
