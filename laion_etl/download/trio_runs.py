"""Runs of trio that Ctrl-C, or SIGTERM, ends in plain words, however often it comes."""

import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import trio

from laion_etl.core.keyboard_interrupts import on_sigint


def run_trio(main: Callable[[], Awaitable[None]]) -> None:
    """Run `main` to its end; Ctrl-C is raised where it awaits, and nowhere else.

    In the middle of another task it would leave coroutines that no one awaits, with a warning for each.
    """
    with _pythons_handler():
        trio.run(_without_wakeup_at_the_end, main, restrict_keyboard_interrupt_to_checkpoints=True)


@contextmanager
def _pythons_handler() -> Iterator[None]:
    """For the block, where signals end commands, have Python's own handler: trio puts its own in no other's
    place."""
    if not _is_main_thread() or signal.getsignal(signal.SIGINT) is not on_sigint:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, on_sigint)


async def _without_wakeup_at_the_end(main: Callable[[], Awaitable[None]]) -> None:
    """Trio closes the socket that signals wake it through before it says so to Python, which then complains
    of a signal, or writes it into another file that has its number by now."""
    try:
        await main()
    finally:
        if _is_main_thread():
            signal.set_wakeup_fd(-1)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
