import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from laion_etl.core.background import in_background


def test_an_interrupt_while_the_thread_starts_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that went on would extend the lease of a batch that its worker has returned."""
    ended = threading.Event()
    start: Callable[[threading.Thread], None] = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        signal.raise_signal(signal.SIGINT)

    def work(over: threading.Event) -> None:
        over.wait()
        ended.set()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        monkeypatch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt), in_background(work):
            pass
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended.is_set()


def test_a_process_of_a_pool_ends_when_its_parent_was_killed() -> None:
    """As a parser does whose command ran out of memory; it would keep its memory."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", "tests.pool_of_one"]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as parent:
        assert parent.stdout
        waiting = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
    assert select.select([waiting], [], [])[0] == [waiting]
    os.close(waiting)
