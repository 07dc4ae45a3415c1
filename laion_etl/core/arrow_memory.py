"""Less memory for Arrow in a process of our own that parses or downloads.

Arrow's usual allocator keeps more of what was freed than malloc does, and took 7% more CPU. And Arrow
imports pandas, where that is installed, as soon as a list becomes a column, to see whether it is a column of
pandas: 25 MB and 0.27 CPU s for nothing. Both are for the whole process, so only processes of our own ask for
it.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType

import pyarrow as pa


class _NoPandas(MetaPathFinder):
    """Makes an import of pandas fail as if it were not installed."""

    def find_spec(self, fullname: str, _: Sequence[str] | None, __: ModuleType | None = None) -> None:
        """Leaves all other modules to those that come next. Raises ImportError for pandas."""
        if fullname == "pandas":
            raise ImportError(fullname)


def save_arrow_memory() -> None:
    """Makes Arrow take memory by malloc and leave pandas alone, unless that is imported already."""
    pa.set_memory_pool(pa.system_memory_pool())
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.array([""])  # Arrow looks for pandas once
    finally:
        sys.meta_path.remove(finder)
