"""Run laion-etl as if packages were not installed: python -m tests.hidden_modules MODULE,... ARGUMENT..."""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

from laion_etl.command_line import run


class AllBut:
    """Finds modules as Python does, but not these."""

    def __init__(self, hidden: set[str]) -> None:
        self._hidden = hidden

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return None if name in self._hidden else PathFinder.find_spec(name, path, target)


def hide(modules: set[str]) -> None:
    """From now on these can't be found; raises ValueError when one was imported already."""
    if imported := modules & sys.modules.keys():
        raise ValueError(f"laion_etl.command_line itself imports {imported}")
    sys.meta_path[sys.meta_path.index(PathFinder)] = AllBut(modules)


if __name__ == "__main__":
    hide(set(sys.argv.pop(1).split(",")))
    run()
