"""A process that has imported all that `laion-etl` commands import, and forks for each of them.

python -m tests.preloaded_commands FOLDER        # prints the path of its socket; ends when stdin does
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile

from tests.forked_command import installed
from tests.forks import Fork, digest_at_import, import_for_forks, read_at_import, serve
from tests.shared_folder import SharedFolder

# All that takes long: the commands, their stages, and what these import when they need it.
_MODULES = (
    "laion_etl.cli",
    "laion_etl.cli.local_run",
    "laion_etl.database.load",
    "laion_etl.download.worker",
    "laion_etl.parse.stage",
    "laion_etl.plan.stage",
    "laion_etl.publish.stage",
    "laion_etl.score.stage",
    "laion_etl.score.group",
)


def _load_compiled() -> None:
    from laion_etl.cli import warm_kernels
    from laion_etl.score.openclip import open_clip

    open_clip()
    warm_kernels.main()


def _draw_small_figures() -> None:
    """At their size for papers they take half of the CPU time of publishing a few hundred rows."""
    from laion_etl.report import png

    png.WIDTH_PX = 90


def _score_in_forks(server: Path, folder: Path) -> None:
    """The process in which `laion-etl run` scores is a fork, too."""
    from laion_etl.score import multi_gpu

    multi_gpu.PROGRAM = (str(installed(folder, str(server))),)


def completed(
    arguments: Sequence[str], environment: Mapping[str, str], folder: Path
) -> "subprocess.CompletedProcess[str]":
    """`python ARGUMENTS` as a fork, where a fork can have this environment; else as a new process."""
    if read_at_import(environment) != read_at_import(os.environ):
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, cwd=folder, env=dict(environment), capture_output=True, text=True, check=False
        )
    server = command_server(SharedFolder.of_this_run(), environment)
    with TemporaryFile("w+") as out, TemporaryFile("w+") as err:
        fork = Fork(server, arguments, environment, folder, (out.fileno(), err.fileno()))
        code = fork.wait()
        for stream in (out, err):
            stream.seek(0)
        return subprocess.CompletedProcess(fork.args, code, out.read(), err.read())


def forked_commands(shared: SharedFolder, environment: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Settings with which Airflow's tasks in this environment run their commands as forks."""
    program = installed(folder / "bin", command_server(shared, environment))
    return {"LAION_ETL_RUNNER": "venv", "LAION_ETL_AIRFLOW_VENV": str(program)}


def command_server(shared: SharedFolder, environment: Mapping[str, str]) -> str:
    """The socket of a server for commands in this environment; tests/forks.py says which variables count."""
    fixed = read_at_import(environment)
    fixed["PATH"] = environment["PATH"]
    name = f"commands-{digest_at_import(environment)}"
    return shared.once(name, lambda folder: shared.start_server(__name__, folder, environment=fixed))


if __name__ == "__main__":
    before = dict(os.environ)
    own = Path(sys.argv[1])
    import_for_forks(_MODULES, _load_compiled)
    _draw_small_figures()
    _score_in_forks(own / "socket", own / "bin")
    serve(own / "socket", before)
