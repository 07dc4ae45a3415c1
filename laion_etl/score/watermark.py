"""Image models that detect watermarks: the probability in column `pwatermark`.

Unlike the heads they read pixels, of the whole image: watermarks sit in corners, which CLIP's square
may not show. Three kinds can be named in LAION_ETL_SAFETY_WATERMARK_MODEL:

- LAION's own, https://github.com/LAION-AI/LAION-5B-WatermarkDetection (`watermark_model_v1.pt`): an
  EfficientNet-B3 with a head of three layers on images squashed to 256 pixels; class 0 is "watermark".
- our own small convolutional network, a safetensors file; the demo's is trained on drawn overlays
  (`scripts.training.watermark`) and knows nothing of photographs.
- `module:factory`: called with settings and device, returns a WatermarkModel.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from laion_etl.core.errors import ModelError
from laion_etl.core.import_factory import is_factory, load_factory
from laion_etl.score.device_transfer import DeviceFuture, FromDevice
from laion_etl.score.finite import SAME, check_layers, check_network
from laion_etl.score.fixed_inputs import fixed_pixels
from laion_etl.score.heads import checked_file
from laion_etl.score.pinned import FromThreads, parts, pinned_threads
from laion_etl.score.pixels import PixelPlan, Pixels
from laion_etl.score.torch_files import check_floats, read_torch, reading_cause
from laion_etl.settings import Settings

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float32]

_VARIABLE = "LAION_ETL_SAFETY_WATERMARK_MODEL"
_FORMAT = "laion_etl watermark 1"
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and deviation of its channels
_LAION_SIDE = 256
_MAX_SIDE = 4_096
_LAION_LAYERS = (1_536, 625, 256, 2)


@runtime_checkable
class WatermarkModel(Protocol):
    """What a watermark model provides; `identity` must change whenever its scores may."""

    @property
    def plan(self) -> PixelPlan: ...

    @property
    def identity(self) -> str: ...

    def score(self, pixels: Pixels) -> Floats:
        """Probability (n) of a watermark on RGB pixels (n, side, side, 3), made by `plan`.

        On a CPU it is called with the same pixels together whatever the batch size, one call at a time, on a
        thread where torch uses one thread (`pinned.py`).
        """
        ...


@dataclass(frozen=True, slots=True)
class TorchWatermarkModel:
    """A network with two classes, "watermark" first, on images squashed to a square."""

    network: "torch.nn.Module"
    plan: PixelPlan
    identity: str
    device: str
    threads: int = 0  # of a CPU; 0: one per usable core

    def score(self, pixels: Pixels) -> Floats:
        """Probability (n) of a watermark on RGB pixels (n, side, side, 3)."""
        return self.later(pixels).get()

    def later(self, pixels: Pixels) -> DeviceFuture:
        """The same, as a DeviceFuture."""
        if self.device != "cpu":
            return FromDevice(self._score(pixels))
        threads = pinned_threads(self.threads)
        return FromThreads([threads.submit(partial(self._score, part)) for part in parts(pixels)])

    def _score(self, pixels: Pixels) -> "torch.Tensor":
        import torch

        with torch.inference_mode():
            images = _network_input(pixels, self.device)
            probability: torch.Tensor = self.network(images).float().softmax(dim=1)[:, 0]
            return probability


def start_watermarks(model: WatermarkModel, pixels: Pixels, device: str) -> DeviceFuture:
    """Probabilities (n) of a model, as a DeviceFuture.

    On a CPU a user-defined model runs on a single pinned thread, because it may not be thread-safe.
    """
    import torch

    if isinstance(model, TorchWatermarkModel):
        return model.later(pixels)
    if device != "cpu":
        return FromDevice(torch.from_numpy(model.score(pixels)))
    return FromThreads([pinned_threads(1).submit(lambda: torch.from_numpy(model.score(pixels)))])


def load_watermark_model(settings: Settings, device: str) -> WatermarkModel:
    """The model that the settings name; raises ModelError, or SettingsError for an invalid factory."""
    named = settings.safety.watermark_model
    if is_factory(named):
        model = load_factory(named, _VARIABLE, "a file")(settings, device)
        if not isinstance(model, WatermarkModel):
            raise ModelError(f"{_VARIABLE}={named!r}: the factory's object is not a WatermarkModel")
        return model
    return read_watermark_model(checked_file(named), device, settings.clip.threads)


def read_watermark_model(path: Path, device: str, threads: int = 0) -> TorchWatermarkModel:
    """LAION's model or ours, chosen by the file's content; raises ModelError for anything else."""
    try:
        state, side = _read_ours(path) if path.suffix == ".safetensors" else (_read_laion(path), _LAION_SIDE)
        network = small_network(_channels(state)) if path.suffix == ".safetensors" else laion_network()
        network.load_state_dict(state)
        identity = hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        cause = reading_cause(error)
        raise ModelError(f"cannot read the watermark model {path}: {cause}; download it again") from error
    check_network(network, path)
    matrices = ((name, value) for name, value in network.named_parameters() if value.ndim > 1)
    check_layers({name: value.detach().numpy() for name, value in matrices}, path)
    network.eval().to(device)
    plan = PixelPlan(side, squash=True, bilinear=True)
    _check_outputs(network, plan, device, path)
    return TorchWatermarkModel(network, plan, identity, device, threads)


def _check_outputs(network: "torch.nn.Module", plan: PixelPlan, device: str, path: Path) -> None:
    """Raise ModelError if what the classes are chosen by is not finite, or the same for different images."""
    import torch

    with torch.inference_mode():
        found = network(_network_input(fixed_pixels(plan), device)).double()
    differences = found[:, 0] - found[:, 1]
    if not torch.isfinite(found).all():
        cause = "its scores are not finite"
    elif (differences - differences[0]).abs().max() < SAME:
        cause = "it gives different images the same score"
    else:
        return
    raise ModelError(f"cannot use the watermark model {path}: {cause}; download it again, or use another")


def _network_input(pixels: Pixels, device: str) -> "torch.Tensor":
    import torch

    source = torch.from_numpy(pixels).to(device)
    mean, deviation = (torch.tensor(values, device=source.device).view(1, 3, 1, 1) for values in _IMAGENET)
    return source.permute(0, 3, 1, 2).float().div_(255).sub_(mean).div_(deviation)


def laion_network() -> "torch.nn.Module":
    """LAION's architecture without weights."""
    import timm
    from torch.nn import Dropout, Linear, ReLU, Sequential

    network: torch.nn.Module = timm.create_model("efficientnet_b3", pretrained=False, num_classes=2)
    one, two, three, four = _LAION_LAYERS
    network.classifier = Sequential(
        Linear(one, two), ReLU(), Dropout(0.3), Linear(two, three), ReLU(), Linear(three, four)
    )
    return network


def small_network(channels: tuple[int, ...]) -> "torch.nn.Module":
    """Strided 3x3 convolutions; the mean and the maximum of the last maps are classified."""
    from torch.nn import (
        AdaptiveAvgPool2d,
        AdaptiveMaxPool2d,
        BatchNorm2d,
        Conv2d,
        Flatten,
        Linear,
        Module,
        ReLU,
        Sequential,
    )

    class Pooled(Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean, self.max = AdaptiveAvgPool2d(1), AdaptiveMaxPool2d(1)

        def forward(self, maps: "torch.Tensor") -> "torch.Tensor":
            import torch

            return torch.cat([self.mean(maps), self.max(maps)], dim=1)

    layers: list[Module] = []
    for before, after in zip((3, *channels), channels, strict=False):
        layers += [Conv2d(before, after, 3, stride=2, padding=1, bias=False), BatchNorm2d(after), ReLU()]
    return Sequential(*layers, Pooled(), Flatten(), Linear(2 * channels[-1], 2))


def save_ours(network: "torch.nn.Module", side: int, path: Path) -> None:
    """Writes a `small_network` for images of `side` pixels, in float16."""
    import torch
    from safetensors.torch import save_file

    state = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in network.state_dict().items()
    }
    # One entry only: the order of several is not deterministic.
    save_file({name: torch.clone(value) for name, value in state.items()}, path, {_FORMAT: str(side)})


def _read_ours(path: Path) -> tuple[dict[str, "torch.Tensor"], int]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if _FORMAT not in metadata:
                raise ModelError(f"{path} is not a laion-etl watermark model")
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    check_floats({name: value.is_floating_point() for name, value in state.items() if value.ndim}, path)
    side = int(metadata[_FORMAT])
    if not 0 < side <= _MAX_SIDE or not _channels(state):
        raise ValueError(f"it is for images of {side} pixels, or it has no convolutions")
    return state, side


def _channels(state: Mapping[str, "torch.Tensor"]) -> tuple[int, ...]:
    return tuple(len(value) for value in state.values() if value.ndim == 4)


def _read_laion(path: Path) -> dict[str, Any]:
    state = read_torch(path, "watermark model")
    if not isinstance(state, dict) or "conv_stem.weight" not in state:
        raise ValueError("it holds no EfficientNet")
    return state
