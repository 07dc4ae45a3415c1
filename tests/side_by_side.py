"""All tests, in several processes side by side, which takes half the time: those of Airflow wait a lot.

    python -m tests.side_by_side        exit code 0 when all passed

As many run at once as there are cores, and two at least; the longest begin first. Pytest's arguments go to
each. What one says comes when it is done.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

# All tests, each once: a path belongs to the group that names it most closely, the rest to that of "tests".
GROUPS = {
    "airflow": ("tests/airflow",),
    "demo": ("tests/airflow/test_demo.py", "tests/airflow/test_alerts.py"),
    "others": ("tests",),
    "whole": ("tests/integration", "tests/parse", "tests/score"),
    "faults": ("tests/faults", "tests/kubernetes"),
}
_LOOK_S = 0.5


@dataclass(frozen=True)
class Running:
    """The tests of a group at work."""

    name: str
    process: subprocess.Popen[bytes]
    said: IO[bytes]
    began: float


def main(arguments: Sequence[str]) -> int:
    """The worst of all exit codes."""
    waiting, running, worst = list(GROUPS), list[Running](), 0
    try:
        while waiting or running:
            while waiting and len(running) < max(2, os.cpu_count() or 1):
                running.append(_begin(waiting.pop(0), arguments))
            time.sleep(_LOOK_S)
            for group in [one for one in running if one.process.poll() is not None]:
                running.remove(group)
                worst = max(worst, _ended(group))
    except KeyboardInterrupt:
        for group in running:
            group.process.wait()  # they got the signal, too
        raise
    return worst


def left_out(name: str) -> list[str]:
    """What lies in the paths of a group and belongs to another one."""
    others = [path for other, paths in GROUPS.items() if other != name for path in paths]
    return [path for path in others if any(path.startswith(f"{mine}/") for mine in GROUPS[name])]


def _begin(name: str, arguments: Sequence[str]) -> Running:
    ignored = [f"--ignore={path}" for path in left_out(name)]
    command = [sys.executable, "-m", "pytest", *GROUPS[name], *ignored, *arguments]
    said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `_ended`
    print(f"{name}: {' '.join(command[1:])}", flush=True)
    # Not by a shell's `&`: what that starts ignores Ctrl-C, and so would all the tests start.
    process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
    return Running(name, process, said, time.monotonic())


def _ended(group: Running) -> int:
    group.said.seek(0)
    sys.stdout.buffer.write(group.said.read())
    group.said.close()
    code = abs(group.process.returncode)
    print(f"{group.name}: exit code {code} after {time.monotonic() - group.began:.0f} s", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
