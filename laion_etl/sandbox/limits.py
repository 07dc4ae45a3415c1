"""Confines the processes that handle hostile images: what they see, what they may use, what they may do.

`confined_environment` is what such a process is started with, `confine` what it calls before the first image,
`prepare_parent` what the process that starts them calls.
"""

import ctypes
import logging
import os
import resource
import signal
from collections.abc import Mapping
from contextlib import suppress
from functools import cache

from laion_etl.sandbox import seccomp
from laion_etl.sandbox.error_output import use_error_pipe

# One thread per process; and freed memory is kept for the next image instead of returned page by page.
_SET = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "PILLOW_BLOCKS_MAX": "8",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 24),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 26),
    "MALLOC_TOP_PAD_": str(1 << 22),
}
# What Python, numpy and numba need to start; no settings, keys, database URLs or tokens.
_PASSED_ON = (
    *("PATH", "LD_LIBRARY_PATH", "LD_PRELOAD", "HOME", "TMPDIR", "LANG", "LC_ALL", "LC_CTYPE"),
    *("PYTHONHOME", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"),
    *("XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "OPENBLAS_CORETYPE"),
)
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_log = logging.getLogger(__name__)


def confined_environment(given: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Returns the environment variables of a confined process."""
    return {name: given[name] for name in _PASSED_ON if name in given} | _SET


@cache
def prepare_parent() -> None:
    """Warns, once, where the kernel can't filter system calls, and then hides this process's memory.

    Without the filter a decoder that was taken over runs as the same user as this process, which it could
    trace if it were not for PR_SET_DUMPABLE. With the filter it can't, and debuggers keep working.
    """
    if not seccomp.supported():
        _log.warning(
            "this kernel does not filter system calls (seccomp): processes that decode images are limited "
            "in memory, open files and processes only"
        )
        hide_memory()


def hide_memory() -> None:
    """Makes this process one that others of its user can't trace."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def end_with_parent(parent: int = 0) -> None:
    """Has this process killed when the thread that started it ends, and ignore what asks a command to end.

    With the number of the parent it ends at once if that has ended already.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent and os.getppid() != parent:
        os._exit(1)


_NOT_CONFINED = (
    "cannot confine a process that handles images or pages: the kernel refused to filter its system calls; "
    "see whether the container of this process forbids seccomp"
)


def confine(memory_mb: int) -> None:
    """Confines this process, for good. Everything it needs must be imported and open.

    Address space in MiB; no new open files, sockets or processes, no core files, no writing to regular files;
    only harmless system calls (`seccomp`). The parent alone handles Ctrl-C and SIGTERM, which systemd sends
    to all processes of a service, and the process is killed when the thread that started it ends, and thus
    when its parent dies. It ends where a kernel that filters system calls refuses to do so: its parent has
    left its own memory open to be read, because of the filter. Its error output goes to its parent, which
    prints it (error_output.py).
    """
    end_with_parent()
    former = use_error_pipe()
    limits = {
        resource.RLIMIT_AS: memory_mb << 20,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: 0,
        resource.RLIMIT_NPROC: 0,
    }
    for kind, most in limits.items():
        resource.setrlimit(kind, (most, most))
    if seccomp.supported() and not seccomp.install():
        # Not by the pipe: its reader may be behind when the parent says that this process ended.
        with suppress(OSError):
            os.write(2 if former is None else former, f"{_NOT_CONFINED}\n".encode())
        os._exit(1)
    if former is not None:
        os.close(former)
