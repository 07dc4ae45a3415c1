"""Parses HTML in a process of its own (html_process.py), which is started again when a page ends it."""

import os
import select
import time
from collections.abc import Collection
from importlib import import_module
from pathlib import Path
from typing import Any

import orjson

from laion_etl.core.caption_source import CaptionSource
from laion_etl.core.programs import python_module
from laion_etl.parse.html_protocol import ANSWER, READY, REQUEST
from laion_etl.parse.http_response import Html
from laion_etl.parse.page import ImageLink, Page
from laion_etl.sandbox.limits import prepare_parent
from laion_etl.sandbox.processes import START_LIMIT_S, STARTS, TRIES, cannot_start, start_confined

MAX_CPU_S = 10  # of a page; an ordinary one takes milliseconds
_WALL_FACTOR = 30  # the time a page may take altogether, as a multiple: the machine may be busy
_LOOK_S = 0.5  # between looks at the CPU time of a page that takes long
_PART_BYTES = 1 << 16  # of a request or an answer
_MAX_ANSWER_BYTES = 1 << 27


class _DiedError(Exception):
    """The process ended in the middle of a page, or its answer makes no sense."""


class _TooMuchError(Exception):
    """A page takes too much time, or its answer is too large: it would be the same again."""


class PageRuleError(Exception):
    """A rule raised an exception for a page."""


class HtmlParser:
    """`with HtmlParser(captions) as parser:` then `parser.page(url, html)`; not for several threads."""

    def __init__(self, captions: Collection[str], max_cpu_s: int = MAX_CPU_S) -> None:
        """Raises ModuleNotFoundError where the extra `warc` is not installed."""
        import_module("selectolax")
        prepare_parent()
        self._max_cpu_s = max_cpu_s
        self._command = [*python_module("laion_etl.parse.html_process"), *captions]
        self._process: _Process | None = None

    def __enter__(self) -> "HtmlParser":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def page(self, url: str, html: Html) -> Page | None:
        """Returns a page; None for one that cannot be parsed within the limits of memory and time.

        Raises PageRuleError if a rule raised an exception, OutageError when no process can be started.
        """
        charset = html.charset.encode()
        request = REQUEST.pack(len(charset), len(html.body)) + charset + html.body
        for _ in range(TRIES):
            try:
                return self._parsed(url, request)
            except _DiedError:
                continue
            except _TooMuchError:
                break
        return None

    def _parsed(self, url: str, request: bytes) -> Page:
        """Returns a page. A process that has not answered as it should is ended."""
        if self._process is None:
            self._process = self._started()
        try:
            return _page(url, self._process.answer(request, self._max_cpu_s))
        except PageRuleError:
            raise
        except BaseException:
            self._stop()
            raise

    def _started(self) -> "_Process":
        for _ in range(STARTS):
            process = _Process(self._command)
            is_ready = False
            try:
                is_ready = process.is_ready()
            finally:
                if not is_ready:
                    process.kill()
            if is_ready:
                return process
        raise cannot_start("parses HTML")

    def _stop(self) -> None:
        """Ends the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()


class _Process:
    """One process and its pipes, which are used without blocking: it may neither read nor write."""

    def __init__(self, command: list[str]) -> None:
        self._process = start_confined(command)
        self.pid = self._process.pid
        pipes = (self._process.stdin, self._process.stdout)
        self._sink, self._source = (pipe.fileno() for pipe in pipes if pipe is not None)
        os.set_blocking(self._sink, False)
        self._poll = select.poll()  # unlike select, for descriptors above 1,023, too
        self._poll.register(self._source, select.POLLIN)

    def is_ready(self) -> bool:
        """Waits for the process to start, which is not part of the time of its first page."""
        return bool(self._poll.poll(START_LIMIT_S * 1_000)) and os.read(self._source, 1) == READY

    def answer(self, request: bytes, max_cpu_s: int) -> bytes:
        """Returns the answer to a request. Raises _DiedError or _TooMuchError."""
        limits = _Limits(self.pid, max_cpu_s)
        left, received, length = memoryview(request), bytearray(), ANSWER.size
        self._poll.register(self._sink, select.POLLOUT)
        while len(received) < length:
            ready = dict(self._poll.poll(_LOOK_S * 1_000))
            limits.check()
            if self._sink in ready:
                left = self._sent(left)
            if self._source not in ready:
                continue
            part = os.read(self._source, _PART_BYTES)
            if not part:
                raise _DiedError
            received += part
            if length == ANSWER.size <= len(received):
                length += ANSWER.unpack_from(received)[0]
            if length > _MAX_ANSWER_BYTES:
                raise _TooMuchError
        if left or len(received) > length:
            raise _DiedError
        return bytes(received[ANSWER.size :])

    def _sent(self, left: memoryview) -> memoryview:
        """Writes the next part of a request. Returns what is left of it."""
        try:
            left = left[os.write(self._sink, left[:_PART_BYTES]) :]
        except BlockingIOError:  # the pipe has room, but not for all of a small part
            return left
        except BrokenPipeError as error:
            raise _DiedError from error
        if not left:
            self._poll.unregister(self._sink)
        return left

    def kill(self) -> None:
        """Ends the process; does nothing to one that has ended."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


class _Limits:
    """The time that a process has for a page, from now on."""

    def __init__(self, pid: int, max_cpu_s: int) -> None:
        self._pid = pid
        self._max_cpu_s = max_cpu_s
        self._began_cpu_s = _cpu_s(pid)
        self._began_s = self._looked_s = time.monotonic()

    def check(self) -> None:
        """Raises _TooMuchError if it is over; looks twice a second at most."""
        now_s = time.monotonic()
        if now_s - self._looked_s < _LOOK_S:
            return
        self._looked_s = now_s
        used_s = _cpu_s(self._pid) - self._began_cpu_s
        if used_s > self._max_cpu_s or now_s - self._began_s > _WALL_FACTOR * self._max_cpu_s:
            raise _TooMuchError


def _cpu_s(pid: int) -> float:
    """Returns the CPU seconds that a running process has used (man 5 proc)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _page(url: str, answer: bytes) -> Page:
    """Returns the page of an answer. Raises PageRuleError, or _DiedError if it makes no sense."""
    try:
        found: dict[str, Any] = orjson.loads(answer)
        if "error" in found:
            raise PageRuleError(str(found["error"]))
        images = [
            ImageLink(_text(link), _text(alt), _text(title), _text(text), CaptionSource(source))
            for link, alt, title, text, source in found["images"]
        ]
        base, licence, lang, charset = (found[key] for key in ("base", "licence", "lang", "charset"))
        return Page(url, images, str(base), str(licence), str(lang), str(charset))
    except (ValueError, TypeError, KeyError) as error:
        raise _DiedError from error


def _text(value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError
    return value
