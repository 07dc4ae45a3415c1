"""`laion-etl` that gets Ctrl-C while it imports: python -m tests.interrupted_start MODULE[:lost] ARGUMENT...

:lost - the module makes another error of it, as pydantic does.
"""

import runpy
import signal
import sys
from collections.abc import Sequence
from functools import partial
from types import ModuleType


class Interrupting:
    """Finds no module; at the name of one it is as if Ctrl-C were pressed."""

    def __init__(self, name: str) -> None:
        self._name, _, self._lost = name.partition(":")

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> None:
        del path, target
        if name == self._name:
            # As namedtuple executes strings: CPython remembers an interruption in one.
            try:
                exec("press()", {"press": partial(signal.raise_signal, signal.SIGINT)})  # noqa: S102
            except KeyboardInterrupt:
                if self._lost:
                    raise ValueError("Error building validator") from None
                raise


if __name__ == "__main__":
    sys.meta_path.insert(0, Interrupting(sys.argv.pop(1)))  # type: ignore[arg-type]
    runpy.run_module("laion_etl", run_name="__main__", alter_sys=True)
