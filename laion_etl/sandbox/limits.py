"""Limits of the processes that handle hostile images."""

import ctypes
import resource
import signal

# One thread per process; and freed memory is kept for the next image instead of returned page by page.
ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "PILLOW_BLOCKS_MAX": "8",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 24),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 26),
    "MALLOC_TOP_PAD_": str(1 << 22),
}
_PR_SET_PDEATHSIG = 1


def confine(memory_mb: int) -> None:
    """Limits this process: address space in MiB, no core files; the parent alone handles Ctrl-C.

    The process is killed when the thread that started it ends, and thus when its parent dies.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
