"""Temporary folders of a command, which the next one removes if a command was killed and left its own.

A folder is locked while it is used, so no process number has to be believed: numbers are given again, and
differ between containers that share a temporary folder. A process that the command forked shares its lock.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def locked_folder(prefix: str) -> Iterator[str]:
    """Make a temporary folder, which is removed at the end of the block; first those that were left behind.

    `prefix`: of the names of all such folders, and of no other ones. Raises OSError if it cannot be made.
    """
    with suppress(OSError):
        _remove_abandoned(prefix)
    while True:
        with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as name:
            try:
                descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:  # another command removed it, as it was not locked yet
                continue
            try:
                with suppress(OSError):  # some network file systems have no such locks
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
                if Path(name).is_dir():  # else it was removed before it was locked
                    yield name
                    return
            finally:
                os.close(descriptor)


def _remove_abandoned(prefix: str) -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with suppress(OSError):  # of another user, or just removed
            _remove_if_abandoned(folder)


def _remove_if_abandoned(folder: Path) -> None:
    """Remove a folder that is not locked. Raises OSError (BlockingIOError) if it is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(descriptor).st_uid == os.geteuid():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
    finally:
        os.close(descriptor)
