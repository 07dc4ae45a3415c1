"""Checkpoint files that open_clip would load as something else, or refuse without advice."""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from laion_etl.core.errors import ModelError
from laion_etl.score.torch_files import check_floats

_IMAGE = ("visual.positional_embedding",)
_TEXT = ("positional_embedding", "text.positional_embedding")  # in open_clip's two layouts
_WRAPPED = "module."  # before each name in checkpoints of several GPUs


@dataclass(frozen=True, slots=True)
class _Tensor:
    shape: tuple[int, ...]
    is_float: bool


def check_file(path: Path, network: Any, model: str) -> None:
    """Raise ModelError for a TorchScript archive, for weights that are not floats, and for weights for other
    image sizes or text lengths.

    Positions open_clip would interpolate, and integers torch would convert, without a word.
    """
    if _is_torchscript(path):
        raise ModelError(
            f"cannot load the checkpoint {path}: it is a TorchScript archive, as OpenAI publishes its "
            "weights, which holds code besides weights; use the tag openai, or a file of these weights from "
            "the hub (open_clip_model.safetensors of timm/vit_base_patch32_clip_224.openai for ViT-B-32)"
        )
    weights = dict(network.named_parameters())
    tensors = _tensors(path)
    known = {*weights, *(name.removeprefix("text.") for name in weights)}
    check_floats({name: one.is_float for name, one in tensors.items() if name in known}, path)
    own = {name: len(value) for name, value in weights.items() if name in (*_IMAGE, *_TEXT)}
    found = {name: one.shape[0] for name, one in tensors.items() if name in (*_IMAGE, *_TEXT) and one.shape}
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
    try:
        if not zipfile.is_zipfile(path):
            return False
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError):  # a damaged archive
        return False


def _tensors(path: Path) -> dict[str, _Tensor]:
    """The tensors of a file by their names in the network; none if it cannot be read."""
    try:
        return _of_safetensors(path) if path.suffix == ".safetensors" else _of_pickle(path)
    except Exception:  # noqa: BLE001 - a damaged file raises anything; the error of loading it says more
        return {}


def _of_safetensors(path: Path) -> dict[str, _Tensor]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        return {
            name.removeprefix(_WRAPPED): _Tensor(tuple(one.get_shape()), "F" in one.get_dtype())
            for name, one in slices.items()
        }


def _of_pickle(path: Path) -> dict[str, _Tensor]:
    import torch

    document = _mapped(path)
    state = document.get("state_dict", document)
    return {
        name.removeprefix(_WRAPPED): _Tensor(tuple(value.shape), value.is_floating_point())
        for name, value in state.items()
        if isinstance(name, str) and torch.is_tensor(value)
    }


def _mapped(path: Path) -> Any:
    """The content of a file, mapped into memory unless it has torch's older format, which cannot be."""
    import torch

    try:
        return torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except RuntimeError:
        return torch.load(path, map_location="cpu", weights_only=True)
