"""Checkpoint files that open_clip would load as something else, or refuse without advice."""

import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from laion_etl.core.errors import ModelError

_POSITIONS = "visual.positional_embedding"


def check_file(path: Path, network: Any, model: str) -> None:
    """Raise ModelError for a TorchScript archive, and for weights of a model that takes other image sizes."""
    if _is_torchscript(path):
        raise ModelError(
            f"cannot load the checkpoint {path}: it is a TorchScript archive, as OpenAI publishes its "
            "weights, which holds code besides weights; use the tag openai, or a file of these weights from "
            "the hub (open_clip_model.safetensors of timm/vit_base_patch32_clip_224.openai for ViT-B-32)"
        )
    own = getattr(network.visual, "positional_embedding", None)
    found = None if own is None else _positions(path)
    if own is not None and found is not None and found != own.shape[0]:
        raise ModelError(
            f"cannot load the checkpoint {path} into {model}: it was trained on images of {found - 1} "
            f"patches, {model} takes {own.shape[0] - 1}; choose the model of the weights, such as "
            "ViT-B-32-256 for ViT-B-32 with images of 256 pixels"
        )


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except zipfile.BadZipFile:
        return False


def _positions(path: Path) -> int | None:
    """The number of positions of the image tower's patches, the class token included; None if unknown."""
    try:
        return _of_safetensors(path) if path.suffix == ".safetensors" else _of_pickle(path)
    except (OSError, RuntimeError, ValueError, UnpicklingError, EOFError, KeyError, AttributeError):
        return None  # the error of loading it says more


def _of_safetensors(path: Path) -> int | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return file.get_slice(_POSITIONS).get_shape()[0] if _POSITIONS in file.keys() else None  # noqa: SIM118
    except SafetensorError:
        return None


def _of_pickle(path: Path) -> int | None:
    import torch

    document = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    state = document.get("state_dict", document)
    found = state.get(_POSITIONS, state.get(f"module.{_POSITIONS}"))
    return None if found is None else int(found.shape[0])
