"""GPU utilisation: read from NVIDIA's own tool five times a second while a benchmark runs."""

import shutil
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

_EVERY_MS = 200


class Busy:
    """Utilisation samples, each with the time of its reading."""

    def __init__(self) -> None:
        self._read: list[tuple[float, float]] = []

    def add(self, line: str) -> None:
        if line.strip().isdigit():
            self._read.append((time.time(), float(line) / 100))

    def mean(self, begin: float, end: float) -> float | None:
        """Mean over a span of time (Unix seconds); None without samples in it."""
        found = [share for at, share in self._read if begin <= at <= end]
        return sum(found) / len(found) if found else None


def _read(lines: Iterable[str], busy: Busy) -> None:
    for line in lines:
        busy.add(line)


@contextmanager
def watched(device: str) -> Iterator[Busy]:
    """Watches a GPU in this block; on a CPU, or without the tool, there are no samples."""
    busy = Busy()
    tool = shutil.which("nvidia-smi")
    if tool is None or not device.startswith("cuda"):
        yield busy
        return
    number = device.partition(":")[2] or "0"
    command = [tool, f"--id={number}", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    with subprocess.Popen([*command, f"--loop-ms={_EVERY_MS}"], stdout=subprocess.PIPE, text=True) as running:
        if running.stdout is None:
            raise RuntimeError("no output of nvidia-smi")
        lines = running.stdout
        reader = threading.Thread(target=_read, args=(lines, busy), daemon=True)
        reader.start()
        try:
            yield busy
        finally:
            running.terminate()
            reader.join()
