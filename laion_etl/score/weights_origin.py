"""What function weights were made for: their activation, and how they take images.

Shapes do not show it: OpenAI's weights load into ViT-B-32 of open_clip, which computes GELU where they need
QuickGELU, and SigLIP's take other means and another resize than CLIP's. A tag of open_clip says it. For a
checkpoint file, the first of these that is known decides:

1. the tag whose weights the file has, by the hub's folder it is in, or else by the SHA-256 that open_clip
   expects, for which the whole file is read;
2. `open_clip_config.json` next to the file, if the file has the name it has on the hub;
3. what all of open_clip's tags for the architecture have in common.

Settings take precedence. Where the tags differ and nothing says which, a warning names the settings.
"""

import hashlib
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from laion_etl.core.errors import ModelError
from laion_etl.core.plain_json import NOT_AS_EXPECTED, parse_json
from laion_etl.score.hub import CONFIG, WEIGHTS, is_layout
from laion_etl.score.openclip import open_clip
from laion_etl.settings import ClipSettings

KEYS = ("quick_gelu", "mean", "std", "interpolation", "resize_mode")
_DEFAULTS = {"interpolation": "bicubic", "resize_mode": "shortest"}  # those of open_clip
_ACTIVATIONS = frozenset({"QuickGELU", "GELU", "GELUTanh", "ReLU", "SiLU", "Hardswish"})
_VARIANT = "-quickgelu"  # of open_clip's names
_log = logging.getLogger(__name__)

Function = dict[str, Any]  # a value of some of KEYS; what is missing is as the architecture has it


def function_of(settings: ClipSettings, path: Path, tag: Mapping[str, Any]) -> Function:
    """Return what the weights were made for. Raises ModelError for a damaged config next to them.

    Args:
        settings: The model's.
        path: Its weights.
        tag: open_clip's entry of them; empty for a checkpoint file.
    """
    wanted = _from_settings(settings)
    if is_layout(settings.model):
        return wanted
    if tag:
        return _chosen(tag) | wanted
    tags = {
        name: open_clip().get_pretrained_cfg(settings.model, name)
        for name in open_clip().list_pretrained_tags_by_model(settings.model)
    }
    found = _of_file(path, _of_base(settings.model) | tags)
    if found is None:
        found = _beside(path)
    if found is None:
        found = _in_common(settings, path, [_chosen(entry) for entry in tags.values()], wanted)
    return found | wanted


def description(network: Any) -> dict[str, Any]:
    """Return the function of a network, which its weights do not show: part of its identity."""
    config = network.visual.preprocess_cfg
    kinds = {str(module) for module in network.modules() if type(module).__name__ in _ACTIVATIONS}
    return {
        "activation": ", ".join(sorted(kinds)),
        **{name: _plain(config.get(name, _DEFAULTS.get(name))) for name in ("size", *KEYS[1:])},
    }


def channels_of(config: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """Return mean and deviation of red, green and blue of open_clip's preprocessing config.

    Like open_clip, it takes one number for all three. Raises ModelError for anything else.
    """
    return _three(config, "mean", -math.inf), _three(config, "std", 0)


def _three(config: Mapping[str, Any], name: str, above: float) -> list[float]:
    value = _plain(config.get(name))
    numbers = value if isinstance(value, list) else [value]
    three = numbers * 3 if len(numbers) == 1 else numbers
    if len(three) != 3 or not all(_is_number(number) and number > above for number in three):
        raise ModelError(
            f"cannot use the {name} {value!r:.60} of the model's preprocess_cfg: it is not a number for each "
            f"of red, green and blue; correct {CONFIG}, or set LAION_ETL_CLIP_{name.upper()}"
        )
    return three


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


def _chosen(entry: Mapping[str, Any]) -> Function:
    return {key: entry[key] for key in KEYS if entry.get(key) is not None}


def _from_settings(settings: ClipSettings) -> Function:
    found: Function = {"mean": settings.mean, "std": settings.std}
    found = {key: value for key, value in found.items() if value}
    if settings.quick_gelu != "auto":
        found["quick_gelu"] = settings.quick_gelu == "yes"
    for key in ("interpolation", "resize_mode"):
        if (value := getattr(settings, key)) != "auto":
            found[key] = value
    return found


def _of_base(model: str) -> dict[str, dict[str, Any]]:
    """Return the tags of the architecture that a name ending in -quickgelu varies.

    Files of them load under either name; only QuickGELU is what they may not have been made for.
    """
    if not model.endswith(_VARIANT):
        return {}
    base = model.removesuffix(_VARIANT)
    entries = {
        name: open_clip().get_pretrained_cfg(base, name)
        for name in open_clip().list_pretrained_tags_by_model(base)
    }
    return {name: {**entry, "quick_gelu": bool(entry.get("quick_gelu"))} for name, entry in entries.items()}


def _of_file(path: Path, tags: Mapping[str, Mapping[str, Any]]) -> Function | None:
    """Return the function of the tag whose weights a file has; None if it is of none that is known."""
    folders = {part.rpartition("--")[2] for part in (*path.absolute().parts[:-1], path.stem)}
    for entry in tags.values():
        if _hub_name(entry) in folders:
            return _chosen(entry)
    digests = {name: digest for name, entry in tags.items() if (digest := _expected_sha256(entry))}
    if not digests:
        return None
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    return next((_chosen(tags[name]) for name, digest in digests.items() if found.startswith(digest)), None)


def _expected_sha256(entry: Mapping[str, Any]) -> str:
    """Return the digest in the URL of a tag, or its first digits; '' for a URL without."""
    host, path = urlsplit(entry.get("url") or "")[1:3]
    if host.startswith("openaipublic."):
        return path.split("/")[-2]
    return Path(path).stem.rpartition("-")[2] if "/mlfoundations/" in path else ""


def _hub_name(entry: Mapping[str, Any]) -> str:
    """Return the name of a tag's repository on the hub, without the organisation; '' if it has none."""
    parts = (entry.get("hf_hub") or "").split("/")
    return parts[1] if len(parts) > 1 else ""


def _beside(path: Path) -> Function | None:
    config = path.parent / CONFIG
    if path.name not in WEIGHTS or not config.is_file():
        return None
    try:
        document = parse_json(config.read_text(encoding="utf-8"))
        quick_gelu = bool(document["model_cfg"].get("quick_gelu", False))
        return _chosen({**document.get("preprocess_cfg", {}), "quick_gelu": quick_gelu})
    except (OSError, *NOT_AS_EXPECTED) as error:
        raise ModelError(
            f"cannot read {config}: {type(error).__name__} {error}; remove it, or download it again"
        ) from error


def _in_common(
    settings: ClipSettings, path: Path, functions: Sequence[Function], wanted: Function
) -> Function:
    """Return what all functions have in common, with a warning about the rest."""
    common: Function = {}
    differing = []
    for key in KEYS if functions else ():
        values = {repr(function.get(key)): function.get(key) for function in functions}
        if len(values) > 1 and key not in wanted:
            differing.append(key)
        elif len(values) == 1 and (value := functions[0].get(key)) is not None:
            common[key] = value
    if differing:
        names = " and ".join(f"LAION_ETL_CLIP_{key.upper()}" for key in differing)
        _log.warning(
            "%s: open_clip's weights for %s differ in %s, and nothing says which these are; set %s, or keep "
            "the file in its folder of the hub, with %s",
            path, settings.model, ", ".join(differing), names, CONFIG,
        )  # fmt: skip
    return common
