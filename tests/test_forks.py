"""A fork of a process that has the imports does what a new process does: see tests/forks.py."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from laion_etl.core import numba_cache
from tests.forked_command import installed
from tests.forks import Fork, piped, read_at_import
from tests.preloaded_commands import command_server, completed
from tests.shared_folder import SharedFolder

SHOWN = """
import json, os, sys
print(json.dumps({
    "arguments": sys.argv,
    "folder": os.getcwd(),
    "environment": dict(os.environ),
    "input": sys.stdin.read(),
    "leads its group": os.getpgrp() == os.getpid(),
    "descriptors": sorted(os.listdir("/proc/self/fd")),
    "path": sys.path[0],
    "name": __name__,
}))
print("to standard error", file=sys.stderr)
sys.exit(3)
"""
WAITS = "import time; print('up', flush=True); time.sleep(600)"


@pytest.fixture
def server(shared: SharedFolder) -> str:
    return command_server(shared, os.environ)


def started(server: str, script: str, folder: Path) -> Fork:
    """A fork that has begun."""
    fork = piped(server, ["-c", script], os.environ, folder)
    assert fork.stdout is not None
    assert fork.stdout.readline() == b"up\n"
    return fork


def test_a_fork_has_arguments_environment_folder_and_streams_as_a_new_process_has(tmp_path: Path) -> None:
    environment = {**os.environ, "ONLY_HERE": "1"}
    forked = completed(["-c", SHOWN, "a", "b"], environment, tmp_path)
    command = [sys.executable, "-c", SHOWN, "a", "b"]
    new = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        process_group=0,
        check=False,
    )
    assert (forked.returncode, forked.stderr) == (new.returncode, new.stderr) == (3, "to standard error\n")
    found, expected = json.loads(forked.stdout), json.loads(new.stdout)
    added = found["environment"].items() - expected["environment"].items()
    assert {name for name, _ in added}.isdisjoint(environment)  # what is imported adds some
    assert found | {"environment": expected["environment"]} == expected
    assert expected["environment"].items() <= found["environment"].items()


def test_the_last_word_of_an_exception_and_of_a_signal_are_exit_codes(tmp_path: Path) -> None:
    failed = completed(["-c", "raise ValueError('cause')"], os.environ, tmp_path)
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1] == "ValueError: cause"
    killed = completed(["-c", "import os; os.kill(os.getpid(), 9)"], os.environ, tmp_path)
    assert killed.returncode == -signal.SIGKILL


def test_signals_reach_a_fork_itself(server: str, tmp_path: Path) -> None:
    fork = started(server, WAITS, tmp_path)
    assert fork.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        fork.wait(0.01)
    fork.terminate()
    assert fork.wait(240) == fork.poll() == -signal.SIGTERM


def test_a_fork_is_refused_an_environment_that_it_cannot_have(server: str, tmp_path: Path) -> None:
    other = {**os.environ, "OMP_NUM_THREADS": "7"}
    fork = piped(server, ["-c", "print('up')"], other, tmp_path)
    assert fork.stdout is not None
    assert b"cannot have" in fork.stdout.read()
    assert fork.wait() == 1
    shown = "import os; print(os.environ['OMP_NUM_THREADS'])"
    assert completed(["-c", shown], other, tmp_path).stdout == "7\n"  # in a new process


def test_a_fork_may_be_asked_for_by_a_process_that_has_imported_kernels_or_has_not(
    server: str, tmp_path: Path
) -> None:
    folder = str(numba_cache.compiled_marker().parent)
    imported = {**os.environ, "NUMBA_CACHE_DIR": folder}
    not_yet = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    shown = "import os; print(os.environ['NUMBA_CACHE_DIR'])"
    printed = [piped(server, ["-c", shown], given, tmp_path).finished() for given in (imported, not_yet)]
    assert printed == [f"{folder}\n"] * 2
    assert read_at_import({"NUMBA_CACHE_DIR": "/elsewhere"}) == {"NUMBA_CACHE_DIR": "/elsewhere"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_program_of_forks_ends_as_its_fork_does_and_takes_it_along(
    server: str, tmp_path: Path, number: signal.Signals
) -> None:
    program = installed(tmp_path / "good", server)
    reads = installed(tmp_path / "reads", server, ["-c", "import sys; print(sys.stdin.read(), end='')"])
    read = subprocess.run([reads], input="input", capture_output=True, text=True, check=True)
    assert read.stdout == "input"
    good = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    assert good.stdout.startswith("laion-etl ")
    wrong = subprocess.run([program, "stage", "load"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "--crawl" in wrong.stderr

    waiting = installed(tmp_path / "waiting", server, ["-c", WAITS])
    with subprocess.Popen([waiting], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.send_signal(number)
        assert process.wait(240) == -number
        assert process.stdout.read() == b""  # it ends with the last process that may write
