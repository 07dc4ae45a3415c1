"""Several GPUs: one process for each, with an equal share of the shards, or of the batches of the queue.

A process reads the numbers of its shards from its stdin, unless it claims batches: as arguments, 75,000 of
them are more than the system allows (E2BIG). It prints a line of JSON for each shard that it has scored, and
at its end which of them are missing; its last line on stderr is the cause if it fails.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

from laion_etl.core.errors import (
    OUTAGE_EXIT_CODE,
    KilledError,
    LaionEtlError,
    ModelError,
    OutageError,
    RefusedError,
    Stopped,
)
from laion_etl.core.plain_json import parse_json
from laion_etl.core.programs import ending, python_module, signals_wait
from laion_etl.core.schemas import scored_stem
from laion_etl.core.stage_stats import StageStats
from laion_etl.core.stopping import Stop
from laion_etl.core.usage import ApartProcess
from laion_etl.dataset.missing_batches import MissingBatch, check_scored
from laion_etl.io.storage import Store
from laion_etl.score.devices import devices
from laion_etl.score.stage import score_shards
from laion_etl.settings import Settings

AGAIN = "--again"  # the option of `laion-etl stage score`
PROGRAM = python_module("laion_etl")
# What is missing is judged here, over all processes.
_ARGUMENTS = ("--allow-missing", "1", "--each", "--json")
_NO_RESULT = "it printed none; print nothing to stdout in custom heads, and run the same command again"
_POLL_S = 0.2
_KILLED = "its process was killed (SIGKILL), most often because the machine ran out of memory"
_READERS = 8  # of stats files: reading them is mostly waiting


def score_everywhere(
    crawl: str,
    batches: Sequence[int],
    settings: Settings,
    store: Store,
    on_done: Callable[[StageStats], None] | None = None,
    on_missing: Callable[[MissingBatch], None] | None = None,
    on_progress: Callable[[StageStats], None] | None = None,
) -> list[StageStats]:
    """`score_shards` on all devices: in this process if there is one device, else in a process for each.

    `on_progress` gets the counts of each shard when it is scored, in one thread at a time; `on_done` gets its
    stats, with several devices at the end.

    The processes take their settings from the environment and the settings file, as commands do. When one of
    them failed, raises ModelError with the cause after the others have finished their shards; KilledError if
    one was killed, OutageError or RefusedError if all that failed did so for that reason.
    """
    found = devices(settings.clip) if len(batches) > 1 else []  # imports torch to count GPUs
    if len(found) < 2:

        def done_here(stats: StageStats) -> None:
            for tell in (on_progress, on_done):
                if tell is not None:
                    tell(stats)

        return score_shards(crawl, batches, settings, store, done_here, on_missing=on_missing)
    missing = run_processes(crawl, batches, found, on_progress)
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


def run_processes(
    crawl: str,
    batches: Sequence[int],
    found: Sequence[str],
    on_progress: Callable[[StageStats], None] | None = None,
) -> list[MissingBatch]:
    """Scores the batches in a process for each device; returns those that are missing, by number.

    `on_progress` gets the counts of each shard, without its files and details. Raises like
    `score_everywhere`, naming the devices whose process failed, with the cause.
    """
    scored = _one_at_a_time(crawl, on_progress)
    with ExitStack() as stack:
        running = [
            (
                device,
                stack.enter_context(
                    ScoreProcess(crawl, batches[place :: len(found)], on_device(device), scored)
                ),
            )
            for place, device in enumerate(found[: len(batches)])
        ]
        failed = [(device, code, process.error) for device, process in running if (code := process.wait())]
        if failed:
            raise failure(failed)
        return sorted((one for _, process in running for one in process.missing()), key=lambda one: one.batch)


def _one_at_a_time(
    crawl: str, on_scored: Callable[[StageStats], None] | None
) -> Callable[[dict[str, Any]], None]:
    """Return what the threads of several processes may call with the counts of a shard."""
    lock = threading.Lock()

    def scored(counts: dict[str, Any]) -> None:
        if on_scored is not None:
            with lock:
                on_scored(StageStats("score", crawl, **counts))

    return scored


def on_device(device: str) -> dict[str, str]:
    """Return this process's environment for one that works on a device."""
    return {**os.environ, "LAION_ETL_CLIP_DEVICE": device}


def claim_on_devices(
    crawl: str,
    found: Sequence[str],
    on_scored: Callable[[StageStats], None],
    stop: Stop,
    options: Sequence[str] = (),
) -> None:
    """Score batches of the queue in a process for each device, until none is left or a shutdown is requested.

    `on_scored` gets the counts of each shard, in one thread at a time. Raises like `run_processes`, Stopped
    after a shutdown.
    """
    scored = _one_at_a_time(crawl, on_scored)
    with ExitStack() as stack:
        running = [
            (device, stack.enter_context(ScoreProcess(crawl, None, on_device(device), scored, options)))
            for device in found
        ]
        while any(process.is_running(_POLL_S) for _, process in running):
            if stop.requested:
                for _, process in running:
                    process.terminate()
        ended = [(device, process.wait(), process.error) for device, process in running]
    if stop.requested:
        raise Stopped("stopped; run the same command again to continue")
    if failed := [one for one in ended if one[1]]:
        raise failure(failed)


def failure(failed: Sequence[tuple[str, int, str]]) -> LaionEtlError:
    """Returns the error for processes that failed: device, exit code and last line of each."""
    names = ", ".join(device for device, _, _ in failed)
    codes = {code for _, code, _ in failed}
    errors = " | ".join(f"{device}: {_cause(code, error)}" for device, code, error in failed)
    sentence = f"cannot score on {names}: {errors}"
    if codes <= {OUTAGE_EXIT_CODE, Stopped.exit_code, -signal.SIGINT, -signal.SIGTERM, -signal.SIGHUP}:
        return OutageError(f"{sentence}; run the same command again to continue")
    if -signal.SIGKILL in codes:
        return KilledError(
            f"{sentence}; give it more memory, or lower LAION_ETL_CLIP_BATCH_SIZE or LAION_ETL_CLIP_PREPARERS"
        )
    return RefusedError(sentence) if codes == {RefusedError.exit_code} else ModelError(sentence)


def _cause(code: int, error: str) -> str:
    if code == -signal.SIGKILL:
        return _KILLED
    return error or f"its process ended with {ending(code)} and without a message"


class ScoreProcess:
    """`laion-etl stage score` as a process, of some shards, or of those it claims itself (`batches` is None).

    It is terminated when the block ends, at the latest, and ends when this process does, even if that is
    killed.
    """

    def __init__(
        self,
        crawl: str,
        batches: Sequence[int] | None,
        environment: Mapping[str, str],
        on_scored: Callable[[dict[str, Any]], None],
        options: Sequence[str] = (),
    ) -> None:
        self._result: dict[str, Any] = {}
        self._asked_to_end = False
        shards = () if batches is None else ("--shards-from", "-")
        with tempfile.TemporaryFile() as names, signals_wait():  # a pipe would block until it is read
            names.writelines(b"%d\n" % batch for batch in batches or ())
            names.seek(0)
            self._process = subprocess.Popen(
                [*PROGRAM, "stage", "score", "--crawl", crawl, *shards, *options, *_ARGUMENTS],
                env=dict(environment),
                # Without names a pipe, which closes when this process ends, so that the child notices.
                stdin=subprocess.PIPE if batches is None else names,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            )
        self.usage = ApartProcess(self._process.pid)
        self.error = ""
        self._followers = [
            threading.Thread(target=self._follow, daemon=True),
            threading.Thread(target=self._read, args=(on_scored,), daemon=True),
        ]
        for follower in self._followers:
            follower.start()

    def _read(self, on_scored: Callable[[dict[str, Any]], None]) -> None:
        """Passes on what is scored; remembers the result, which is the last line."""
        for line in self._process.stdout or ():
            document = _document(line)
            if isinstance(counts := document.get("scored"), dict):
                on_scored(counts)
            elif "missing" in document:
                self._result = document
            else:  # a head or a library has printed it
                sys.stderr.write(line)
        self.usage.ended = time.monotonic()

    def _follow(self) -> None:
        """Passes stderr on, and remembers its last line."""
        for line in self._process.stderr or ():
            sys.stderr.write(line)
            self.error = line.strip().removeprefix("error: ") or self.error

    def __enter__(self) -> "ScoreProcess":
        return self

    def __exit__(self, *error: object) -> None:
        if self._process.poll() is None:
            self._process.terminate()
        self.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def is_running(self, timeout_s: float) -> bool:
        """Returns whether it still runs, after waiting for its end for a while."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        return self._process.returncode is None

    def terminate(self) -> None:
        """Asks it to end, once."""
        if not self._asked_to_end:
            self._asked_to_end = True
            self._process.terminate()

    def wait(self) -> int:
        """Returns the exit code; all that it printed has been passed on then."""
        code = self._process.wait()
        for follower in self._followers:
            follower.join()
        return code

    def missing(self) -> list[MissingBatch]:
        """Returns the batches that a process which succeeded could not score. Raises ModelError."""
        return [MissingBatch.from_plain(plain) for plain in self._found()["missing"]]

    @property
    def total(self) -> int:
        """The batches of the crawl whose queue a process has finished. Raises ModelError."""
        return int(self._found()["total"])

    def _found(self) -> dict[str, Any]:
        if not self._result:
            raise ModelError(f"cannot read the result of a score process: {_NO_RESULT}")
        return self._result


def _document(line: str) -> dict[str, Any]:
    """Returns the JSON object of a line; an empty one if the line is something else."""
    try:
        document = parse_json(line)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
