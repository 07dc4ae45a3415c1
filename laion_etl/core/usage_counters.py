"""Counters of what a command and all its child processes send and fetch.

Children count too (parsers, a process per GPU), and any process may be killed at any moment. So each process
keeps its counters in a small file that it maps into memory, in a folder that children find by an environment
variable; the command that made the folder adds the files up. Counting is an addition in memory, without a
system call.

Refused: a pipe or queue to the parent (every kind of child would need one), and counters that a process
writes when it ends (one that is killed writes none).
"""

import logging
import mmap
import os
import tempfile
import threading
from array import array
from enum import IntEnum
from pathlib import Path

FOLDER = "LAIONETL_USAGE_COUNTERS"  # environment variable, not a setting: each command makes its own folder
NO_FOLDER = os.devnull  # its value where no folder can be made: the children are not to record either
_log = logging.getLogger(__name__)


class Counter(IntEnum):
    """What is counted, by its place in the file."""

    WEB_REQUESTS = 0  # for links and policy files
    WEB_BYTES = 1  # received from web servers and from the source of the crawl
    STORE_WRITES = 2  # requests of a bucket that it charges as writes: PUT, POST, LIST
    STORE_READS = 3  # all others but DELETE, which is free
    STORE_BYTES_SENT = 4
    STORE_BYTES_RECEIVED = 5


_FILE_BYTES = 8 * len(Counter)


class _Mapped:
    """The counters of this process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.folder = ""
        self.view: memoryview = memoryview(array("q"))


_mapped = _Mapped()


def _forget() -> None:
    """Leave the parent's file: two processes would overwrite each other's counts."""
    global _mapped  # noqa: PLW0603 - its lock may be held by a thread that the child does not have
    _mapped = _Mapped()


os.register_at_fork(after_in_child=_forget)


def count(what: Counter, number: int = 1) -> None:
    """Add to a counter; does nothing unless the command records its usage."""
    folder = os.environ.get(FOLDER, "")
    if not folder:
        return
    with _mapped.lock:
        if _mapped.folder != folder:
            _mapped.folder, _mapped.view = folder, _opened(folder)
        _mapped.view[what] += number


def counted(folder: Path) -> dict[Counter, int]:
    """Add up the counters of all processes."""
    totals = dict.fromkeys(Counter, 0)
    for file in folder.iterdir():
        values = array("q")
        values.frombytes(file.read_bytes()[:_FILE_BYTES].ljust(_FILE_BYTES, b"\0"))  # a new file is empty
        for what in Counter:
            totals[what] += values[what]
    return totals


def _opened(folder: str) -> memoryview:
    if folder != NO_FOLDER:
        try:
            return _new_file(folder)
        except OSError as error:  # a disk that is full, or the command that made the folder is gone
            _log.warning("cannot count what process %d uses: %s", os.getpid(), error)
    return memoryview(array("q", [0] * len(Counter)))


def _new_file(folder: str) -> memoryview:
    """Map a file of its own: a later process may have the number of one that has ended."""
    handle, _ = tempfile.mkstemp(prefix=f"{os.getpid()}-", dir=folder)
    try:
        # Of a file with holes on a full disk the first count would be a SIGBUS.
        os.posix_fallocate(handle, 0, _FILE_BYTES)
        return memoryview(mmap.mmap(handle, _FILE_BYTES)).cast("q")
    finally:
        os.close(handle)
