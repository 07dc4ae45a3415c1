"""Python processes that start as forks of one that has imported what they need.

Importing takes most of a short command's CPU time: a second, with torch five. The server imports once; a fork
begins with the modules only, and sets arguments, environment, folder and standard streams as a new process
has them. It has a process id and a group of its own, gets real signals, and ends with a real exit code. It
dies with the process that asked for it, and with the server.

What a fork cannot have anew: the seed of Python's hashes, which all forks of a server share, and variables
that libraries read when they are imported, which have to be those of the server (`MUST_BE_SAME`).
"""

import array
import atexit
import ctypes
import fcntl
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import IO, Any, NoReturn

# Libraries read variables with these names or beginnings when they are imported.
MUST_BE_SAME = (
    "HOME",
    "XDG_",
    "OMP_",
    "MKL_",
    "OPENBLAS_",
    "NUMBA_",
    "TORCH_",
    "HF_",
    "LD_",
    "MALLOC_",
    "LANG",
    "LC_ALL",
)
_LARGEST_REQUEST = 1 << 22
_MOST_DESCRIPTORS = 16
_ABOVE = 200  # all descriptors of a server
_PR_SET_PDEATHSIG = 1


def read_at_import(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that a fork cannot change.

    Not the folder of compiled kernels that `laion_etl.core.numba_cache` names for other processes when it is
    imported: whether a test process has imported it depends on the tests that ran before, and a fork has it.
    """
    return {
        name: value
        for name, value in sorted(environment.items())
        if name.startswith(MUST_BE_SAME) and not _names_our_kernels(name, value)
    }


def digest_at_import(environment: Mapping[str, str]) -> str:
    """Names a server by the variables that its forks cannot change."""
    return f"{zlib.crc32(json.dumps(read_at_import(environment)).encode()):08x}"


def import_for_forks(modules: Iterable[str], *loads: Callable[[], object]) -> None:
    """Imports and loads what forks share, of which Python never looks for unused cycles: that copies it."""
    gc.disable()
    for name in modules:
        import_module(name)
    for load in loads:
        load()
    gc.freeze()
    gc.enable()


def _names_our_kernels(name: str, value: str) -> bool:
    return name == "NUMBA_CACHE_DIR" and Path(value).name.startswith("kernels-")


class Fork:
    """A running fork, used like a `subprocess.Popen`: `python ARGUMENTS`, in a process group of its own.

    `arguments` begin with -c or -m or name a script. Standard input is empty; standard output and standard
    error go to the descriptors of `output`.
    """

    stdout: IO[bytes] | None = None

    def __init__(
        self,
        server: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        output: tuple[int, int],
    ) -> None:
        self.args = list(arguments)
        self.returncode: int | None = None
        self._ended = threading.Event()
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(server)
        request = {"arguments": self.args, "environment": dict(environment), "folder": str(folder)}
        with Path(os.devnull).open("rb") as empty:
            streams = array.array("i", (empty.fileno(), *output))
            self._connection.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
        self._connection.sendall(json.dumps(request).encode() + b"\n")
        answers = self._connection.makefile("rb")
        first = answers.readline()
        assert first, f"the process that was to run {self.args} is gone"
        self.pid = int(first)
        threading.Thread(target=self._await, args=(answers,), daemon=True).start()

    def _await(self, answers: IO[bytes]) -> None:
        with self._connection, answers:
            self.returncode = int(answers.readline() or -signal.SIGKILL)  # empty: the server is gone
        self._ended.set()

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self.returncode

    def wait(self, timeout_s: float | None = None) -> int:
        """The exit code; raises TimeoutExpired."""
        if not self._ended.wait(timeout_s):
            raise subprocess.TimeoutExpired(self.args, timeout_s or 0.0)
        assert self.returncode is not None
        return self.returncode

    def finished(self) -> str:
        """The output of a `piped` fork, once it has ended."""
        assert self.stdout is not None
        with self.stdout:
            output = self.stdout.read().decode()
        self.wait()
        return output

    def send_signal(self, number: int) -> None:
        """To the process alone, if it still runs."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def piped(server: str, arguments: Sequence[str], environment: Mapping[str, str], folder: Path) -> Fork:
    """A fork whose whole output is its `stdout`."""
    read, write = os.pipe()
    try:
        fork = Fork(server, arguments, environment, folder, (write, write))
    finally:
        os.close(write)
    fork.stdout = os.fdopen(read, "rb")
    return fork


def serve(place: Path, before: Mapping[str, str], initialize: Callable[[], None] = lambda: None) -> NoReturn:
    """Prints the path of a socket and forks for each request; ends, with all forks, when stdin does.

    `before` is the environment before the imports: what they have added, a fork has, too. `initialize` is
    called in each fork, in its environment.
    """
    added = {name: value for name, value in os.environ.items() if name not in before}
    unchanged = read_at_import(before)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # attendants leave no zombies
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen(64)
        print(place, flush=True)
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _attend(connection, _Preloaded(added, unchanged, initialize))
            connection.close()


def _end_with_stdin() -> None:
    while os.read(0, 1 << 16):  # not `sys.stdin`: forks would find it locked
        pass
    os.killpg(0, signal.SIGKILL)  # the attendants; their forks end with them


@dataclass(frozen=True)
class _Preloaded:
    """What the server's forks begin with."""

    added: Mapping[str, str]
    unchanged: Mapping[str, str]
    initialize: Callable[[], None]


def _attend(connection: socket.socket, preloaded: _Preloaded) -> NoReturn:
    """In a process of its own: runs what is asked for in another, and answers with its id and exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, ancillary, _, _ = connection.recvmsg(1, socket.CMSG_SPACE(4 * _MOST_DESCRIPTORS))
    streams = array.array("i", ancillary[0][2])
    asked = connection.makefile("rb")
    request = json.loads(asked.readline(_LARGEST_REQUEST))
    if (fork := os.fork()) == 0:
        asked.close()
        connection.close()
        _become(request, streams, preloaded)
    for descriptor in streams:
        os.close(descriptor)
    if not _ended_while_wanted(connection, fork):
        os.kill(fork, signal.SIGKILL)  # it may not have its own group yet
        with suppress(ProcessLookupError):
            os.killpg(fork, signal.SIGKILL)
    _, status = os.waitpid(fork, 0)
    with suppress(OSError):
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _ended_while_wanted(connection: socket.socket, fork: int) -> bool:
    """Waits for the end of a fork; False when who asked for it is gone before."""
    try:
        connection.sendall(f"{fork}\n".encode())
    except OSError:
        return False
    ended = os.pidfd_open(fork)
    return ended in select.select([connection, ended], [], [])[0]


def _become(request: Mapping[str, Any], streams: Sequence[int], preloaded: _Preloaded) -> NoReturn:
    """Runs the script or the module as a new process does, and ends as it does."""
    os.setsid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    moved = [fcntl.fcntl(given, fcntl.F_DUPFD, _ABOVE) for given in streams]
    for descriptor in streams:
        os.close(descriptor)
    for descriptor, given in zip(request.get("descriptors", range(3)), moved, strict=True):
        os.dup2(given, descriptor)
        os.close(given)
    asked = read_at_import(request["environment"])
    if asked != preloaded.unchanged:
        print(f"error: a fork of a process with {preloaded.unchanged} cannot have {asked}", file=sys.stderr)
        os._exit(1)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update({**preloaded.added, **request["environment"]})
    if os.environ.get("PYTHONUNBUFFERED"):
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(write_through=True)  # type: ignore[union-attr]
    sys.path[1:1] = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    code = _exit_code(request["arguments"], preloaded.initialize)
    with suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _exit_code(arguments: list[str], initialize: Callable[[], None]) -> int:
    try:
        initialize()
        _run(arguments)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        traceback.print_exc()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:  # noqa: BLE001 - the fork ends here, whatever it was
        traceback.print_exc()
        return 1
    return 0


def _run(arguments: list[str]) -> None:
    kind, *rest = arguments
    sys.path[0] = "" if kind in ("-c", "-m") else str(Path(kind).parent)
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
