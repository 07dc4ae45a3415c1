"""Threads that work while a block runs, such as those that extend leases, or while a process does."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def in_background(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run `work` in a thread while the block runs, and wait for it at the end of the block.

    It gets an event that is set then.
    """
    over = threading.Event()
    thread = threading.Thread(target=work, args=(over,), daemon=True)
    try:
        thread.start()  # in the block: an interrupt while it starts must end it, too
        yield
    finally:
        over.set()
        if thread.ident is not None:
            thread.join()


def end_with_parent_process() -> None:
    """Have this process of a pool end with its parent, whose next order it would await.

    By a thread, because the kernel's own signal (PR_SET_PDEATHSIG) also comes when only the thread has ended
    that started the process.
    """
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
