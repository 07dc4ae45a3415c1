"""Compiles loops over bytes with numba, and caches the compiled code.

The code is cached in the user's cache folder (or NUMBA_CACHE_DIR) under a hash of the sources, the versions
of numba, LLVM and numpy, and the CPU, so an outdated compilation of a kernel is never used, and environments
with the same sources share one.

numba is imported when a kernel is first called, not with the modules that have kernels: it takes 0.15 CPU s
and 40 MB, and most processes, such as download workers and short commands, call none.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping
from functools import cache, update_wrapper
from pathlib import Path
from typing import Any, TypeVar, cast

from laion_etl.core.host_resources import can_be_written, user_cache
from laion_etl.core.programs import python_module

_PACKAGE = Path(__file__).parents[1]
_MARKER = "compiled"
# What the compiled code follows from: kernels, and where their constants and types are from.
_SOURCES = (
    "core/numba_cache.py",
    "core/kernels.py",
    "core/intrinsics.py",
    "core/caption_source.py",
    "core/documented_enum.py",
    "urls/*kernels.py",
    "blocklists/*kernels.py",
    "blocklists/hashes.py",
    "blocklists/link_keys.py",
    "blocklists/link_matches.py",
    "blocklists/near_kept.py",
    "blocklists/near_lists.py",
    "blocklists/near_rest.py",
    "blocklists/near_sets.py",
    "parse/kernels/*.py",
    "database/kernels.py",
    "score/*kernels.py",
)

KernelT = TypeVar("KernelT", bound=Callable[..., object])


def _sources() -> list[Path]:
    return [source for pattern in _SOURCES for source in sorted(_PACKAGE.glob(pattern))]


def _cache_folder() -> Path:
    """Returns the folder of compiled kernels.

    If it is not writable (a container with a read-only root) this is a temporary folder with a copy of its
    content: numba does not use folders it cannot write to.
    """
    import llvmlite.binding
    import numba
    import numpy

    versions = (numba.__version__, llvmlite.__version__, numpy.__version__)
    digest = hashlib.sha256("\0".join(versions).encode())
    digest.update(llvmlite.binding.get_host_cpu_name().encode())
    digest.update(llvmlite.binding.get_host_cpu_features().flatten().encode())
    for source in _sources():
        digest.update(source.read_bytes())
    name = f"kernels-{digest.hexdigest()[:16]}"
    given = os.environ.get("NUMBA_CACHE_DIR")
    if given and Path(given).name == name:
        return Path(given)  # set by the process that started this one
    folder = Path(given or user_cache()) / name
    if can_be_written(folder):
        return folder
    private = Path(tempfile.mkdtemp(prefix="laion_etl-")) / name
    if (folder / _MARKER).exists():
        shutil.copytree(folder, private)
    private.mkdir(exist_ok=True)
    return private


@cache
def _folder() -> Path:
    folder = _cache_folder()
    os.environ["NUMBA_CACHE_DIR"] = str(folder)  # for processes started from here
    return folder


def compiled_marker() -> Path:
    """Returns the path of the file that exists when all kernels are compiled."""
    return _folder() / _MARKER


def _compiled(function: Callable[..., object], options: Mapping[str, bool]) -> Any:
    """Returns what numba makes of a kernel.

    numba reads its configuration once more when it compiles and the environment has changed, so it is set
    for each kernel.
    """
    import numba

    vars(numba.config)["CACHE_DIR"] = str(_folder())
    locators = ("laion_etl.core.numba_locator.PackageLocator", "UserProvidedCacheLocator")
    vars(numba.config)["CACHE_LOCATOR_CLASSES"] = ",".join(locators)
    compiler: Any = numba.njit  # its type does not have all of its options
    return compiler(cache=True, nogil=True, **options)(function)


def ensure_compiled() -> None:
    """Compiles all kernels unless done for this CPU, in another process: its memory is freed afterwards."""
    if not compiled_marker().exists():
        # If it fails, this process compiles what it needs itself, or fails with the same cause.
        subprocess.run(python_module("laion_etl.cli.warm_kernels"), check=False)


class _Kernel:
    """A function that numba compiles, or loads compiled, at its first call; other kernels may call it."""

    _lock = threading.RLock()

    def __init__(self, function: Callable[..., object], **options: bool) -> None:
        update_wrapper(self, function)
        self._function = function
        self._options = options
        self._dispatcher: Any = None

    def __call__(self, *given: object) -> object:
        return (self._dispatcher or self.dispatcher)(*given)

    @property
    def dispatcher(self) -> Any:
        """Returns what numba made of the function."""
        with self._lock:
            if self._dispatcher is None:
                self._dispatcher = _compiled(self._function, self._options)
        return self._dispatcher

    @property
    def _numba_type_(self) -> object:
        """By this name numba finds out what a kernel is that another one calls."""
        return self.dispatcher._numba_type_


def kernel(function: KernelT) -> KernelT:
    """Makes numba compile a function at its first call; it runs without the interpreter lock."""
    return cast(KernelT, _Kernel(function))


def borrowing_kernel(function: KernelT) -> KernelT:
    """Makes a kernel of a function that allocates no array, nor calls one that does: numba refuses those.

    It counts no references to the arrays that it is given, which kernels otherwise do whenever one calls
    another: with tables of a dozen columns, that took half of the time of cutting out links. An assignment to
    a part of an array allocates a copy, unless it is of a number.
    """
    return cast(KernelT, _Kernel(function, _nrt=False))
