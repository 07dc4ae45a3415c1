"""Ctrl-C at a place that cannot raise it: python -m tests.interrupted_places PLACE

It says when the work there is done, and when KeyboardInterrupt is raised.
"""

import signal
import sys
import weakref
from collections.abc import Callable, Iterator
from importlib import import_module
from types import FrameType
from typing import Any

from laion_etl.core import keyboard_interrupts
from laion_etl.core.keyboard_interrupts import handle_signals


def press() -> None:
    signal.raise_signal(signal.SIGINT)


class Deleted:
    """Something that is interrupted in the middle of its end."""

    def __del__(self) -> None:
        press()
        print("freed")


class Named:
    """An attribute that is interrupted while it gets its name."""

    def __set_name__(self, owner: type, name: str) -> None:
        press()


def delete() -> None:
    Deleted()


def remove() -> None:
    """Free the value of a dictionary of weak references, which removes it in a callback."""
    values = weakref.WeakValueDictionary({"value": Value()})
    assert not values


class Value:
    """Something that a weak reference may refer to."""


def with_signals_in(file: str, call: Callable[[], object]) -> None:
    """Make a call with Ctrl-C before each line of a file of Python's."""

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.endswith(file):
            return trace
        if event == "line":
            handler = signal.getsignal(signal.SIGINT)
            assert callable(handler)
            handler(signal.SIGINT, frame)  # as a signal there calls it: `press` has a frame of its own
        return trace

    sys.settrace(trace)
    call()
    sys.settrace(None)


def free_generator() -> None:
    """Free one in the middle, as an error does that leaves the loop over it."""

    def items() -> Iterator[int]:
        try:
            yield 1
        finally:
            press()

    next(items())


PLACES = {
    "finalizer": delete,
    "callback": lambda: with_signals_in("weakref.py", remove),
    "generator": free_generator,
    "class": lambda: type("Owner", (), {"attribute": Named()}),
    "import": lambda: with_signals_in("importlib._bootstrap>", lambda: import_module("colorsys")),
}

if __name__ == "__main__":
    handle_signals()
    keyboard_interrupts._SOON_S = 1_000.0
    try:
        PLACES[sys.argv[1]]()
        print("done", flush=True)
        assert signal.getitimer(signal.ITIMER_REAL)[0], "it would never be raised"
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        while True:
            signal.pause()
    except KeyboardInterrupt:
        print("raised")
