"""Confined processes forked from one that has imported all they need: a fork takes a millisecond, not 0.2 s.

The fork server is started as confined processes are, without secrets. It imports and warms up, and then only
reads orders of its parent: to fork, with the pipes of the child, or to end a child. It never sees what the
children are given, and each child confines itself before it reads anything. What the children have in common
is the layout of their memory: an image that crashed one may be tried on the next at the same addresses. So a
server lives no longer than one batch (docs/decisions/0008-decoders-are-processes.md).
"""

import os
import signal
import socket
import struct
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from enum import IntEnum
from typing import NamedTuple

from laion_etl.sandbox import seccomp
from laion_etl.sandbox.error_output import error_pipe, error_pipe_variable, use_error_pipe
from laion_etl.sandbox.limits import confined_environment, end_with_parent, hide_memory

_ORDER = struct.Struct(">BQ")
MAX_END_S = 10.0  # for a child to end when that was ordered, and for all when the server does


class _Kind(IntEnum):
    FORK = 1
    KILL = 2


class ForkedProcess(NamedTuple):
    """A child of the server: its number there, and our ends of its pipes."""

    number: int
    stdin: int
    stdout: int


class ForkServer:
    """The parent's side. `command` must call `serve_forks`; it is started with the first child.

    To be used by one thread, which must not end before the children: they end with it.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._orders: socket.socket | None = None
        self._forked = 0
        self.generation = 0  # how often a server was started

    def fork(self) -> ForkedProcess:
        """Orders a child. If its output ends before it has written anything, it could not be started."""
        stdin, ours_in = os.pipe()
        ours_out, stdout = os.pipe()
        self._forked += 1
        try:
            self._order_fork(stdin, stdout)
        except BaseException:
            os.close(ours_in)
            os.close(ours_out)
            raise
        finally:
            os.close(stdin)
            os.close(stdout)
        return ForkedProcess(self._forked, ours_in, ours_out)

    def kill(self, number: int) -> None:
        """Orders the end of a child; its output ends when that has happened."""
        if self._orders is not None:
            with suppress(OSError):  # the server has ended, and its children with it
                self._orders.send(_ORDER.pack(_Kind.KILL, number))

    def close(self) -> None:
        """Ends the children that are left and the server, and waits for that."""
        if self._orders is not None:
            self._orders.close()
            self._orders = None
        process, self._process = self._process, None
        if process is not None:
            try:
                process.wait(MAX_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def has_ended(self, generation: int) -> bool:
        """Whether the server that was started as number `generation` has ended, and its children with it."""
        return generation != self.generation or self._process is None or self._process.poll() is not None

    def _order_fork(self, stdin: int, stdout: int) -> None:
        order = _ORDER.pack(_Kind.FORK, self._forked)
        if self._orders is not None:
            with suppress(OSError):  # the server was killed
                socket.send_fds(self._orders, [order], [stdin, stdout])
                return
            self.close()
        self._orders = self._started()
        with suppress(OSError):  # it has ended already, which the end of the child's output shows
            socket.send_fds(self._orders, [order], [stdin, stdout])

    def _started(self) -> socket.socket:
        self.generation += 1
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                self.command,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env=confined_environment() | error_pipe_variable(),
                pass_fds=[error_pipe()],
                process_group=0,  # as `start_confined` has it, for the same reason
            )
        return ours


def serve_forks() -> None:
    """Forks and kills as ordered, until the parent closes its end. Returns in each child, with its pipes."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would leave numbers of children to others
    end_with_parent()
    server = os.getpid()
    if not seccomp.supported():
        hide_memory()  # from children that were taken over: this process is not confined
    orders = socket.socket(fileno=os.dup(0))
    children: dict[int, int] = {}
    while True:
        order, pipes, _, _ = socket.recv_fds(orders, _ORDER.size, 2)
        if not order:
            break
        kind, number = _ORDER.unpack(order)
        if kind == _Kind.KILL:
            _end(children.pop(number, 0))
            continue
        try:
            pid = os.fork()
        except OSError:  # no memory or no more processes: the end of its output shows that it did not start
            for pipe in pipes:
                os.close(pipe)
            continue
        if not pid:
            end_with_parent(server)
            if (former := use_error_pipe()) is not None:
                os.close(former)
            orders.close()
            for place, pipe in enumerate(pipes):
                os.dup2(pipe, place)
                os.close(pipe)
            return
        children[number] = pid
        for pipe in pipes:
            os.close(pipe)
    for pid in children.values():
        _end(pid)
    os._exit(0)


def _end(pid: int) -> None:
    """Kills a child and waits for it, which adds its processor time to that of this process."""
    if pid:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
