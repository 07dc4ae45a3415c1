"""Interrupts a call before a given line of psycopg's or our own code, by a real signal."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import psycopg

_WATCHED = str(Path(psycopg.__file__).parent)


def interrupted_at(number: int, call: Callable[[], object]) -> bool:
    """Runs a call that gets SIGINT before it runs its `number`th line in psycopg; whether it had as many."""
    left = number

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.startswith(_WATCHED):
            return None
        if event == "line":
            left -= 1
            if left == 0:
                signal.raise_signal(signal.SIGINT)
        return trace

    # As laion_etl/command_line.py does: a process that a script started in the background ignores SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(None)
        signal.signal(signal.SIGINT, before)
    return False
