"""Transactions that Ctrl-C, or SIGTERM, interrupts at a safe moment only.

psycopg recovers from KeyboardInterrupt where it waits for an answer. If it is raised elsewhere
in psycopg's code, the statement goes on or a lock stays held, and the connection refuses the next statement
or hangs: a worker could not return the batch it holds.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Any

import psycopg
from psycopg import Connection
from psycopg.pq import TransactionStatus
from psycopg.pq.abc import PGcancel

from laion_etl.core.keyboard_interrupts import on_sigint

_LONGEST_S = 5.0  # how long a second interrupt waits; the database may not answer


@contextmanager
def transaction(connection: Connection) -> Iterator[None]:
    """Runs the block in a transaction; an interrupt that comes meanwhile is raised after it.

    The running statement is cancelled, so that the transaction is rolled back and ends soon; a commit is
    completed.
    """
    with (
        uninterrupted(partial(_cancel, connection)),
        _closed_if_broken_off(connection),
        connection.transaction(),
    ):
        yield


@contextmanager
def uninterrupted(
    at_interrupt: Callable[[], None] = lambda: None, longest_s: float = _LONGEST_S
) -> Iterator[None]:
    """Runs the block; interrupts that come meanwhile are raised after it.

    `at_interrupt` is called for the first one. People press Ctrl-C more than once, and what a worker does
    after the first one takes milliseconds. One that comes `longest_s` seconds later is raised at once. An
    error of the block is the cause of the KeyboardInterrupt: often it is that of the cancelled statement.
    """
    previous = _raising_handler()
    if previous is None:
        yield
        return
    first_at: float | None = None

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal first_at
        if first_at is None:
            first_at = time.monotonic()
            at_interrupt()
        elif time.monotonic() - first_at >= longest_s:
            signal.signal(signal.SIGINT, previous)  # an interrupt in `finally` would leave this one for good
            previous(number, frame)

    failure: Exception | None = None
    signal.signal(signal.SIGINT, note)
    try:
        yield
    except Exception as error:
        if first_at is None:
            raise
        failure = error
    finally:
        signal.signal(signal.SIGINT, previous)
    if first_at is not None:
        raise KeyboardInterrupt from failure


@contextmanager
def _closed_if_broken_off(connection: Connection) -> Iterator[None]:
    """Closes a connection whose statement was left without an answer: it accepts no other."""
    try:
        yield
    finally:
        if connection.pgconn.transaction_status == TransactionStatus.ACTIVE:
            connection.close()


def _raising_handler() -> Callable[[int, FrameType | None], Any] | None:
    """Returns the handler of SIGINT if it raises KeyboardInterrupt here: Python's, ours, or a trio run's."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        return None
    is_trios = str(getattr(handler, "__module__", "")).startswith("trio.")
    return handler if handler in (signal.default_int_handler, on_sigint) or is_trios else None


def _cancel(connection: Connection) -> None:
    """Asks the server to cancel the running statement, without waiting for it: it may not answer."""
    if connection.pgconn.transaction_status == TransactionStatus.ACTIVE:
        threading.Thread(target=_request_cancel, args=(connection.pgconn.get_cancel(),), daemon=True).start()


def _request_cancel(cancel: PGcancel) -> None:
    with suppress(psycopg.Error):  # the connection is lost, and so is the statement
        cancel.cancel()
