"""CLIP models: from a name and weights to normalised embeddings.

Weights are read from safetensors or with `weights_only=True`: a checkpoint from the web cannot run code.
On CPUs everything is float32, computed in parts of fixed size (`pinned.py`); on GPUs matrix products are
bfloat16 unless set otherwise.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from laion_etl.core.errors import ModelError
from laion_etl.core.stage_stats import fingerprint
from laion_etl.score.device_transfer import DeviceFuture, Floats, FromDevice, to_device
from laion_etl.score.devices import check_device
from laion_etl.score.finite import check_network
from laion_etl.score.hub import in_folder, is_layout
from laion_etl.score.model_probe import described_tokenizer, probe
from laion_etl.score.openclip import open_clip
from laion_etl.score.pinned import PART, FromThreads, parts, pinned_threads
from laion_etl.score.pixels import PixelPlan, Pixels
from laion_etl.score.shared_tables import Tokens
from laion_etl.score.text_tower import TextGroup, encode_texts, text_groups
from laion_etl.score.tokens import TextPlan, text_plan
from laion_etl.score.weights import (
    build_network,
    closest,
    fill_network,
    is_tiny,
    not_buildable,
    tag_config,
    weights_file,
)
from laion_etl.score.weights_origin import channels_of, description, function_of
from laion_etl.settings import ClipSettings

if TYPE_CHECKING:
    import torch
    from PIL import Image

MAX_TEXT_CHARS = 1_000  # far beyond 77 tokens; the tokenizer is quadratic in the length of a word
_MAX_CACHED_WORDS = 200_000  # open_clip's tokenizer remembers every word it ever saw


@dataclass(frozen=True, slots=True)
class ClipModel:
    """A loaded CLIP. `weights_sha256` identifies its weights whatever file they came from."""

    name: str
    network: "torch.nn.Module"
    preprocess: Callable[["Image.Image"], "torch.Tensor"]
    tokenize: Callable[[Sequence[str]], "torch.Tensor"]
    channels: tuple["torch.Tensor", "torch.Tensor"]  # mean and deviation of RGB, (1, 3, 1, 1)
    device: str
    weights_sha256: str
    is_tiny: bool
    precision: str = "fp32"
    image_sha256: str = ""  # of the image tower alone
    text_plan: TextPlan | None = None  # with which a worker process can tokenise texts
    threads: int = 0  # of a CPU; 0: one per usable core
    architecture: str = ""  # changes with open_clip's config of it
    scale_jpegs: bool = True  # large JPEGs while they are decoded

    @property
    def identity(self) -> dict[str, Any]:
        """What its embeddings depend on besides its weights."""
        device = self.device.partition(":")[0]
        return {
            **description(self.network),
            **described_tokenizer(self),
            "architecture": self.architecture,
            "precision": self.precision,
            "device": device,
        }

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return int(self.network.visual.output_dim)  # type: ignore[union-attr, arg-type]

    @property
    def pixel_plan(self) -> PixelPlan:
        """Input of its image tower. Raises ModelError for an unsupported preprocessing config."""
        config = self.network.visual.preprocess_cfg  # type: ignore[union-attr]
        plan = pixel_plan(config, self.name)  # type: ignore[arg-type]
        return replace(plan, scale_jpegs=self.scale_jpegs)

    def embed_images(self, images: Sequence["torch.Tensor"]) -> Floats:
        """L2-normalised embeddings (n, dim) of images preprocessed by `preprocess`."""
        import torch

        with self._computing():
            return FromDevice(_normalised(self._encode(torch.stack(list(images)).to(self.device)))).get()

    def embed_pixels(self, pixels: Pixels) -> Floats:
        """L2-normalised embeddings (n, dim) of RGB pixels (n, side, side, 3) made by `pixel_plan`."""
        return self.start_pixels(pixels).get()

    def start_pixels(self, pixels: Pixels) -> DeviceFuture:
        """The same as a DeviceFuture; the pixels must not change until it is complete."""
        if self.device != "cpu":
            return FromDevice(self._encode_pixels(pixels))
        threads = pinned_threads(self.threads)
        return FromThreads([threads.submit(partial(self._encode_pixels, part)) for part in parts(pixels)])

    def embed_texts(self, texts: Sequence[str]) -> Floats:
        """L2-normalised embeddings (n, dim); texts are cut to MAX_TEXT_CHARS, then to the context length."""
        return self.start_tokens(self.tokens_of(texts)).get()

    def tokens_of(self, texts: Sequence[str]) -> Tokens:
        """Tokens (n, context) by open_clip's tokenizer."""
        found: Tokens = self.tokenize([text[:MAX_TEXT_CHARS] for text in texts]).numpy().astype(np.int32)
        return found

    def start_tokens(self, tokens: Tokens) -> DeviceFuture:
        """L2-normalised embeddings (n, dim) of tokens (n, context), as a DeviceFuture."""
        if self.device != "cpu":
            with self._computing():
                return FromDevice(_normalised(encode_texts(self.network, tokens, self.device)))
        threads, groups = pinned_threads(self.threads), text_groups(self.network, tokens, PART)
        return FromThreads(
            [threads.submit(partial(self._encode_group, group)) for group in groups],
            np.concatenate([group.places for group in groups]),
        )

    def _encode_pixels(self, pixels: Pixels) -> "torch.Tensor":
        with self._computing():
            source = to_device(pixels, self.device)
            mean, deviation = self.channels
            images = source.permute(0, 3, 1, 2).float().div_(255).sub_(mean).div_(deviation)
            return _normalised(self._encode(images.contiguous()))

    def _encode_group(self, group: TextGroup) -> "torch.Tensor":
        with self._computing():
            return _normalised(group.encode(self.network, self.device))

    def _encode(self, images: "torch.Tensor") -> "torch.Tensor":
        found: torch.Tensor = self.network.encode_image(images)  # type: ignore[operator]
        return found

    @contextmanager
    def _computing(self) -> Iterator[None]:
        import torch

        kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
        kind = kinds.get(self.precision)
        with (
            torch.inference_mode(),
            torch.autocast(self.device.partition(":")[0], dtype=kind, enabled=kind is not None),
        ):
            yield


def _normalised(found: "torch.Tensor") -> "torch.Tensor":
    floats = found.float()
    lengths: torch.Tensor = floats.norm(dim=-1, keepdim=True)
    return floats / lengths.clamp_min(1e-12)


def load_model(settings: ClipSettings) -> ClipModel:
    """The model of the settings, ready to embed.

    Raises ModelError, one line, for unknown names (with the closest known ones), a checkpoint that is
    missing, damaged or of another architecture, weights that cannot be downloaded, and unavailable devices.
    """
    shown = f"{settings.model}/{Path(settings.pretrained).name}"
    if is_layout(settings.model):
        shown, settings = settings.model, in_folder(settings)
    _check_model_name(settings.model)
    device = _device(settings.device)
    tag = tag_config(settings)
    path = weights_file(settings, tag)
    network = build_network(settings.model, function_of(settings, path, tag))
    fill_network(network, path, settings)
    check_network(network, path)
    network.eval().to(device)
    tokenizer = _tokenizer(settings.model)
    model = ClipModel(
        name=shown,
        network=network,
        preprocess=preprocessing(network),
        tokenize=_remembering_less(tokenizer),
        channels=_channels(network, device),
        device=device,
        weights_sha256=_weights_sha256(network),
        is_tiny=is_tiny(settings),
        precision=_precision(settings.precision, device),
        image_sha256=_weights_sha256(network.visual),
        text_plan=text_plan(tokenizer),
        threads=settings.threads,
        architecture=fingerprint(open_clip().get_model_config(settings.model)),
        scale_jpegs=settings.jpeg_scaling,
    )
    probe(model)
    return model


def embedding_dim(settings: ClipSettings) -> int:
    """Length of the model's embeddings, found without loading it; raises ModelError for unknown names."""
    _check_model_name(settings.model)
    return int(open_clip().get_model_config(in_folder(settings).model)["embed_dim"])


def _check_model_name(name: str) -> None:
    known = open_clip().list_models()
    if name not in known and not is_layout(name):
        raise ModelError(f"unknown CLIP model {name!r}{closest(name, known)}; see LAION_ETL_CLIP_MODEL")


def _device(setting: str) -> str:
    """The device of this process: the first one the setting names."""
    import torch

    wanted = setting.partition(",")[0].strip()
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    check_device(wanted)
    return "cpu" if torch.device(wanted).type == "cpu" else wanted


def _precision(wanted: str, device: str) -> str:
    if wanted == "auto":
        return "bf16" if device.startswith("cuda") else "fp32"
    return wanted


def pixel_plan(config: Mapping[str, Any], name: str) -> PixelPlan:
    """The plan of open_clip's preprocessing config. Raises ModelError for what `pixels.py` does not do."""
    size, mode = config["size"], config.get("resize_mode", "shortest")
    sides = {size} if isinstance(size, int) else set(size)
    how = config.get("interpolation", "bicubic")
    if len(sides) > 1 or mode not in ("shortest", "squash") or how not in ("bicubic", "bilinear"):
        raise ModelError(f"{name} takes images prepared in a way that is not supported: {dict(config)}")
    return PixelPlan(sides.pop(), squash=mode == "squash", bilinear=how == "bilinear")


def preprocessing(network: Any) -> Callable[["Image.Image"], "torch.Tensor"]:
    """open_clip's inference transform for a network: resize, centre crop, normalise."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    config = PreprocessCfg(**network.visual.preprocess_cfg)
    transform: Callable[[Image.Image], torch.Tensor] = image_transform_v2(config, is_train=False)
    return transform


def _channels(network: Any, device: str) -> tuple["torch.Tensor", "torch.Tensor"]:
    import torch

    found = channels_of(network.visual.preprocess_cfg)
    mean, deviation = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in found)
    return mean, deviation


def _tokenizer(model: str) -> Any:
    try:
        return open_clip().get_tokenizer(model)
    except (RuntimeError, OSError, ImportError, AttributeError, TypeError) as error:
        raise not_buildable(model, error) from error


def _remembering_less(tokenizer: Any) -> Callable[[Sequence[str]], "torch.Tensor"]:
    """The tokenizer, whose cache of words is cleared regularly."""
    words: dict[str, str] = getattr(tokenizer, "cache", {})

    def tokenize(texts: Sequence[str]) -> "torch.Tensor":
        if len(words) > _MAX_CACHED_WORDS:
            words.clear()
            words.update((special, special) for special in ("<start_of_text>", "<end_of_text>"))
        tokens: torch.Tensor = tokenizer(list(texts))
        return tokens

    return tokenize


def _weights_sha256(network: Any) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
