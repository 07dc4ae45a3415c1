"""The command line as a process: expected errors end as one line on stderr and an exit code."""

import atexit
import errno
import logging
import os
import signal
import sys
import time
import traceback
from contextlib import suppress
from types import TracebackType
from typing import NoReturn

from laion_etl.__main__ import STOPPED
from laion_etl.core.errors import LaionEtlError, OutageError, Stopped
from laion_etl.core.keyboard_interrupts import handle_signals, was_interrupted
from laion_etl.core.limits import limit_reached
from laion_etl.core.shown_text import ShownLines, shown

_OF_LIMITS = (OSError, MemoryError, ImportError, RuntimeError)
_LONGEST_END_S = 5.0  # for threads that still read, after which a signal ends the process


def run() -> None:
    """Runs the command line; exit code 0 done, 1 failed, 2 usage or settings, 75 outage, 130 stopped."""
    run_id = os.environ.get("LAION_ETL_RUN_ID", "").replace("%", "%%")
    of_run = f"[{run_id}] " if run_id else ""  # joins the lines of a pod with a task of Airflow
    handler = logging.StreamHandler()
    handler.setFormatter(ShownLines(f"%(levelname)s {of_run}%(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    for library in ("urllib3", "psycopg"):  # retries are their business, failures ours
        logging.getLogger(library).setLevel(logging.ERROR)
    handle_signals()
    atexit.register(_ignore_signals)
    try:
        try:
            _run()
        finally:
            sys.excepthook = _show_traceback  # Typer has set one that hides nothing
            _end_uninterrupted()
    except KeyboardInterrupt:  # one more, while the first ended the work
        _end_uninterrupted()
        _fail(Stopped(STOPPED))
    except LaionEtlError as error:
        _fail(error)
    except Exception as error:
        if was_interrupted() and not isinstance(error, OSError | MemoryError):
            _fail(Stopped(STOPPED))
        if not isinstance(error, _OF_LIMITS) or (reached := limit_reached(error)) is None:
            raise
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            # Python would try to write the rest again at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        _fail(OutageError(reached))


def _show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print what Python prints of a bug, without the secrets that messages of libraries have."""
    with suppress(OSError):
        print(shown("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)


def _fail(error: LaionEtlError) -> NoReturn:
    with suppress(OSError):  # of a terminal that is closed
        print("error:", shown(str(error)), file=sys.stderr)
    # Where Ctrl-C interrupted a string that an import executes (namedtuple, dataclass), CPython remembers it,
    # and `python -m` ends by SIGINT whatever the exit code, until another string has been executed.
    exec("")  # noqa: S102
    sys.exit(error.exit_code)


def _end_uninterrupted() -> None:
    """Put off further signals: what libraries do at the end of the process would print a traceback.

    The end waits for threads, of pools whose own wait was interrupted, and one may read from a store that
    does not answer. So a signal that comes `_LONGEST_END_S` later ends the process: all that a command holds
    it has returned by now.
    """
    over = time.monotonic() + _LONGEST_END_S

    def end_at_once(*_: object) -> None:
        if time.monotonic() >= over:
            with suppress(OSError):  # it may be closed, or have no reader
                os.write(2, f"error: {STOPPED}\n".encode())  # `sys.stderr` may be in use
            os._exit(Stopped.exit_code)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end_at_once)


def _ignore_signals() -> None:
    """For the last moments, in which Python would give signals their default action, which kills."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)


def _run() -> None:
    from laion_etl.cli import app

    try:
        app()
    except SystemExit as end:
        if sys.stdout is not None:  # None: it was closed
            sys.stdout.flush()  # at the end an error would be a traceback
        if end.code == Stopped.exit_code:  # Typer's answer to one more Ctrl-C, which says nothing
            raise Stopped(STOPPED) from end
        raise
