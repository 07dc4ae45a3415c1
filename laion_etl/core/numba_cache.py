"""Compiles loops over bytes with numba, and caches the compiled code.

The code is cached in the user's cache folder (or NUMBA_CACHE_DIR) under a hash of the sources, numba's
version and the CPU, so an outdated compilation of a kernel is never used, and environments with the same
sources share one.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import llvmlite.binding
import numba
from llvmlite import ir
from numba import types
from numba.core.caching import UserProvidedCacheLocator
from numba.core.cgutils import raw_memcpy
from numba.extending import intrinsic

from laion_etl.core.host_resources import can_be_written, user_cache

_PACKAGE = Path(__file__).parents[1]
_MARKER = "compiled"
_SOURCES = (
    "core/kernels.py",
    "urls/*kernels.py",
    "blocklists/*.py",
    "parse/kernels/*.py",
    "database/kernels.py",
    "score/*kernels.py",
)

KernelT = TypeVar("KernelT", bound=Callable[..., object])


def _cache_folder() -> Path:
    """Returns the folder of compiled kernels.

    If it is not writable (a container with a read-only root) this is a temporary folder with a copy of its
    content: numba does not use folders it cannot write to.
    """
    digest = hashlib.sha256(numba.__version__.encode())
    digest.update(llvmlite.binding.get_host_cpu_name().encode())
    digest.update(llvmlite.binding.get_host_cpu_features().flatten().encode())
    for pattern in _SOURCES:
        for source in sorted(_PACKAGE.glob(pattern)):
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


class PackageLocator(UserProvidedCacheLocator):
    """Names the folder of a compiled kernel by its place in the package, not by that in the file system."""

    @classmethod
    def get_suitable_cache_subpath(cls, py_file: str) -> str:
        """The folder, for a file of this package."""
        return "_".join(Path(py_file).relative_to(_PACKAGE).parts[:-1])

    @classmethod
    def from_function(cls, py_func: Callable[..., object], py_file: str) -> "PackageLocator | None":
        """A locator for a kernel; None for a function of others."""
        if not Path(py_file).is_relative_to(_PACKAGE):
            return None
        return cast(PackageLocator | None, super().from_function(py_func, py_file))  # type: ignore[no-untyped-call]


_FOLDER = _cache_folder()
vars(numba.config)["CACHE_DIR"] = str(_FOLDER)
vars(numba.config)["CACHE_LOCATOR_CLASSES"] = f"{__name__}.PackageLocator,UserProvidedCacheLocator"
os.environ["NUMBA_CACHE_DIR"] = str(_FOLDER)  # for processes started from here


def compiled_marker() -> Path:
    """Returns the path of the file that exists when all kernels are compiled."""
    return _FOLDER / _MARKER


def ensure_compiled() -> None:
    """Compiles all kernels unless done for this CPU, in another process: its memory is freed afterwards."""
    if not compiled_marker().exists():
        # If it fails, this process compiles what it needs itself, or fails with the same cause.
        subprocess.run([sys.executable, "-m", "laion_etl.cli.warm_kernels"], check=False)


def _copy_bytes(_: object, out: types.Array, _at: Any, data: types.Array, _start: Any, _count: Any) -> object:
    def generated(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        def address(array: int) -> Any:
            data = context.make_array(signature.args[array])(context, builder, values[array]).data
            return builder.gep(data, [values[array + 1]])

        raw_memcpy(builder, address(0), address(2), values[4], 1)  # type: ignore[no-untyped-call]
        return context.get_dummy_value()

    return types.void(out, types.intp, data, types.intp, types.intp), generated


# For kernels: copy_bytes(out, at, data, start, count) copies like memcpy. Arrays of bytes in C order; bounds
# are not checked.
copy_bytes = cast(Callable[[Any, int, Any, int, int], None], intrinsic(_copy_bytes))


def _prefetch(_: object, data: types.Array, _at: Any) -> object:
    def generated(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        begin = context.make_array(signature.args[0])(context, builder, values[0]).data
        address = builder.gep(begin, [values[1]])
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address.type, number, number, number])
        fetch = builder.module.declare_intrinsic("llvm.prefetch", [address.type], kind)
        builder.call(fetch, [address, number(0), number(3), number(1)])  # to read, keep, data
        return context.get_dummy_value()

    return types.void(data, types.intp), generated


# For kernels: prefetch(data, at) begins to read a place that is needed soon, whether it exists or not.
prefetch = cast(Callable[[Any, int], None], intrinsic(_prefetch))


def kernel(function: KernelT) -> KernelT:
    """Makes numba compile a function at its first call; it runs without the interpreter lock."""
    return cast(KernelT, numba.njit(cache=True, nogil=True)(function))
