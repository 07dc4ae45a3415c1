"""Chains of linear layers as LAION publishes them: torch state dicts with `layers.N.weight` and `.bias`.

A state dict has no activations, but the places of its layers in the original `Sequential` show where there
is room for them. LAION's own files are known; other chains are refused unless nothing can be between their
layers:

| places | what is between | file |
|---|---|---|
| 0 2 4 6 7 | dropout | aesthetic predictor v2, linear |
| 0 3 6 9 11 | ReLU, dropout | aesthetic predictor v2, ReLU |
| 0 3 6 9 12 15 16 | ReLU, dropout; nothing between the last two | NSFW detector for ViT-H/14 |

Dropout does nothing when scoring.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from laion_etl.core.errors import ModelError
from laion_etl.core.stage_stats import fingerprint
from laion_etl.score.finite import check_arrays, check_layers
from laion_etl.score.products import product
from laion_etl.score.torch_files import check_floats, read_torch

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float32]
State = Mapping[str, "torch.Tensor"]

Layouts = Mapping[tuple[int, ...], tuple[int, ...]]  # places of layers, and those that a ReLU follows

AESTHETIC: Layouts = {(0, 2, 4, 6, 7): (), (0, 3, 6, 9, 11): (0, 3, 6, 9)}
NSFW: Layouts = {(0, 3, 6, 9, 12, 15, 16): (0, 3, 6, 9, 12)}
_LAYER = re.compile(r"layers\.(\d{1,4})\.(?:weight|bias)")


@dataclass(frozen=True, slots=True)
class LayerChain:
    """Linear layers that an embedding goes through one after another, with a ReLU after some."""

    weights: tuple[Floats, ...]  # (out, in)
    biases: tuple[Floats, ...]
    rectified: tuple[bool, ...]  # whether a ReLU follows

    def score(self, images: Floats) -> Floats:
        """Scores (n) of L2-normalised embeddings (n, dim)."""
        values = images
        for weight, bias, rectified in zip(self.weights, self.biases, self.rectified, strict=True):
            found = product(values, weight.T) + bias
            values = (np.maximum(found, 0) if rectified else found).astype(np.float32)
        return values[:, 0]

    @property
    def identity(self) -> str:
        """Changes when the chain does."""
        arrays = (array.tobytes() for array in (*self.weights, *self.biases))
        return fingerprint("chain", self.rectified, *arrays)


def read_state(path: Path, what: str) -> dict[str, "torch.Tensor"]:
    """Return the state dict of a file, without unpickling code. Raises ModelError for any other file."""
    import torch

    state = read_torch(path, what)
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and torch.is_tensor(value) and _is_plain(value) for name, value in state.items()
    ):
        raise ModelError(
            f"cannot use {path} as {what}: it holds no state dict; give a file that LAION publishes"
        )
    check_floats({name: value.is_floating_point() for name, value in state.items()}, path)
    floats = {name: value.detach().float() for name, value in state.items()}  # parameters have no numpy()
    check_arrays({name: value.numpy() for name, value in floats.items()}, path)
    return floats


def _is_plain(tensor: "torch.Tensor") -> bool:
    """Whether a tensor is one of real numbers that are all there."""
    import torch

    strided = tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_complex()
    if not strided or tensor.is_meta:
        return False
    # A view may repeat the numbers of a small file until they fill the memory.
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def places_of(state: State) -> tuple[int, ...]:
    """Return the places of a chain of layers; none for any other state."""
    places = tuple(sorted({int(match[1]) for name in state if (match := _LAYER.fullmatch(name))}))
    named = {f"layers.{place}.{part}" for place in places for part in ("weight", "bias")}
    return places if named == set(state) else ()


def chain_of(state: State, path: Path, dim: int, layouts: Layouts) -> LayerChain:
    """Return the chain of a state, for embeddings of `dim`.

    Raises ModelError for places that are not among the layouts, unless nothing can be between the layers, and
    for a chain that does not lead from `dim` numbers to one.
    """
    places = places_of(state)
    adjacent = {tuple(range(len(places))): ()}
    following = {**adjacent, **layouts}.get(places)
    if following is None:
        known = " or ".join(str(list(one)) for one in layouts)
        raise ModelError(
            f"cannot use the head {path}: what is between its layers {list(places)} is unknown; give one "
            f"whose layers are at {known}"
        )
    weights, biases = (
        tuple(state[f"layers.{place}.{part}"].float().numpy() for place in places)
        for part in ("weight", "bias")
    )
    shapes = [weight.shape for weight in weights]
    sizes = [dim, *(bias.size for bias in biases)]
    fitting = shapes == [(after, before) for before, after in pairwise(sizes)] and sizes[-1] == 1
    if not fitting or any(bias.ndim != 1 for bias in biases):
        raise ModelError(
            f"cannot use the head {path}: it is not for embeddings of {dim} numbers, its layers have the "
            f"shapes {shapes}; give the head of the CLIP model"
        )
    check_layers(
        {f"layers.{place}.weight": value for place, value in zip(places, weights, strict=True)}, path
    )
    return LayerChain(weights, biases, tuple(place in following for place in places))


def folded(chain: LayerChain) -> tuple[Floats, float]:
    """Return weight and bias of a chain without ReLU as one linear function."""
    weight, bias = chain.weights[0].astype(np.float64), chain.biases[0].astype(np.float64)
    for above, more in zip(chain.weights[1:], chain.biases[1:], strict=True):
        weight, bias = product(above, weight), product(above, bias) + more
    return weight[0].astype(np.float32), float(bias[0])
