"""Checkpoint files that open_clip would load as something else, or refuse without advice."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from laion_etl.core.errors import ModelError

_IMAGE = ("visual.positional_embedding",)
_TEXT = ("positional_embedding", "text.positional_embedding")  # in open_clip's two layouts


def check_file(path: Path, network: Any, model: str) -> None:
    """Raise ModelError for a TorchScript archive, and for weights for other image sizes or text lengths.

    Their positions open_clip would interpolate, without a word.
    """
    if _is_torchscript(path):
        raise ModelError(
            f"cannot load the checkpoint {path}: it is a TorchScript archive, as OpenAI publishes its "
            "weights, which holds code besides weights; use the tag openai, or a file of these weights from "
            "the hub (open_clip_model.safetensors of timm/vit_base_patch32_clip_224.openai for ViT-B-32)"
        )
    own = {name: len(value) for name, value in network.named_parameters() if name in (*_IMAGE, *_TEXT)}
    found = _positions(path)
    image, own_image = _one_of(_IMAGE, found), _one_of(_IMAGE, own)
    if image and own_image and image != own_image:
        raise ModelError(
            f"cannot load the checkpoint {path} into {model}: it was trained on images of {image - 1} "
            f"patches, {model} takes {own_image - 1}; choose the model of the weights, such as "
            "ViT-B-32-256 for ViT-B-32 with images of 256 pixels"
        )
    text, own_text = _one_of(_TEXT, found), _one_of(_TEXT, own)
    if text and own_text and text != own_text:
        raise ModelError(
            f"cannot load the checkpoint {path} into {model}: it was trained on texts of up to {text} "
            f"tokens, {model} takes {own_text}; choose the model of the weights"
        )


def _one_of(names: tuple[str, ...], lengths: Mapping[str, int]) -> int | None:
    return next((lengths[name] for name in names if name in lengths), None)


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except zipfile.BadZipFile:
        return False


def _positions(path: Path) -> dict[str, int]:
    """The number of positions of the towers of a file, those of patches with the class token."""
    try:
        return _of_safetensors(path) if path.suffix == ".safetensors" else _of_pickle(path)
    except (OSError, RuntimeError, ValueError, UnpicklingError, EOFError, KeyError, AttributeError):
        return {}  # the error of loading it says more


def _of_safetensors(path: Path) -> dict[str, int]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            known = set(file.keys())
            return {name: file.get_slice(name).get_shape()[0] for name in (*_IMAGE, *_TEXT) if name in known}
    except SafetensorError:
        return {}


def _of_pickle(path: Path) -> dict[str, int]:
    import torch

    document = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    state = document.get("state_dict", document)
    found = {name: state.get(name, state.get(f"module.{name}")) for name in (*_IMAGE, *_TEXT)}
    return {name: int(value.shape[0]) for name, value in found.items() if value is not None}
