"""Several GPUs: one process for each, with an equal share of the shards.

A process reads the numbers of its shards from its stdin: as arguments, 75,000 of them are more than the
system allows (E2BIG). It prints which of them are missing; its last line on stderr is the cause if it fails.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from laion_etl.core.errors import (
    OUTAGE_EXIT_CODE,
    KilledError,
    LaionEtlError,
    ModelError,
    OutageError,
    RefusedError,
    Stopped,
)
from laion_etl.core.schemas import scored_stem
from laion_etl.core.stage_stats import StageStats
from laion_etl.dataset.missing_batches import MissingBatch, check_scored
from laion_etl.io.storage import Store
from laion_etl.score.stage import score_shards
from laion_etl.settings import ClipSettings, Settings

PROGRAM = (sys.executable, "-m", "laion_etl")
# What is missing is judged here, over all processes.
_ARGUMENTS = ("--shards-from", "-", "--allow-missing", "1", "--quiet", "--json")
_KILLED = "its process was killed (SIGKILL), most often because the machine ran out of memory"
_READERS = 8  # of stats files: reading them is mostly waiting


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
    on_missing: Callable[[MissingBatch], None] | None = None,
) -> list[StageStats]:
    """`score_shards` on all devices: in this process if there is one device, else in a process for each.

    The processes take their settings from the environment and the settings file, as commands do. When one of
    them failed, raises ModelError with the cause after the others have finished their shards; KilledError if
    one was killed, OutageError or RefusedError if all that failed did so for that reason.
    """
    if len(batches) < 2:  # before torch is imported to count GPUs
        return score_shards(crawl, batches, settings, store, on_done, on_missing=on_missing)
    found = devices(settings.clip)
    if len(found) == 1:
        return score_shards(crawl, batches, settings, store, on_done, on_missing=on_missing)
    missing = run_processes(crawl, batches, found)
    left_out = {one.batch for one in missing}
    names = [f"{scored_stem(crawl, batch)}_stats.json" for batch in batches if batch not in left_out]
    with ThreadPoolExecutor(_READERS) as pool:
        done = list(pool.map(store.read_stats, names))
    if on_done is not None:
        for stats in done:
            on_done(stats)
    if on_missing is None:
        check_scored(crawl, missing, len(batches))
    else:
        for one in missing:
            on_missing(one)
    return done


def run_processes(crawl: str, batches: Sequence[int], found: Sequence[str]) -> list[MissingBatch]:
    """Scores the batches in a process for each device; returns those that are missing, by number.

    Raises like `score_everywhere`, naming the devices whose process failed, with the cause.
    """
    with ExitStack() as stack:
        running = [
            (device, stack.enter_context(_Process(crawl, batches[place :: len(found)], device)))
            for place, device in enumerate(found[: len(batches)])
        ]
        failed = [(device, code, process.error) for device, process in running if (code := process.wait())]
        if failed:
            raise _failure(failed)
        return sorted((one for _, process in running for one in process.missing()), key=lambda one: one.batch)


def _failure(failed: Sequence[tuple[str, int, str]]) -> LaionEtlError:
    """Returns the error for processes that failed: device, exit code and last line of each."""
    names = ", ".join(device for device, _, _ in failed)
    codes = {code for _, code, _ in failed}
    errors = " | ".join(
        f"{device}: {_KILLED if code == -signal.SIGKILL else error}" for device, code, error in failed
    )
    sentence = f"cannot score on {names}: {errors}"
    if codes <= {OUTAGE_EXIT_CODE, Stopped.exit_code}:
        return OutageError(f"{sentence}; run the same command again to continue")
    if -signal.SIGKILL in codes:
        return KilledError(
            f"{sentence}; give it more memory, or lower LAION_ETL_CLIP_BATCH_SIZE or LAION_ETL_CLIP_PREPARERS"
        )
    return RefusedError(sentence) if codes == {RefusedError.exit_code} else ModelError(sentence)


class _Process:
    """`laion-etl stage score` of some shards on one device; terminated when the block ends, at the latest."""

    def __init__(self, crawl: str, batches: Sequence[int], device: str) -> None:
        self._result = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the block ends
        with tempfile.TemporaryFile() as names:  # a pipe would block until the process reads it
            names.writelines(b"%d\n" % batch for batch in batches)
            names.seek(0)
            self._process = subprocess.Popen(
                [*PROGRAM, "stage", "score", "--crawl", crawl, *_ARGUMENTS],
                env={**os.environ, "LAION_ETL_CLIP_DEVICE": device},
                stdin=names,
                stdout=self._result,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            )
        self.error = "its process ended without a message"
        self._follower = threading.Thread(target=self._follow, daemon=True)
        self._follower.start()

    def _follow(self) -> None:
        """Passes stderr on, and remembers its last line."""
        for line in self._process.stderr or ():
            sys.stderr.write(line)
            self.error = line.strip().removeprefix("error: ") or self.error

    def __enter__(self) -> "_Process":
        return self

    def __exit__(self, *error: object) -> None:
        if self._process.poll() is None:
            self._process.terminate()
        self.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()
        self._result.close()

    def wait(self) -> int:
        """Returns the exit code; all of stderr has been passed on then."""
        code = self._process.wait()
        self._follower.join()
        return code

    def missing(self) -> list[MissingBatch]:
        """Returns the batches that a process which succeeded could not score."""
        self._result.seek(0)
        return [MissingBatch.from_plain(plain) for plain in json.load(self._result)["missing"]]
