"""A `laion-etl` command that kills itself by SIGKILL at a moment that is a number, or counts its moments.

python -m tests.killed_command FILE MOMENT COMMAND...        # MOMENT 0: run to the end; FILE gets the number

Moments are the calls and returns of functions of the stages, and of those they call, in all threads: before
and after each step that reads or writes something. Starting the command is not counted, nor what libraries do
for themselves, but for the one that waits for Postgres.
"""

import os
import signal
import sys
import threading
from functools import cache
from pathlib import Path
from types import FrameType

import laion_etl
from laion_etl.command_line import run as run_command

_PACKAGE = str(Path(laion_etl.__file__).parent)
_NOT_COUNTED = tuple(
    f"{_PACKAGE}/{name}" for name in ("cli/", "settings/", "command_line", "core/numba_cache")
)


@cache
def _counts(file: str) -> bool:
    if file.startswith(_PACKAGE):
        return not file.startswith(_NOT_COUNTED)
    return "/psycopg/" in file


def run() -> None:
    """Run the command of `sys.argv`."""
    counted_to, fatal = Path(sys.argv[1]), int(sys.argv[2])
    moments = 0

    def count(frame: FrameType, _event: str, _argument: object) -> None:
        nonlocal moments
        if _counts(frame.f_code.co_filename):
            moments += 1
            if moments == fatal:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.argv = ["laion-etl", *sys.argv[3:]]
    threading.setprofile(count)
    sys.setprofile(count)
    try:
        run_command()
    finally:
        sys.setprofile(None)
        counted_to.write_text(str(moments))


if __name__ == "__main__":
    run()
