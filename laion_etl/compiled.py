"""Compiling loops over bytes with numba, and where what was compiled is kept.

Compiled code is kept in the user's cache folder (or NUMBA_CACHE_DIR) under the hash of the sources, numba's
version and the CPU, so a changed kernel is never run in an old compilation.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

import llvmlite.binding
import numba

_SOURCES = ("parse/kernels/*.py", "database/kernels.py")

KernelT = TypeVar("KernelT", bound=Callable[..., object])


def _cache_folder() -> Path:
    """Where compiled kernels are kept; a private temporary folder where the home folder can't be written."""
    digest = hashlib.sha256(numba.__version__.encode())
    digest.update(llvmlite.binding.get_host_cpu_name().encode())
    digest.update(llvmlite.binding.get_host_cpu_features().flatten().encode())
    for pattern in _SOURCES:
        for source in sorted(Path(__file__).parent.glob(pattern)):
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


def ensure_compiled() -> None:
    """Has all kernels compiled, in a process whose memory ends with it, unless they are for this CPU."""
    if not compiled_marker().exists():
        # Should it fail, this process compiles for itself what it needs, or fails with the same cause.
        subprocess.run([sys.executable, "-m", "laion_etl.compile"], check=False)


def kernel(function: KernelT) -> KernelT:
    """Compiles a function at its first call, without the interpreter lock held while it runs."""
    return cast(KernelT, numba.njit(cache=True, nogil=True)(function))
