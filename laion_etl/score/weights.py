"""The network of a CLIP model and its weights, from a tag of open_clip or a checkpoint file.

Weights are read from safetensors or with `weights_only=True`: a checkpoint from the web cannot run code.
"""

import difflib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from laion_etl.core.errors import ModelError
from laion_etl.core.quantities import first_in_line
from laion_etl.core.user_paths import user_path
from laion_etl.score import demo_model
from laion_etl.score.checkpoint_checks import check_file
from laion_etl.score.openclip import create_network, open_clip
from laion_etl.score.torch_files import reading_cause
from laion_etl.score.weights_origin import Function
from laion_etl.settings import ClipSettings

_CHECKPOINT_SUFFIXES = {".safetensors", ".pt", ".pth", ".bin"}


def is_tiny(settings: ClipSettings) -> bool:
    """Whether these settings name the demo's model with its shipped weights."""
    return settings.model == demo_model.NAME and settings.pretrained == demo_model.WEIGHTS


def closest(name: str, known: Sequence[str]) -> str:
    """Return the known names most like a wrong one, as the end of a sentence; empty if none is."""
    by_lower = {entry.lower(): entry for entry in known}
    found = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(by_lower[entry] for entry in found)}?" if found else ""


def tag_config(settings: ClipSettings) -> dict[str, Any]:
    """open_clip's entry of a pretrained tag: where its weights are, activation, mean, std. Empty: no tag."""
    found: dict[str, Any] = open_clip().get_pretrained_cfg(settings.model, settings.pretrained) or {}
    return found


def weights_file(settings: ClipSettings, tag: Mapping[str, Any]) -> Path:
    """Return the file of the weights, downloaded if a tag names them. Raises ModelError."""
    if is_tiny(settings):
        return demo_model.WEIGHTS_FILE
    if tag:
        return _downloaded(settings, tag)
    path = user_path(settings.pretrained)
    if not path.is_file():
        tags = open_clip().list_pretrained_tags_by_model(settings.model)
        known = [demo_model.WEIGHTS] if settings.model == demo_model.NAME else tags
        shown = first_in_line(known, 5)
        raise ModelError(
            f"{settings.pretrained!r} is neither a checkpoint file nor weights of {settings.model}"
            f"{closest(settings.pretrained, known)}; known: {shown or 'none'}; see LAION_ETL_CLIP_PRETRAINED"
        )
    if path.suffix not in _CHECKPOINT_SUFFIXES:
        raise ModelError(
            f"{path} is not a checkpoint: expected one of {', '.join(sorted(_CHECKPOINT_SUFFIXES))}"
        )
    return path


def _downloaded(settings: ClipSettings, tag: Mapping[str, Any]) -> Path:
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # our own error names the file in one line
    try:
        return Path(open_clip().pretrained.download_pretrained(dict(tag)))
    except Exception as error:  # any of three HTTP libraries
        cause = (str(error).splitlines() or [type(error).__name__])[0]
        activation = " and LAION_ETL_CLIP_QUICK_GELU=yes" if tag.get("quick_gelu") else ""
        raise ModelError(
            f"cannot download the weights {settings.pretrained!r} of {settings.model}: {cause}; "
            f"set LAION_ETL_CLIP_PRETRAINED to a checkpoint file{activation}, or use "
            f"LAION_ETL_CLIP_MODEL={demo_model.NAME} LAION_ETL_CLIP_PRETRAINED={demo_model.WEIGHTS}"
        ) from error


def fill_network(network: Any, path: Path, settings: ClipSettings) -> None:
    """Loads the weights into the network, without ever unpickling code."""
    if not is_tiny(settings) and not tag_config(settings):
        check_file(path, network, settings.model)
    try:
        weights = demo_model.read_compact(path) if path.suffix == ".safetensors" else None
        if weights is not None:
            network.load_state_dict(demo_model.expand(weights, network.vocab_size))
        else:
            open_clip().load_checkpoint(network, str(path), weights_only=True)
    except Exception as error:  # a damaged file makes the readers of torch and open_clip raise anything
        raise ModelError(
            f"cannot load the checkpoint {path} into {settings.model}: {reading_cause(error)}; use a "
            "checkpoint of this model, or download it again"
        ) from error


def build_network(model: str, function: Function) -> Any:
    """Return the network without weights, with the activation and preprocessing of a function.

    OpenAI's weights need QuickGELU also under names such as ViT-B-32, where open_clip itself only warns.
    """
    preprocessing = {key: value for key, value in function.items() if key != "quick_gelu"}
    activation = {key: value for key, value in function.items() if key == "quick_gelu"}
    try:
        return create_network(model, force_preprocess_cfg=preprocessing, **activation)
    except (RuntimeError, OSError, ImportError, AttributeError, AssertionError) as error:
        raise not_buildable(model, error) from error


def not_buildable(model: str, error: Exception) -> ModelError:
    """Return the error of a model that open_clip cannot make, in one line."""
    cause = " ".join(str(error).split())[:200] or type(error).__name__
    return ModelError(
        f"cannot build the CLIP model {model}: {cause}; models with a Hugging Face text tower need "
        "files from its hub"
    )
