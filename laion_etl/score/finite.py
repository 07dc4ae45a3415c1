"""Refuses weights and embeddings that are not finite, or that do not distinguish anything.

NaN compares as false everywhere: samples would pass for dissimilar, or for safe, and no count would show it.
A layer of zeros, as in a file that was created and never filled, gives every image the same score.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from laion_etl.core.errors import ModelError

if TYPE_CHECKING:
    import torch

SAME = 1e-6  # of a number of an embedding whose length is 1
_STATISTICS = ("running_mean", "running_var")  # of batch normalisation; masks of attention hold -inf


def check_arrays(arrays: Mapping[str, NDArray[Any] | float], path: Path) -> None:
    """Raise ModelError that names the first array of a file with a NaN or an infinity."""
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise _not_finite(path, name)


def check_layers(weights: Mapping[str, NDArray[Any]], path: Path) -> None:
    """Raise ModelError that names the first matrix of weights that is all zero."""
    for name, values in weights.items():
        if not values.any():
            raise ModelError(
                f"cannot use the weights {path}: {name} is all zero, which gives every image the same score; "
                "download the file again, or use other weights"
            )


def check_network(network: "torch.nn.Module", path: Path) -> None:
    """Raise ModelError that names the first weight of a network with a NaN or an infinity."""
    import torch

    buffers = ((name, value) for name, value in network.named_buffers() if name.endswith(_STATISTICS))
    for name, value in (*network.named_parameters(), *buffers):
        if not torch.isfinite(value.detach()).all():
            raise _not_finite(path, name)


def check_distinct(embeddings: NDArray[np.float32], model: str, what: str) -> None:
    """Raise ModelError if the embeddings (n, dim) of things that differ are all the same but for rounding."""
    if np.abs(embeddings - embeddings[0]).max() < SAME:
        raise ModelError(
            f"cannot use the model {model}: its embeddings of different {what} are the same; "
            "use other weights"
        )


def check_embeddings(embeddings: NDArray[np.float32], model: str, what: str) -> None:
    """Raise ModelError for embeddings (n, dim) that are not finite, or zero."""
    if not np.isfinite(embeddings).all() or not embeddings.any(axis=1).all():
        raise ModelError(
            f"cannot use the model {model}: its embedding of {what} is zero or not finite; "
            "use other weights, or LAION_ETL_CLIP_PRECISION=fp32"
        )


def _not_finite(path: Path, name: str) -> ModelError:
    return ModelError(
        f"cannot use the weights {path}: {name} has values that are not finite; "
        "download the file again, or use other weights"
    )
