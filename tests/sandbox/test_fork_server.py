"""Processes forked on order: each has its own pipes, and ends with its order, the server or their parent."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from laion_etl.sandbox.fork_server import ForkServer
from tests.faults.test_killed import children_of

ECHO = "tests.sandbox.echo"


@contextmanager
def fork_server() -> Iterator[ForkServer]:
    server = ForkServer([sys.executable, "-m", ECHO])
    try:
        yield server
    finally:
        server.close()
        assert children_of(os.getpid(), ECHO) == []


def test_each_fork_has_its_own_pipes_and_ends_when_ordered() -> None:
    with fork_server() as server:
        first, second = server.fork(), server.fork()
        for child, sent in ((first, b"one"), (second, b"two")):
            os.write(child.stdin, sent)
            assert os.read(child.stdout, 9) == sent
        server.kill(first.number)
        assert os.read(first.stdout, 9) == b""
        os.write(second.stdin, b"still there")
        assert os.read(second.stdout, 11) == b"still there"
        os.close(second.stdin)  # as when the parent was killed: nothing else holds that end open
        assert os.read(second.stdout, 9) == b""
        server.kill(second.number)
        third = server.fork()
        os.write(third.stdin, b"three")
        assert os.read(third.stdout, 9) == b"three"
    assert os.read(third.stdout, 9) == b""
    for pipe in (first.stdin, first.stdout, second.stdout, third.stdin, third.stdout):
        os.close(pipe)


def test_a_fork_has_no_open_files_but_its_pipes_and_the_error_output() -> None:
    with fork_server() as server:
        child = server.fork()
        os.write(child.stdin, b"files")
        assert os.read(child.stdout, 99) == b"0 1 2"
        os.close(child.stdin)
        os.close(child.stdout)


def test_a_server_that_ends_at_its_start_is_seen_at_the_output_of_the_fork() -> None:
    server = ForkServer(["/bin/false"])
    child = server.fork()
    assert os.read(child.stdout, 9) == b""
    server.close()
    os.close(child.stdin)
    os.close(child.stdout)
