"""Recorded embeddings of known weights: whether a loaded model computes what these weights are meant to.

Weights alone do not show a wrong activation, mean or tokenizer (`weights_origin.py`), embeddings do. For
known weights `references/` has those of the fixed images and captions, recorded in fp32 by open_clip's own
transform and towers (`python -m scripts.record_reference`); a file belongs to the weights whose digest its
name ends with.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from laion_etl.core.errors import ModelError
from laion_etl.core.plain_json import parse_json
from laion_etl.score.fixed_inputs import CAPTIONS, VERSION, fixed_pixels

if TYPE_CHECKING:
    from laion_etl.score.model import ClipModel

FOLDER = Path(__file__).parent / "references"
DIGITS = 16  # of the digest of the weights, in the name of a file
_ABOUT = "laion_etl.reference"
# How far a cosine may be from 1. In fp32 the order of summation moves it by 1e-7; GELU for QuickGELU in the
# demo's model, which is the smallest of the differences that are looked for, by 4e-5.
_TOLERANCES = {"fp32": 1e-5}
_REDUCED = 1e-2

_ADVICE = (
    "leave LAION_ETL_CLIP_QUICK_GELU, _MEAN, _STD, _INTERPOLATION and _RESIZE_MODE at their defaults, and "
    "compare the versions of torch and open_clip with requirements.txt"
)
_log = logging.getLogger(__name__)

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Comparison:
    """How far the embeddings of a model are from the recorded ones: 1 - cosine, the largest of each."""

    images: float
    captions: float
    allowed: float

    @property
    def agrees(self) -> bool:
        """Whether the model computes what the weights were made for, up to rounding."""
        return max(self.images, self.captions) <= self.allowed

    @property
    def sentence(self) -> str:
        """The result in words."""
        verdict = "agrees with" if self.agrees else "differs from"
        return (
            f"{verdict} the recorded embeddings of these weights (1 - cosine is at most "
            f"{self.images:.1e} for images and {self.captions:.1e} for captions, allowed {self.allowed:.0e})"
        )

    def check(self, name: str) -> None:
        """Raise ModelError if the model differs."""
        if not self.agrees:
            raise ModelError(f"cannot rely on the model {name}: it {self.sentence}; {_ADVICE}")


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


def warn_of_difference(model: "ClipModel") -> None:
    """Log a warning if a model does not compute what is recorded of its weights."""
    found = compare(model)
    if found is not None and not found.agrees:
        _log.warning("%s: %s; %s", model.name, found.sentence, _ADVICE)


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
            about: dict[str, Any] = parse_json((file.metadata() or {})[_ABOUT])
            images, captions = (file.get_tensor(name) for name in ("images", "captions"))
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise _unusable(path, str(error)) from error
    if about.get("inputs") != VERSION:
        raise _unusable(
            path, f"it was recorded with version {about.get('inputs')} of the images, this is {VERSION}"
        )
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
