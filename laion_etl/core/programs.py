"""The commands of processes that this one starts from modules of its own."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ENDING_SIGNALS = frozenset((signal.SIGINT, signal.SIGTERM, signal.SIGHUP))


def python_module(name: str) -> tuple[str, ...]:
    """Return the command that runs a module, which is looked for where this process would look.

    `python -m` looks in the current folder first, and imports a `numpy.py` that others have put there. So it
    does only if this process looks there, too, as one does that was started by `python -m` itself.
    """
    try:
        looks_here = any(Path(place).resolve() == Path.cwd() for place in sys.path)
    except OSError:  # the folder was deleted
        looks_here = False
    return (sys.executable, *(() if looks_here else ("-P",)), "-m", name)


@contextmanager
def signals_wait() -> Iterator[None]:
    """Have signals to a command of this package, which the block starts, wait until it handles them.

    Python would answer with a traceback while it starts. The command lets them come: see `__main__.py`.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ending(code: int) -> str:
    """Return in words how a process ended, from its exit code; below 0 it is that of a signal."""
    if code < 0:
        with suppress(ValueError):  # real-time signals have no names
            return signal.Signals(-code).name
    return f"exit code {code}"
