"""Aesthetic and violence heads on CLIP image embeddings: LAION's own files and others like them.

- Aesthetic predictor v1, https://github.com/LAION-AI/aesthetic-predictor: the state dict of a torch
  `Linear(dim, 1)` on L2-normalised embeddings; scores are about 1 to 10.
- Aesthetic predictor v2, https://github.com/christophschuhmann/improved-aesthetic-predictor: linear layers
  768-1024-128-64-16-1, with or without ReLU between them (`layer_chain.py`). Without, together they are one
  linear function.
- Violence, https://github.com/LAION-AI/CLIP-based-NSFW-Detector: two text embeddings, of "no" and "yes".

Settings name a head as a path, or as `path#sha256=<hex>`: then a file with other bytes is refused.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from laion_etl.core.errors import ModelError
from laion_etl.core.npy import read_array
from laion_etl.core.stage_stats import fingerprint
from laion_etl.core.user_paths import user_path
from laion_etl.score.finite import SAME, check_arrays, check_layers
from laion_etl.score.layer_chain import (
    AESTHETIC,
    LayerChain,
    State,
    chain_of,
    folded,
    places_of,
    read_state,
)
from laion_etl.score.products import product
from laion_etl.score.safety import TEMPERATURE

Floats = NDArray[np.float32]
_SHA256 = re.compile("[0-9a-f]{64}")


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
    name, pinned, digest = named.partition("#sha256=")
    path, wanted = user_path(name), digest.strip().lower()
    if pinned and not _SHA256.fullmatch(wanted):
        raise ModelError(
            f"cannot check the head {path}: {wanted[:70]!r} is not a SHA-256; write its 64 digits, or leave "
            "#sha256= out"
        )
    if pinned:
        try:
            found = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise ModelError(f"cannot read the head {path}: {error.strerror}") from error
        if found != wanted:
            raise ModelError(f"{path} is not the expected file: its SHA-256 is {found}")
    return path


def load_anchors(path: Path, dim: int) -> TextAnchors:
    """Reads two text embeddings of `dim` from an .npy file; raises ModelError for any other content."""
    try:
        with path.open("rb") as file:
            found = read_array(file)
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read the text embeddings {path}: {error}") from error
    if found.shape != (2, dim) or found.dtype.kind != "f":
        raise ModelError(
            f"cannot use the text embeddings {path}: it holds {found.dtype} numbers of the shape "
            f"{found.shape}, not two text embeddings of {dim} floating-point numbers; make the file again"
        )
    with np.errstate(over="ignore"):  # to infinity, which is refused
        anchors = found.astype(np.float32)
        lengths = np.linalg.norm(anchors, axis=1, keepdims=True)
    check_arrays({"a text embedding": anchors, "the length of a text embedding": lengths}, path)
    if not lengths.all():
        raise ModelError(f"cannot use the text embeddings {path}: one of them is zero; make the file again")
    anchors = anchors / lengths
    if np.abs(anchors[0] - anchors[1]).max() < SAME:
        raise ModelError(
            f"cannot use the text embeddings {path}: they are the same but for their lengths, which gives "
            "every image the same score; make the file again"
        )
    return TextAnchors(anchors)


def load_head(path: Path, dim: int) -> LinearHead | LayerChain:
    """Reads an aesthetic head for embeddings of `dim`, without unpickling code.

    Raises ModelError when the file is missing, damaged, not such a head, or made for another dimension.
    """
    state = read_state(path, "aesthetic head")
    if places_of(state):
        chain = chain_of(state, path, dim, AESTHETIC)
        if any(chain.rectified):
            return chain
        with np.errstate(over="ignore", invalid="ignore"):
            weight, bias = folded(chain)
        check_arrays({"the product of its layers": weight, "the sum of their biases": bias}, path)
    else:
        weight, bias = _linear(state, path, dim)
    check_layers({"weight": weight}, path)
    return LinearHead(weight, bias)


def _linear(state: State, path: Path, dim: int) -> tuple[Floats, float]:
    weight, bias = state.get("weight"), state.get("bias")
    if set(state) != {"weight", "bias"} or weight is None or bias is None or bias.numel() != 1:
        raise ModelError(
            f"{path} is not a linear head: expected `weight` and `bias`, found {sorted(state)[:4]}"
        )
    if tuple(weight.shape) != (1, dim):
        raise ModelError(
            f"cannot use the head {path}: it is a head for embeddings of {weight.numel()} numbers, the CLIP "
            f"model makes {dim} (its weight has the shape {list(weight.shape)}, not {[1, dim]}); "
            "set LAION_ETL_SAFETY_AESTHETIC_HEAD to the model's own"
        )
    return weight[0].float().numpy(), float(bias.reshape(()).item())
