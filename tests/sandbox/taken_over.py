"""What code that took over a decoder would try: each attempt writes what it got to stdout as JSON.

Started as a decoder is, confined as a decoder is. Arguments: a file to read, a folder to write to, and the
attempts to make, or none for all.
"""

import ctypes
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from laion_etl.sandbox.limits import confine

_SYS_PROCESS_VM_READV, _SYS_PTRACE, _SYS_MOUNT = {"x86_64": (310, 101, 165), "aarch64": (270, 117, 40)}[
    os.uname().machine
]
_SYS_PIDFD_OPEN = 434
_PTRACE_ATTACH = 16


def _call(*arguments: int | bytes) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.syscall(*arguments) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def _attempts(secret: Path, folder: Path) -> dict[str, Callable[[], object]]:
    parent = os.getppid()  # before this process is confined
    shared, other = socket.socketpair()
    return {
        "read a file": secret.read_text,
        "list a folder": lambda: list(folder.iterdir()),
        "look at a file": secret.stat,
        "write a file": lambda: (folder / "written").write_text("x"),
        "delete a file": secret.unlink,
        "read its parent's environment": Path(f"/proc/{parent}/environ").read_bytes,
        "read its parent's memory": lambda: _call(_SYS_PROCESS_VM_READV, parent, 0, 0, 0, 0, 0),
        "trace its parent": lambda: _call(_SYS_PTRACE, _PTRACE_ATTACH, parent, 0, 0),
        "signal its parent": lambda: os.kill(parent, signal.SIGCONT),
        "open a handle of its parent": lambda: _call(_SYS_PIDFD_OPEN, parent, 0),
        "open a socket": lambda: socket.socket(socket.AF_INET),
        "open a local socket": lambda: socket.socket(socket.AF_UNIX),
        "send over a socket that is open": lambda: shared.send(b"x"),
        "receive from a socket that is open": lambda: other.recv(1, socket.MSG_DONTWAIT),
        "make a pipe": os.pipe,
        "fork": _fork,
        "start a thread": threading.Thread(target=int).start,
        "start a program": lambda: subprocess.run(["/bin/true"], check=False),
        "become another program": lambda: os.execv("/bin/true", ["true"]),  # noqa: S606 - it must fail
        "raise its limits": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)),
        "change its user": lambda: os.setuid(65534),
        "change its folder": lambda: os.chdir("/"),
        "mount": lambda: _call(_SYS_MOUNT, b"none", bytes(folder), b"tmpfs", 0, 0),
    }


def _result(attempt: Callable[[], object]) -> str:
    try:
        return f"done: {attempt()!r}"
    except (OSError, RuntimeError, ValueError) as error:
        return f"refused: {error}"


def main() -> None:
    secret, folder = (Path(argument) for argument in sys.argv[1:3])
    chosen = sys.argv[3:]
    attempts = {
        name: attempt for name, attempt in _attempts(secret, folder).items() if not chosen or name in chosen
    }
    seen = dict(os.environ)
    confine(1_024)
    results = {name: _result(attempt) for name, attempt in attempts.items()}
    os.write(1, json.dumps({"environment": seen, "results": results}).encode())


if __name__ == "__main__":
    main()
