"""Models by their id on Hugging Face's hub, `hf-hub:ORGANISATION/NAME`, or in a folder, `local-dir:PATH`.

Both have open_clip's layout: `open_clip_config.json`, weights, and tokenizer files unless the tokenizer is
one of open_clip's own. Only these files are fetched from the hub; a model's code is never run.
"""

from dataclasses import replace
from pathlib import Path

from laion_etl.core.errors import ModelError
from laion_etl.core.user_paths import user_path
from laion_etl.settings import ClipSettings

HUB, FOLDER = "hf-hub:", "local-dir:"
CONFIG = "open_clip_config.json"
WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
_TOKENIZER = ("tokenizer*.json", "special_tokens_map.json", "vocab.*", "merges.txt", "*.model")


def is_layout(model: str) -> bool:
    """Whether a model is named by a hub id or a folder."""
    return model.startswith((HUB, FOLDER))


def in_folder(settings: ClipSettings) -> ClipSettings:
    """The settings with such a model replaced by its local folder and weights file.

    Raises ModelError when it cannot be downloaded or has another layout.
    """
    if not is_layout(settings.model):
        return settings
    folder = _fetched(settings.model) if settings.model.startswith(HUB) else _folder(settings.model)
    if not (folder / CONFIG).is_file():
        raise ModelError(f"{settings.model} is not an open_clip model: it has no {CONFIG}")
    weights = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if weights is None:
        raise ModelError(f"{settings.model} has no weights; expected one of {', '.join(WEIGHTS)}")
    return replace(settings, model=f"{FOLDER}{folder}", pretrained=str(weights))


def _folder(model: str) -> Path:
    return user_path(model.removeprefix(FOLDER))


def _fetched(model: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = [CONFIG, *WEIGHTS[:2], *_TOKENIZER]
    try:
        return Path(snapshot_download(model.removeprefix(HUB), allow_patterns=wanted))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        cause = " ".join(str(error).split())[:200]
        raise ModelError(
            f"cannot download {model}: {cause}; set LAION_ETL_CLIP_MODEL=local-dir:PATH"
        ) from error
