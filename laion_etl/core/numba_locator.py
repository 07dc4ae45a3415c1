"""Where numba keeps a compiled kernel; numba imports it by name (numba_cache.py)."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

from numba.core.caching import UserProvidedCacheLocator

_PACKAGE = Path(__file__).parents[1]


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
