"""The devices that score workers compute on."""

import sys
from contextlib import AbstractContextManager

from laion_etl.io.storage import Store
from laion_etl.io.usage_records import usage_recorded
from laion_etl.settings import ClipSettings


def devices(settings: ClipSettings) -> list[str]:
    """The devices of the setting, comma separated; `auto` is every GPU, or the CPU if there is none."""
    if settings.device != "auto":
        return [name.strip() for name in settings.device.split(",") if name.strip()] or ["cpu"]
    import torch

    return [f"cuda:{number}" for number in range(torch.cuda.device_count())] or ["cpu"]


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
