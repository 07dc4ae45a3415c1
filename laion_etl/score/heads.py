"""Aesthetic and violence heads on CLIP image embeddings: LAION's own files and others like them.

- Aesthetic predictor v1, https://github.com/LAION-AI/aesthetic-predictor: the state dict of a torch
  `Linear(dim, 1)` on L2-normalised embeddings; scores are about 1 to 10.
- Aesthetic predictor v2, https://github.com/christophschuhmann/improved-aesthetic-predictor: linear layers
  768-1024-128-64-16-1. The places of the layers in the file say what is between them: at 0, 2, 4, 6, 7 only
  dropout, so together they are one linear function, folded here; at 0, 3, 6, 9, 11 also a ReLU after each but
  the last. Layers at other places are refused unless nothing can be between them.
- Violence, https://github.com/LAION-AI/CLIP-based-NSFW-Detector: two text embeddings, of "no" and "yes".

Settings name a head as a path, or as `path#sha256=<hex>`: then a file with other bytes is refused.
"""

import hashlib
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from laion_etl.core.errors import ModelError
from laion_etl.core.stage_stats import fingerprint
from laion_etl.score.finite import check_arrays
from laion_etl.score.products import product
from laion_etl.score.safety import TEMPERATURE

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float32]

_DROPOUT_BETWEEN, _RELU_BETWEEN = [0, 2, 4, 6, 7], [0, 3, 6, 9, 11]  # places of LAION's layers
_LAYER = re.compile(r"layers\.(\d+)\.(?:weight|bias)")


@dataclass(frozen=True, slots=True)
class LinearHead:
    """score = embedding . weight + bias."""

    weight: Floats
    bias: float

    def score(self, images: Floats) -> Floats:
        """Scores (n) of L2-normalised embeddings (n, dim)."""
        scores = product(images, self.weight) + self.bias
        return scores.astype(np.float32)

    @property
    def identity(self) -> str:
        """Changes when the head does."""
        return fingerprint(self.weight.tobytes(), self.bias)


@dataclass(frozen=True, slots=True)
class ReluHead:
    """score = the last layer of relu(.. relu(the first layer of the embedding))."""

    weights: tuple[Floats, ...]  # (out, in)
    biases: tuple[Floats, ...]

    def score(self, images: Floats) -> Floats:
        """Scores (n) of L2-normalised embeddings (n, dim)."""
        values = images
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            values = np.maximum(product(values, weight.T) + bias, 0).astype(np.float32)
        scores = product(values, self.weights[-1].T) + self.biases[-1]
        return scores[:, 0].astype(np.float32)

    @property
    def identity(self) -> str:
        """Changes when the head does."""
        return fingerprint("relu", *(array.tobytes() for array in (*self.weights, *self.biases)))


@dataclass(frozen=True, slots=True)
class TextAnchors:
    """Two embedded texts; the second describes the content to find."""

    anchors: Floats  # (2, dim), L2-normalised

    def score(self, images: Floats) -> Floats:
        """Probability (n) of the second text, a softmax at CLIP's temperature."""
        differences = TEMPERATURE * product(images, self.anchors[0] - self.anchors[1])
        return (1 / (1 + np.exp(differences))).astype(np.float32)

    @property
    def identity(self) -> str:
        """Changes when the head does."""
        return fingerprint(self.anchors.tobytes())


def checked_file(named: str) -> Path:
    """The path in `path` or `path#sha256=<hex>`. Raises ModelError when the file has other bytes."""
    name, _, wanted = named.partition("#sha256=")
    path = Path(name).expanduser()
    if wanted:
        try:
            found = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise ModelError(f"cannot read the head {path}: {error.strerror}") from error
        if found != wanted.strip().lower():
            raise ModelError(f"{path} is not the expected file: its SHA-256 is {found}")
    return path


def load_anchors(path: Path, dim: int) -> TextAnchors:
    """Reads two text embeddings of `dim` from an .npy file; raises ModelError for any other content."""
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ModelError(f"cannot read the text embeddings {path}: {error}") from error
    if not isinstance(found, np.ndarray) or found.shape != (2, dim) or found.dtype.kind != "f":
        shape = getattr(found, "shape", None)
        raise ModelError(f"{path} holds {shape}, not two text embeddings of {dim} numbers")
    anchors = found.astype(np.float32)
    check_arrays({"a text embedding": anchors}, path)
    lengths = np.linalg.norm(anchors, axis=1, keepdims=True)
    if not lengths.all():
        raise ModelError(f"cannot use the text embeddings {path}: one of them is zero; make the file again")
    return TextAnchors(anchors / lengths)


def load_head(path: Path, dim: int) -> LinearHead | ReluHead:
    """Reads an aesthetic head for embeddings of `dim`, without unpickling code.

    Raises ModelError when the file is missing, damaged, not such a head, or made for another dimension.
    """
    state = _read(path)
    check_arrays({name: value.detach().float().numpy() for name, value in state.items()}, path)
    places = _places(state)
    if places == _RELU_BETWEEN:
        return _relu_head(state, path, dim)
    if places and places != _DROPOUT_BETWEEN and places != list(range(len(places))):
        raise ModelError(
            f"cannot use the head {path}: what is between its layers {places} is unknown; give one whose "
            f"layers are at {_DROPOUT_BETWEEN} (linear) or {_RELU_BETWEEN} (with ReLU)"
        )
    state = _folded(state, places)
    weight, bias = state.get("weight"), state.get("bias")
    if set(state) != {"weight", "bias"} or weight is None or bias is None or bias.numel() != 1:
        raise ModelError(
            f"{path} is not a linear head: expected `weight` and `bias`, found {sorted(state)[:4]}"
        )
    if tuple(weight.shape) != (1, dim):
        raise ModelError(
            f"{path} is a head for embeddings of {weight.shape[-1]} numbers, the CLIP model makes {dim}; "
            "set LAION_ETL_SAFETY_AESTHETIC_HEAD to the model's own"
        )
    return LinearHead(weight[0].float().numpy(), float(bias.reshape(()).item()))


def _places(state: dict[str, "torch.Tensor"]) -> list[int]:
    """Return the places of a chain of layers, `layers.N.weight` and `.bias`; none for any other state."""
    places = sorted({int(match[1]) for name in state if (match := _LAYER.fullmatch(name))})
    named = {f"layers.{place}.{part}" for place in places for part in ("weight", "bias")}
    return places if named == set(state) else []


def _relu_head(state: dict[str, "torch.Tensor"], path: Path, dim: int) -> ReluHead:
    weights, biases = (
        tuple(state[f"layers.{place}.{part}"].float().numpy() for place in _RELU_BETWEEN)
        for part in ("weight", "bias")
    )
    shapes = [weight.shape for weight in weights]
    sizes = [dim, *(len(bias) for bias in biases)]
    if shapes != [(after, before) for before, after in pairwise(sizes)] or sizes[-1] != 1:
        raise ModelError(
            f"{path} is not a head for embeddings of {dim} numbers: its layers have the shapes {shapes}; "
            "set LAION_ETL_SAFETY_AESTHETIC_HEAD to the model's own"
        )
    return ReluHead(weights, biases)


def _folded(state: dict[str, "torch.Tensor"], places: list[int]) -> dict[str, "torch.Tensor"]:
    """A chain of linear layers as one; any other state as it is."""
    import torch

    if not places:
        return state
    layers = {name: value.double().numpy() for name, value in state.items()}
    weight, bias = (layers[f"layers.{places[0]}.{part}"] for part in ("weight", "bias"))
    try:
        for place in places[1:]:
            above = layers[f"layers.{place}.weight"]
            weight, bias = product(above, weight), product(above, bias) + layers[f"layers.{place}.bias"]
    except (ValueError, IndexError):
        return state
    return {"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)}


def _read(path: Path) -> dict[str, "torch.Tensor"]:
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, OSError, EOFError, ValueError) as error:
        cause = " ".join(str(error).split())[:200]
        raise ModelError(f"cannot read the aesthetic head {path}: {cause}") from error
    if not isinstance(state, dict) or not all(torch.is_tensor(value) for value in state.values()):
        raise ModelError(f"{path} is not a linear head: it holds no state dict")
    return state
