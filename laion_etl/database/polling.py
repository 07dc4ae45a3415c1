"""Waits for something in the database without holding a transaction, and says in the log what for."""

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

ResultT = TypeVar("ResultT")

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 2.0  # a hundred programs that wait cost the server some seventy trivial queries a second
_LOG_AFTER_S = 3.0
_LOG_EVERY_S = 300.0
_log = logging.getLogger(__name__)


def poll(attempt: Callable[[], ResultT | None], waiting_for: Callable[[], str], purpose: str) -> ResultT:
    """Repeats an attempt until it does not return None, with pauses; says in the log what it waits for."""
    began_s = time.monotonic()
    pause_s, logged_s = _FIRST_PAUSE_S, None
    while True:
        result = attempt()
        waited_s = time.monotonic() - began_s
        if result is not None:
            if logged_s is not None:
                _log.warning("%s goes on after waiting for %.0f s", purpose, waited_s)
            return result
        if waited_s >= _LOG_AFTER_S and (logged_s is None or waited_s - logged_s >= _LOG_EVERY_S):
            logged_s = waited_s
            _log.warning("%s waits for %s, for %.0f s so far", purpose, waiting_for(), waited_s)
        time.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311 - no secret
        pause_s = min(_LONGEST_PAUSE_S, pause_s * 2)
