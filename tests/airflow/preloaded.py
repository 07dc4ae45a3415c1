"""A process that has imported Airflow, and forks for each script and command of the tests.

Importing Airflow, its REST API included, takes some seconds of CPU, and tests need it dozens of times. A fork
starts with the modules only: it sets its environment and initializes Airflow as a new process does.

    python -m tests.airflow.preloaded FOLDER        # prints the path of its socket; ends when stdin does
"""

import json
import os
import runpy
import signal
import socket
import sys
import traceback
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any

_LARGEST_REQUEST = 1 << 22


def run(
    server: str, arguments: list[str], environment: Mapping[str, str], folder: Path, output: tuple[Path, Path]
) -> int:
    """The exit code of `python ARGUMENTS`, where they begin with -c or -m or name a script.

    Standard output and standard error are written to the two files.
    """
    request = {
        "arguments": arguments,
        "environment": dict(environment),
        "folder": str(folder),
        "output": [str(path) for path in output],
    }
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(server)
        connection.sendall(json.dumps(request).encode() + b"\n")
        with connection.makefile("rb") as answer:
            line = answer.readline()
    assert line, f"the process that ran {arguments} is gone"
    return int(line)


def _serve(place: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(place)
        listener.listen(64)
        print(place, flush=True)
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _answer(connection)
            connection.close()


def _answer(connection: socket.socket) -> None:
    """In a process of its own: runs what is asked for in another, and waits for that."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with connection.makefile("rb") as asked:
        request = json.loads(asked.readline(_LARGEST_REQUEST))
    if (child := os.fork()) == 0:
        connection.close()
        os._exit(_work(request))
    _, status = os.waitpid(child, 0)
    connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _work(request: Mapping[str, Any]) -> int:
    """Runs the script or the module; returns its exit code."""
    for descriptor, path in zip((1, 2), request["output"], strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.path[:0] = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    try:
        from airflow import settings

        settings.dispose_orm(do_log=False)
        settings.initialize()
        _run(request["arguments"])
        code = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - the fork ends here, whatever it was
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _run(arguments: list[str]) -> None:
    kind, *rest = arguments
    if kind == "-c":
        sys.argv = ["-c", *rest[1:]]
        # As runpy does: a module that pickles and inspections find, with the script's own names.
        main = type(sys)("__main__")
        sys.modules["__main__"] = main
        exec(compile(rest[0], "<string>", "exec"), main.__dict__)  # noqa: S102 - a test wrote it
    elif kind == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        runpy.run_path(kind, run_name="__main__")


def _import_airflow() -> None:
    """All that takes long and that scripts and commands are likely to need, without a look at a database."""
    for name in (
        "airflow.api_fastapi.app",
        "airflow.api_fastapi.core_api.routes.public",
        "airflow.api_fastapi.core_api.routes.ui",
        "airflow.api_fastapi.execution_api.routes",
        "airflow.cli.cli_parser",
        "airflow.dag_processing.dagbag",
        "airflow.models.serialized_dag",
        "airflow.sdk.execution_time.task_runner",
        "fastapi.testclient",
    ):
        import_module(name)


def _end_with_stdin() -> None:
    sys.stdin.buffer.read()
    os.killpg(0, signal.SIGKILL)  # with the forks that are still at work


if __name__ == "__main__":
    _import_airflow()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # forks leave no zombies
    Thread(target=_end_with_stdin, daemon=True).start()
    _serve(str(Path(sys.argv[1]) / "socket"))
