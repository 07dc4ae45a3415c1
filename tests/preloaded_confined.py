"""A process that has imported what preparers and decoders import, and forks for each of them.

As new processes each imports for most of a second of CPU time, above all numba, which has the compiled loops.
What a fork does after its imports is what a new process does: it warms up, confines itself, and serves. Tests
of the processes themselves start new ones (`real_processes` in conftest.py).

    python -m tests.preloaded_confined FOLDER        # prints the path of its socket; ends when stdin does
"""

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from laion_etl.sandbox.limits import confined_environment
from tests.forked_command import installed
from tests.forks import digest_at_import, import_for_forks, serve
from tests.shared_folder import SharedFolder

# What the two modules import, but not these themselves: a fork runs them.
_MODULES = (
    "PIL.ImageCms",
    "laion_etl.download.content_opt_out",
    "laion_etl.download.images",
    "laion_etl.sandbox.fork_server",
    "laion_etl.score.pixels",
    "laion_etl.score.shared_tables",
    "laion_etl.score.tokens",
)


def _compile_loops() -> None:
    from laion_etl.download.box_resize import loops
    from laion_etl.score.resize import compile_loops

    loops()
    compile_loops()


def confined_program(shared: SharedFolder, module: str, environment: Mapping[str, str]) -> str:
    """A program that runs this module as a fork, for processes that are started in this environment."""
    confined = confined_environment(environment)
    digest = digest_at_import(confined)

    def start(folder: Path) -> str:
        return shared.start_server(__name__, folder, environment=confined)

    def install(folder: Path) -> str:
        server = shared.once(f"confined-{digest}", start)
        return str(installed(folder / "bin", server, ("-m", module)))

    return shared.once(f"{module.rpartition('.')[2]}-{digest}", install)


@dataclass(frozen=True)
class ConfinedProgram:
    """The program and its arguments as code of this process starts it; a server is started with the first."""

    shared: SharedFolder
    module: str

    def __iter__(self) -> Iterator[str]:
        yield confined_program(self.shared, self.module, os.environ)


if __name__ == "__main__":
    before = dict(os.environ)
    import_for_forks(_MODULES, _compile_loops)
    serve(Path(sys.argv[1]) / "socket", before)
