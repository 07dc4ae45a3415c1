"""Linear heads on CLIP image embeddings: LAION's aesthetic predictor v1 and files like it.

https://github.com/LAION-AI/aesthetic-predictor: the state dict of a torch `Linear(dim, 1)` applied
to L2-normalised embeddings; scores are about 1 to 10.
"""

from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from laion_etl.errors import ModelError
from laion_etl.records import fingerprint

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class LinearHead:
    """score = embedding . weight + bias."""

    weight: Floats
    bias: float

    def score(self, images: Floats) -> Floats:
        """Scores (n) of L2-normalised embeddings (n, dim)."""
        scores: Floats = images @ self.weight + np.float32(self.bias)
        return scores

    @property
    def identity(self) -> str:
        """Changes when the head does."""
        return fingerprint(self.weight.tobytes(), self.bias)


def load_head(path: Path, dim: int) -> LinearHead:
    """Reads a head for embeddings of `dim`, without unpickling code.

    Raises ModelError when the file is missing, damaged, no linear head, or made for another dimension.
    """
    state = _read(path)
    weight, bias = state.get("weight"), state.get("bias")
    if set(state) != {"weight", "bias"} or weight is None or bias is None or bias.numel() != 1:
        raise ModelError(f"{path} is no linear head: expected `weight` and `bias`, found {sorted(state)[:4]}")
    if tuple(weight.shape) != (1, dim):
        raise ModelError(
            f"{path} is a head for embeddings of {weight.shape[-1]} numbers, the CLIP model makes {dim}; "
            "set LAION_ETL_SAFETY_AESTHETIC_HEAD to the model's own"
        )
    return LinearHead(weight[0].float().numpy(), float(bias.reshape(()).item()))


def _read(path: Path) -> dict[str, "torch.Tensor"]:
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, OSError, EOFError, ValueError) as error:
        cause = " ".join(str(error).split())[:200]
        raise ModelError(f"can't read the aesthetic head {path}: {cause}") from error
    if not isinstance(state, dict) or not all(torch.is_tensor(value) for value in state.values()):
        raise ModelError(f"{path} is no linear head: it holds no state dict")
    return state
