"""Ctrl-C, and SIGTERM as Ctrl-C: a KeyboardInterrupt where one can be raised, and one at a time.

Python raises it wherever the main thread is. Some places do not bear that. From `__del__`, from callbacks of
weak references and from generators that are freed it is printed, with a traceback, and lost. From
`__set_name__`, of a new class, it comes as a RuntimeError (before Python 3.12). In the import system it
leaves a lock that a thread which imports waits for forever. There it is raised a moment later. And in what
the first one unwinds, another one ends a `finally` before its work is done: terminals and systemd send
signals to all processes, and people press twice. There it is not raised at all, unless the unwinding takes
seconds: then it waits for something that does not answer.

Refused: to block signals while an interrupt unwinds. Nothing would say when that is over.
"""

import _weakrefset
import signal
import sys
import threading
import time
import weakref
from types import FrameType

_LONGEST_S = 5.0  # of the unwinding, before another interrupt ends what it waits for
_SOON_S = 0.01
_NOTED_AT = "_laion_etl_noted_at"
_raised = threading.Event()
_FILES = ("<frozen importlib", weakref.__file__, _weakrefset.__file__)
_FUNCTIONS = ("__del__", "_warn_unawaited_coroutine", "__set_name__")


def handle_signals() -> None:
    """Have SIGINT, SIGTERM and SIGHUP end the command with a KeyboardInterrupt.

    A pod is stopped by SIGTERM: it ends like Ctrl-C, which trio and our `finally`s understand. What a script
    starts in the background ignores SIGINT, and so SIGTERM would do nothing either. SIGHUP says that the
    terminal was closed; nohup ignores it.
    """
    signal.signal(signal.SIGALRM, _pass_to_sigint)
    signal.signal(signal.SIGINT, on_sigint)
    signal.signal(signal.SIGTERM, _on_sigterm)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _pass_to_sigterm)


def on_sigint(_number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, if not now, soon; nothing while one is unwinding."""
    ending = _ending()
    if ending is None or _takes_long(ending):
        if _may_raise(frame):
            _raised.set()
            raise KeyboardInterrupt
    elif isinstance(ending, KeyboardInterrupt):
        return
    signal.setitimer(signal.ITIMER_REAL, _SOON_S)


def was_interrupted() -> bool:
    """Whether a KeyboardInterrupt was raised: libraries make errors of their own of it, as pydantic does."""
    return _raised.is_set()


def _on_sigterm(_number: int, frame: FrameType | None) -> None:
    """The first SIGTERM is Ctrl-C. More of them change nothing: the batch may be on its way to the queue.

    Not SIG_IGN, which processes started from now on would inherit.
    """
    signal.signal(signal.SIGTERM, lambda *_: None)
    _pass_on(signal.SIGINT, frame)


def _pass_to_sigint(_number: int, frame: FrameType | None) -> None:
    _pass_on(signal.SIGINT, frame)


def _pass_to_sigterm(_number: int, frame: FrameType | None) -> None:
    _pass_on(signal.SIGTERM, frame)


def _pass_on(number: int, frame: FrameType | None) -> None:
    """Call the handler of another signal, as if that had come."""
    handler = signal.getsignal(number)
    if callable(handler):
        handler(number, frame)


def _ending() -> KeyboardInterrupt | GeneratorExit | None:
    """What the main thread handles at this moment, itself or an error that came from it."""
    error, seen = sys.exception(), set[int]()  # causes may be a circle
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, BaseExceptionGroup) and (found := error.subgroup(KeyboardInterrupt)) is not None:
            error = found.exceptions[0]
        elif isinstance(error, KeyboardInterrupt | GeneratorExit):
            return error
        else:
            error = error.__cause__ or error.__context__
    return None


def _takes_long(ending: BaseException) -> bool:
    """Whether a signal came while this was handled, and another one comes seconds later."""
    now = time.monotonic()
    noted_at: float = ending.__dict__.setdefault(_NOTED_AT, now)
    return now - noted_at >= _LONGEST_S


def _may_raise(frame: FrameType | None) -> bool:
    if frame is not None and frame.f_code.co_filename.startswith(_FILES):
        return False
    while frame is not None:
        if frame.f_code.co_name in _FUNCTIONS:
            return False
        frame = frame.f_back
    return True
