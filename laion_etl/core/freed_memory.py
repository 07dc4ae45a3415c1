"""Memory that a process has freed, and that glibc keeps.

Each thread allocates from one of glibc's arenas (eight per core), and memory that is freed in the middle of
an arena stays with the process. A score process starts threads for each crawl, and each of them loads a model
or holds a shard: 60 crawls in one process took 62 MiB more than the first one without this, and 44 with it.

Refused: fewer arenas (M_ARENA_MAX=2), which took more memory than this, and make threads wait for each other
to allocate; one long-lived thread per step, which would have to serve several crawls.
"""

import ctypes


def return_freed_memory() -> None:
    """Return it to the system, in milliseconds. Does nothing where the C library is another one."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except AttributeError:  # musl, macOS
        return
    trim(0)
