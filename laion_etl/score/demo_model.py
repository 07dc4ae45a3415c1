"""The demo's CLIP, 'laion-etl-tiny' with weights 'scenes': its shipped files and its compact weights.

`scripts.training.clip` trains it on drawn scenes. Of the 49,408 rows of the token embedding only
those of tokens seen in training differ from one common "unknown" row, so only they are stored:
`token_ids` (int32, N), `token_rows` (N, width), `unknown_row` (width).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

NAME = "laion-etl-tiny"
WEIGHTS = "scenes"

MODELS = Path(__file__).parent / "models"
CONFIG_FILE = MODELS / f"{NAME}.json"
WEIGHTS_FILE = MODELS / f"{NAME}-{WEIGHTS}.safetensors"
METADATA_FILE = MODELS / f"{NAME}-{WEIGHTS}.metadata.json"
WATERMARK_FILE = MODELS / "laion-etl-watermark-drawn.safetensors"
AESTHETIC_FILE = MODELS / f"{NAME}-{WEIGHTS}-aesthetic.pth"

_EMBEDDING = "token_embedding.weight"


@dataclass(frozen=True, slots=True)
class Calibration:
    """Thresholds found on held-out scenes: keep at or above."""

    threshold_en: float
    threshold_other: float


def shipped_calibration() -> Calibration:
    """The thresholds that belong to the shipped weights, from the metadata file next to them."""
    return Calibration(**metadata()["thresholds"])


def metadata() -> dict[str, Any]:
    """Metadata of the shipped weights: config, seed, thresholds, measured precision and recall."""
    document: dict[str, Any] = json.loads(METADATA_FILE.read_text())
    return document


def compact(state: Mapping[str, "torch.Tensor"], seen: "torch.Tensor") -> dict[str, "torch.Tensor"]:
    """Weights for the file: float16, the token embedding cut down to the `seen` token ids (ascending)."""
    import torch

    embedding = state[_EMBEDDING]
    unseen = torch.ones(len(embedding), dtype=torch.bool)
    unseen[seen] = False
    weights = {name: value for name, value in state.items() if name != _EMBEDDING}
    weights |= {"token_rows": embedding[seen], "unknown_row": embedding[unseen][0]}
    halved = {name: value.detach().to(torch.float16).contiguous() for name, value in weights.items()}
    return halved | {"token_ids": seen.to(torch.int32)}


def read_compact(path: Path) -> dict[str, "torch.Tensor"] | None:
    """The weights of a safetensors file if they are compact; None for any other."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        names = list(file.keys())
        return {name: file.get_tensor(name) for name in names} if "token_ids" in names else None


def expand(weights: Mapping[str, "torch.Tensor"], vocabulary: int) -> dict[str, "torch.Tensor"]:
    """The full open_clip state dict of compact weights, float32."""
    import torch

    state = {name: value.to(torch.float32) for name, value in weights.items() if name != "token_ids"}
    rows, unknown = state.pop("token_rows"), state.pop("unknown_row")
    embedding = unknown.repeat(vocabulary, 1)
    embedding[weights["token_ids"].long()] = rows
    return state | {_EMBEDDING: embedding}
