"""Parses HTML in a process of its own (html_process.py), which is started again when a page ends it."""

import os
import select
import subprocess
import sys
from collections.abc import Collection
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import orjson

from laion_etl.core.caption_source import CaptionSource
from laion_etl.parse.http_response import Html
from laion_etl.parse.page import ImageLink, Page
from laion_etl.sandbox.limits import confined_environment, prepare_parent

MAX_CPU_S = 10  # of a page; an ordinary one takes milliseconds
_LOOK_S = 0.5  # between looks at the CPU time of a page that takes long
_TRIES = 2  # a process may be killed for another reason; if two die, the page is at fault
_REQUEST_LENGTHS, _ANSWER_LENGTH = 4, 4  # bytes


class _TooSlowError(Exception):
    """The process has used too much CPU time for a page."""


class PageRuleError(Exception):
    """A rule raised an exception for a page."""


class HtmlParser:
    """`with HtmlParser(captions) as parser:` then `parser.page(url, html)`; not for several threads."""

    def __init__(self, captions: Collection[str], max_cpu_s: int = MAX_CPU_S) -> None:
        """Raises ModuleNotFoundError where the extra `warc` is not installed."""
        import_module("selectolax")
        prepare_parent()
        self._max_cpu_s = max_cpu_s
        self._command = [sys.executable, "-m", "laion_etl.parse.html_process", *captions]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "HtmlParser":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def page(self, url: str, html: Html) -> Page | None:
        """Returns a page; None for one that cannot be parsed within the limits of memory and time.

        Raises PageRuleError if a rule raised an exception.
        """
        charset = html.charset.encode()
        lengths = (len(charset).to_bytes(_REQUEST_LENGTHS), len(html.body).to_bytes(_REQUEST_LENGTHS))
        request = b"".join((*lengths, charset, html.body))
        for _ in range(_TRIES):
            try:
                return _page(url, orjson.loads(self._answer(request)))
            except (BrokenPipeError, EOFError):
                self._stop()
            except _TooSlowError:
                self._stop()
                break  # it would be the same again
        return None

    def _answer(self, request: bytes) -> bytes:
        if self._process is None:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=confined_environment(),
            )
        source, sink = self._process.stdout, self._process.stdin
        if source is None or sink is None:
            raise EOFError
        began_s = _cpu_s(self._process)
        sink.write(request)
        sink.flush()
        while not select.select([source], [], [], _LOOK_S)[0]:
            if _cpu_s(self._process) - began_s > self._max_cpu_s:
                raise _TooSlowError
        length = int.from_bytes(_read(source, _ANSWER_LENGTH))
        return _read(source, length)

    def _stop(self) -> None:
        """Ends the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()  # does nothing to one that has ended
            with suppress(BrokenPipeError):  # what it has not read of a request
                process.communicate()


def _cpu_s(process: "subprocess.Popen[bytes]") -> float:
    """Returns the CPU seconds that a running process has used (man 5 proc)."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _read(source: Any, length: int) -> bytes:
    """Reads that many bytes. Raises EOFError if the process ends before."""
    data: bytes = source.read(length)
    if len(data) < length:
        raise EOFError
    return data


def _page(url: str, found: dict[str, Any]) -> Page:
    if "error" in found:
        raise PageRuleError(found["error"])
    images = [
        ImageLink(address, alt, title, text, CaptionSource(source))
        for address, alt, title, text, source in found["images"]
    ]
    return Page(url, images, found["base"], found["licence"], found["lang"], found["charset"])
