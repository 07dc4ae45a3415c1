"""Checks a head when it is loaded: that its scores are finite, and not the same for every image.

Finite weights may overflow in a layer, and behind a ReLU that never opens only the last bias is left: every
image would then pass, or fail, by a number that says nothing about it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laion_etl.core.errors import ModelError

Score = Callable[[NDArray[np.float32]], NDArray[Any]]  # of embeddings (n, dim): n scores
_TRIED = 32  # embeddings, and as many opposite ones
_SEED = 20_221_016


def check_head(score: Score, named: str, dim: int) -> None:
    """Raise ModelError for a head with scores that are not finite, or all the same.

    Args:
        score: The head's function, before anything that maps many scores to one: probabilities of a head
            that is sure of every image are all 1 in float32, and still right.
        named: Its file, for the error.
        dim: The length of its embeddings.
    """
    drawn = np.random.default_rng(_SEED).standard_normal((_TRIED, dim)).astype(np.float32)
    half = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    with np.errstate(over="ignore", invalid="ignore"):
        scores = score(np.concatenate([half, -half])).astype(np.float32)
    if not np.isfinite(scores).all():
        raise _refused(named, "its scores are not finite")
    if (scores == scores[0]).all():
        raise _refused(named, "it gives every image the same score")


def _refused(named: str, cause: str) -> ModelError:
    return ModelError(f"cannot use the head {named}: {cause}; download the file again, or use another head")
