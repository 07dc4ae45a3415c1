"""A confined process that writes to its error output what a terminal would obey, and its parent."""

import os
import sys
import threading
from contextlib import suppress

from laion_etl.sandbox.error_output import error_pipe
from laion_etl.sandbox.limits import confine
from laion_etl.sandbox.processes import start_confined


def _child() -> None:
    with suppress(OSError):
        os.write(2, b"\x1b[1mat its start\n")
    confine(1_024)
    if sys.stderr is None:
        os.write(1, b"done")
        return
    os.write(2, b"\x1b]0;title\x07\xe2\x80\xaea \xff line\n" + b"no end" * 100_000 + b"\n")
    for _ in range(40):
        os.write(2, b"a line\n" * 10_000)
    os.write(1, b"done")


def _parent() -> None:
    process = start_confined([sys.executable, "-m", __spec__.name, "child"])
    assert process.stdout is not None
    assert process.stdout.read() == b"done"
    process.wait()
    os.close(error_pipe())
    for thread in threading.enumerate():
        if thread.name == "error-output":
            thread.join()


if __name__ == "__main__":
    _child() if sys.argv[1:] else _parent()
