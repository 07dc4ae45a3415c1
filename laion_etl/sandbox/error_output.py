"""What confined processes write to their error output, which an image or page may have made them write.

It could have escape sequences, which control a terminal, or no end, which fills a log. So from the moment
that a process is confined, that output is a pipe to its parent, where a thread prints its lines without
control characters, and no more than a limit. What it writes before, about its own start, is printed as it is.
"""

import os
import stat
import sys
import threading
from contextlib import suppress
from functools import cache

from laion_etl.core.shown_text import shown

_VARIABLE = "LAION_ETL_ERROR_PIPE"
_MAX_LINE_BYTES = 1_000
_MAX_BYTES = 1 << 20  # of all processes of a parent


@cache
def _made_pipe() -> int:
    read, write = os.pipe()
    threading.Thread(target=_print_lines, args=(read,), name="error-output", daemon=True).start()
    return write


_lock = threading.Lock()


def error_pipe() -> int:
    """Return the end of the pipe that processes get; this process prints what comes out of the other one."""
    with _lock:  # processes are started by several threads
        return _made_pipe()


def _begin_anew() -> None:
    """In a fork, which has neither the thread nor the one that may hold the lock."""
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()
    _made_pipe.cache_clear()


os.register_at_fork(after_in_child=_begin_anew)


def error_pipe_variable() -> dict[str, str]:
    """Return the environment variable by which a process knows its descriptor."""
    return {_VARIABLE: str(error_pipe())}


def use_error_pipe() -> int | None:
    """Make the pipe the error output of this process, if it was given one; return what was that before."""
    descriptor = os.environ.pop(_VARIABLE, "")
    if not descriptor or not _is_pipe(int(descriptor)):
        return None
    former = None
    if sys.stderr is not None:  # None: it was closed
        with suppress(OSError):  # a full disk
            sys.stderr.flush()
        former = os.dup(sys.stderr.fileno())
        os.dup2(int(descriptor), sys.stderr.fileno())
    os.close(int(descriptor))
    return former


def _is_pipe(descriptor: int) -> bool:
    with suppress(OSError):
        return stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    return False


def _print_lines(read: int) -> None:
    left, line = _MAX_BYTES, b""
    while data := os.read(read, 1 << 16):
        *lines, line = (line + data).split(b"\n")
        if len(line) > _MAX_LINE_BYTES:
            lines, line = [*lines, line], b""
        for one in lines:
            if left > 0 and sys.stderr is not None:
                text = shown(one[:_MAX_LINE_BYTES].decode(errors="replace"))
                with suppress(OSError):  # no reader, a full disk: the pipe must be emptied all the same
                    left -= os.write(2, f"{text}\n".encode())  # sys.stderr is locked while Python ends
