"""Threads that work while a block runs, such as those that extend leases."""

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
