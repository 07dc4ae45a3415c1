"""The devices that score workers compute on."""

import sys
from contextlib import AbstractContextManager

from laion_etl.core.errors import ModelError
from laion_etl.io.storage import Store
from laion_etl.io.usage_records import usage_recorded
from laion_etl.settings import ClipSettings


def devices(settings: ClipSettings) -> list[str]:
    """The devices of the setting, comma separated; `auto` is every GPU, or the CPU if there is none."""
    if settings.device != "auto":
        return [name.strip() for name in settings.device.split(",") if name.strip()] or ["cpu"]
    return _gpus() or ["cpu"]


def _gpus() -> list[str]:
    import torch

    return [f"cuda:{number}" for number in range(torch.cuda.device_count())]


def check_device(name: str) -> None:
    """Raise ModelError for a device that torch does not know, or cannot compute on here."""
    import torch

    try:
        torch.zeros(1, device=name).item()  # on `meta` there are tensors, but no numbers
    except (RuntimeError, AssertionError, ImportError) as error:
        is_gpu = name.partition(":")[0] == "cuda"
        cause = " ".join(str(error).split())[:200] if is_gpu else "torch cannot compute on it here"
        there = ", ".join(["auto", "cpu", *_gpus()])
        raise ModelError(f"cannot use LAION_ETL_CLIP_DEVICE={name!r}: {cause}; use one of {there}") from error


def gpus_in_use(settings: ClipSettings) -> int:
    """The number of GPUs that this process, or its children, hold; 0 until it has looked for them."""
    if "torch" not in sys.modules:
        return 0
    return sum(device != "cpu" for device in devices(settings))


def scoring_recorded(
    crawl: str, unit: str, settings: ClipSettings, store: Store
) -> AbstractContextManager[None]:
    """Record what the block uses to score, with the GPUs that it holds."""
    return usage_recorded(crawl, "score", unit, store, lambda: gpus_in_use(settings))
