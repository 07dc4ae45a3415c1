"""A program, most often `laion-etl`, that is a thin process and lets a fork do the work: see tests/forks.py.

For callers that start it themselves, as Airflow's tasks do: `installed` makes it. It runs without site
packages, passes on its open files and the signals that end commands, ends as the fork ends, and the fork does
not outlive it.
"""

import array
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path


def installed(folder: Path, server: str, arguments: Sequence[str] = ("-m", "laion_etl")) -> Path:
    """The program, in a new folder; its own arguments follow those that Python gets."""
    program = folder / "laion-etl"
    folder.mkdir()
    program.write_text(
        f"#!{sys.executable} -IS\n{Path(__file__).read_text()}\n\nmain({server!r}, {[*arguments]!r})\n"
    )
    program.chmod(0o755)
    return program


def main(server: str, arguments: list[str]) -> None:
    passed_on = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    signal.pthread_sigmask(signal.SIG_BLOCK, passed_on)  # until there is a fork to pass them on to
    numbers = sorted(int(link.name) for link in Path("/proc/self/fd").iterdir())
    opened = [number for number in numbers if _was_given(number)]
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(server)
        request = {
            "descriptors": opened,
            "arguments": [*arguments, *sys.argv[1:]],
            "environment": dict(os.environ),
            "folder": str(Path.cwd()),
        }
        streams = array.array("i", opened)
        connection.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
        connection.sendall(json.dumps(request).encode() + b"\n")
        with connection.makefile("rb") as answers:
            fork = int(answers.readline())

            def pass_on(number: int, _: object) -> None:
                with suppress(ProcessLookupError):  # it has ended; its exit code is about to be read
                    os.kill(fork, number)

            for number in passed_on:
                signal.signal(number, pass_on)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, passed_on)
            code = int(answers.readline() or -signal.SIGKILL)
    if code < 0:
        with suppress(OSError):  # nothing handles SIGKILL
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    signal.pthread_sigmask(signal.SIG_BLOCK, passed_on)  # Python gives them back their default action now
    sys.exit(code)


def _was_given(descriptor: int) -> bool:
    """Whether this process was started with it: what it opens itself, a new program would not have."""
    with suppress(OSError):  # of the folder that was listed
        return os.get_inheritable(descriptor)
    return False
