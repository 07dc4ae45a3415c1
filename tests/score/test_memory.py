"""A process that scores one crawl after the other returns the memory that it has freed."""

import ctypes
import threading
from pathlib import Path

import pytest

from laion_etl.io.storage import Store
from laion_etl.minicrawl.scenes import Scene
from tests.score.conftest import fitting, score, write_shard

_PIECES, _BYTES = 640, 100_000  # below the size from which glibc asks the system for each piece


def _allocate_and_free(libc: ctypes.CDLL) -> None:
    """Leave 64 MB free in the arena of this thread, below a piece that is still in use."""
    pieces = [libc.malloc(_BYTES) for _ in range(_PIECES)]
    for piece in pieces:
        ctypes.memset(piece, 1, _BYTES)
    libc.malloc(_BYTES)
    for piece in pieces:
        libc.free(piece)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4_096


def test_what_threads_have_freed_is_returned_after_scoring(store: Store) -> None:
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "malloc_trim"):
        pytest.skip("the C library is not glibc")
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    write_shard(store, [fitting(Scene("red", "star", "beach", "two"))])
    score(store)  # loads the model
    thread = threading.Thread(target=_allocate_and_free, args=(libc,))
    thread.start()
    thread.join()
    before = resident()
    score(store)
    assert before - resident() > _PIECES * _BYTES / 2
