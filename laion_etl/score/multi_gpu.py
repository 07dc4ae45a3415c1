"""Several GPUs: one process for each, with an equal share of the shards."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from laion_etl.core.errors import OUTAGE_EXIT_CODE, ModelError, OutageError
from laion_etl.core.schemas import scored_stem
from laion_etl.core.stage_stats import StageStats
from laion_etl.io.storage import Store
from laion_etl.score.stage import score_shards
from laion_etl.settings import ClipSettings, Settings


def devices(settings: ClipSettings) -> list[str]:
    """The devices of the setting, comma separated; `auto` is every GPU, or the CPU if there is none."""
    if settings.device != "auto":
        return [name.strip() for name in settings.device.split(",") if name.strip()] or ["cpu"]
    import torch

    return [f"cuda:{number}" for number in range(torch.cuda.device_count())] or ["cpu"]


def score_everywhere(
    crawl: str,
    batches: Sequence[int],
    settings: Settings,
    store: Store,
    on_done: Callable[[StageStats], None] | None = None,
) -> list[StageStats]:
    """`score_shards` on all devices: in this process if there is one device, else in a process for each.

    The processes take their settings from the environment and the settings file, as commands do. Raises
    ModelError when one of them failed, OutageError when all that did ended by an outage, after the others
    have finished their shards.
    """
    if len(batches) < 2:  # before torch is imported to count GPUs
        return score_shards(crawl, batches, settings, store, on_done)
    found = devices(settings.clip)
    if len(found) == 1:
        return score_shards(crawl, batches, settings, store, on_done)
    with ExitStack() as stack:
        running = [
            (device, stack.enter_context(_Process(crawl, batches[place :: len(found)], device)))
            for place, device in enumerate(found[: len(batches)])
        ]
        codes = [(device, process.wait()) for device, process in running]
    failed = [device for device, code in codes if code]
    if failed and {code for _, code in codes if code} == {OUTAGE_EXIT_CODE}:
        raise OutageError(f"cannot score on {', '.join(failed)}: an outage ended it; see the output above")
    if failed:
        raise ModelError(f"cannot score on {', '.join(failed)}: a process failed; see its output above")
    done = [store.read_stats(f"{scored_stem(crawl, batch)}_stats.json") for batch in batches]
    if on_done is not None:
        for stats in done:
            on_done(stats)
    return done


class _Process:
    """`laion-etl stage score` of some shards on one device; terminated when the block ends, at the latest."""

    def __init__(self, crawl: str, batches: Sequence[int], device: str) -> None:
        shards = [argument for batch in batches for argument in ("--shard", str(batch))]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "laion_etl", "stage", "score", "--crawl", crawl, *shards],
            env={**os.environ, "LAION_ETL_CLIP_DEVICE": device},
            stdout=subprocess.DEVNULL,
        )

    def __enter__(self) -> "_Process":
        return self

    def __exit__(self, *error: object) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait()

    def wait(self) -> int:
        return self._process.wait()
