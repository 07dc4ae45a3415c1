"""The loops over bytes, compiled by numba: cutting links out of records, judging texts, resolving plain URLs.

A kernel never decides a hard case. It either gives the answer that the readable Python beside it (text.py,
urls.py, wat.py) would give, or says that Python has to; tests hold the two together.

Everything is a span (start, end) into one byte array, the arena of a batch, so no object is made per link.
Compiled code is kept in the user's cache folder (or NUMBA_CACHE_DIR) under the hash of these sources, numba's
version and the CPU, so a changed kernel is never run in an old compilation.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

import llvmlite.binding
import numba
import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

KernelT = TypeVar("KernelT", bound=Callable[..., object])


def _cache_folder() -> Path:
    """Where compiled kernels are kept; a private temporary folder where the home folder can't be written."""
    digest = hashlib.sha256(numba.__version__.encode())
    digest.update(llvmlite.binding.get_host_cpu_name().encode())
    digest.update(llvmlite.binding.get_host_cpu_features().flatten().encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    name = f"kernels-{digest.hexdigest()[:16]}"
    given = os.environ.get("NUMBA_CACHE_DIR")
    if given and Path(given).name == name:
        return Path(given)  # found by the process that started this one
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(given or cache / "laion_etl") / name
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix="laion_etl-")) / name
        folder.mkdir()
        return folder


_FOLDER = _cache_folder()
vars(numba.config)["CACHE_DIR"] = str(_FOLDER)
os.environ["NUMBA_CACHE_DIR"] = str(_FOLDER)  # for processes started from here


def compiled_marker() -> Path:
    """The file that says that all kernels are compiled."""
    return _FOLDER / "compiled"


def kernel(function: KernelT) -> KernelT:
    """Compiles a function at its first call, without the interpreter lock held while it runs."""
    return cast(KernelT, numba.njit(cache=True, nogil=True)(function))


@kernel
def equals(data: Bytes, start: int, other: Bytes) -> bool:
    """Whether `other` stands at `start`; the caller knows that there is room for it."""
    for i in range(other.size):
        if data[start + i] != other[i]:
            return False
    return True


@kernel
def hash_of(data: Bytes, start: int, end: int) -> np.uint64:
    """FNV-1a, 64 bits, of a span with ASCII letters lowered; equal hashes still have to be compared."""
    value = np.uint64(0xCBF29CE484222325)
    for i in range(start, end):
        byte = data[i]
        if 65 <= byte <= 90:
            byte += np.uint8(32)
        value = (value ^ np.uint64(byte)) * np.uint64(0x100000001B3)
    return value


@kernel
def holds(sorted_hashes: Hashes, value: np.uint64) -> bool:
    """Whether a value is among sorted ones."""
    found = np.searchsorted(sorted_hashes, value)
    return bool(found < sorted_hashes.size and sorted_hashes[found] == value)


def constant(text: bytes) -> Bytes:
    """Bytes as an array that kernels take for a compile-time constant."""
    return np.frombuffer(text, np.uint8)
