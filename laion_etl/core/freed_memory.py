"""Memory that a process has freed, and that glibc keeps.

Each thread allocates from one of glibc's arenas (eight per core), and memory that is freed in the middle of
an arena stays with the process. A process that starts threads again and again, each of which loads a model or
holds a shard, grows until every arena once had all of it: a score worker by 300 MiB within 20 crawls.

Refused: fewer arenas (M_ARENA_MAX=2 is as flat, but keeps 40 MiB more, and threads would wait for each other
to allocate); one long-lived thread per step, which would have to serve several crawls.
"""

import ctypes


def return_freed_memory() -> None:
    """Return it to the system, in milliseconds. Does nothing where the C library is another one."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except AttributeError:  # musl, macOS
        return
    trim(0)
