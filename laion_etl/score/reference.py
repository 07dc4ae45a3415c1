"""Recorded embeddings of known weights: whether a loaded model computes what these weights are meant to.

Weights alone do not show a wrong activation, mean or tokenizer (`weights_origin.py`), embeddings do. For known
weights `references/` has those of the fixed images and captions, recorded in fp32 by open_clip's own
transform and towers (`python -m scripts.record_reference`); a file belongs to the weights whose digest its
name ends with.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from laion_etl.core.errors import ModelError
from laion_etl.score.fixed_inputs import CAPTIONS, VERSION, fixed_pixels

if TYPE_CHECKING:
    from laion_etl.score.model import ClipModel

FOLDER = Path(__file__).parent / "references"
DIGITS = 16  # of the digest of the weights, in the name of a file
_ABOUT = "laion_etl.reference"
# How far a cosine may be from 1. Another activation, mean or interpolation is at 1e-3 and more in fp32.
_TOLERANCES = {"fp32": 1e-4}
_REDUCED = 1e-2

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Comparison:
    """How far the embeddings of a model are from the recorded ones: 1 - cosine, the largest of each."""

    images: float
    captions: float
    allowed: float

    @property
    def agrees(self) -> bool:
        return max(self.images, self.captions) <= self.allowed


def compare(model: "ClipModel", folder: Path = FOLDER) -> Comparison | None:
    """Compare a model with what is recorded of its weights; None if nothing is.

    Raises ModelError for a record that is damaged, or of other images and captions than today's.
    """
    path = next(iter(sorted(folder.glob(f"*-{model.weights_sha256[:DIGITS]}.safetensors"))), None)
    if path is None:
        return None
    images, captions = _read(path)
    found = model.embed_pixels(fixed_pixels(model.pixel_plan)), model.embed_texts(CAPTIONS)
    if images.shape != found[0].shape or captions.shape != found[1].shape:
        raise _unusable(path, f"it has embeddings of the shapes {images.shape} and {captions.shape}")
    far = [_distance(one, other) for one, other in zip((images, captions), found, strict=True)]
    return Comparison(far[0], far[1], _TOLERANCES.get(model.precision, _REDUCED))


def write(folder: Path, name: str, weights_sha256: str, images: Floats, captions: Floats) -> Path:
    """Write the record of some weights; return its path."""
    from safetensors.numpy import save_file

    path = folder / f"{name}-{weights_sha256[:DIGITS]}.safetensors"
    about = {"inputs": VERSION, "weights_sha256": weights_sha256, "precision": "fp32"}
    arrays = {"images": np.ascontiguousarray(images), "captions": np.ascontiguousarray(captions)}
    save_file(arrays, path, {_ABOUT: json.dumps(about, sort_keys=True)})
    return path


def _read(path: Path) -> tuple[Floats, Floats]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            about: dict[str, Any] = json.loads((file.metadata() or {})[_ABOUT])
            images, captions = (file.get_tensor(name) for name in ("images", "captions"))
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise _unusable(path, str(error)) from error
    if about.get("inputs") != VERSION:
        raise _unusable(path, f"it is of the fixed images {about.get('inputs')}, these are {VERSION}")
    return images, captions


def _unusable(path: Path, cause: str) -> ModelError:
    return ModelError(
        f"cannot compare with {path}: {cause}; delete it, or record it again with "
        "`python -m scripts.record_reference`"
    )


def _distance(one: Floats, other: Floats) -> float:
    cosines = np.einsum("nd,nd->n", one.astype(np.float64), other.astype(np.float64))
    largest = float(np.max(1 - cosines))
    return largest if np.isfinite(largest) else float("inf")
