"""Opt-outs in the headers of a response, or in its trailers.

The names are `X-Robots-Tag`, `TDM-Reservation`, `Content-Usage` and `Content-Signal`. As in robots.txt
(robots_lines.py) an owner who misspells one of them wants the same: `X-Robots: noai`, `TDM_Reservation: 1`,
`Content-Signals: ai-train=no`. So does one who makes a header of what belongs into a `<meta>` tag or into a
value: `Robots: noai`, `NoAI: 1`, `AI-Training: no`, or leaves the colon out: `X-Robots-Tag noai`. What the
values mean is in content_opt_out.py. A `Link` to terms in RSL is a wish, too: they are not read.
"""

import re
from functools import lru_cache

from laion_etl.core.funnel import DownloadStatus
from laion_etl.download.content_opt_out import (
    forbids_training,
    is_reservation,
    opted_out_by_header,
    reserved_by_header,
)
from laion_etl.download.http_head import Head
from laion_etl.download.link_failed import LinkFailed
from laion_etl.download.robots_lines import LineKind, kind_of_header, shown

_LONGEST_NAME = 40
_NOT_IN_HEADERS = frozenset({LineKind.USER_AGENT, LineKind.DISALLOW, LineKind.ALLOW, LineKind.LICENSE})
_RSL = "application/rsl+xml"  # in a Link to the terms for AI (rslstandard.org), which are not read
_BETWEEN = re.compile(r"[\s=;,]+")
_OTHER_KINDS = {
    "robot": LineKind.DIRECTIVES,
    "x-robot": LineKind.DIRECTIVES,
    "robots": LineKind.DIRECTIVES,
    "x-robots": LineKind.DIRECTIVES,
    "meta-robots": LineKind.DIRECTIVES,
    "x-meta-robots": LineKind.DIRECTIVES,
    "robots-meta": LineKind.DIRECTIVES,
    "tdm": LineKind.RESERVATION,
    "tdmrep": LineKind.RESERVATION,
    "tdmrep-reservation": LineKind.RESERVATION,
    "usage-preference": LineKind.USAGE,
    "usage-preferences": LineKind.USAGE,
}


def refuse_opted_out(head: Head) -> None:
    """Raises LinkFailed if a header says that the response must not be used for training."""
    if any(_RSL in value.lower() for value in head.all("link")):
        raise LinkFailed(DownloadStatus.OPTED_OUT_TDM, "license")
    headers = (header if header[0] else _named(header[1]) for header in head.headers)
    found = [(kind, name, value) for name, value in headers if (kind := _kind(name)) is not None]
    if not found:
        return
    read = [(kind, name, _readable(value)) for kind, name, value in found]
    if any(_has_directive(*one) for one in read):
        raise LinkFailed(DownloadStatus.OPTED_OUT_ROBOTS_TAG)
    if reserved_by_header(value for kind, _, value in read if kind is LineKind.RESERVATION):
        raise LinkFailed(DownloadStatus.OPTED_OUT_TDM, "header")
    if any(_has_preference(*one) for one in read):
        raise LinkFailed(DownloadStatus.OPTED_OUT_TDM, "usage")


def _named(line: str) -> tuple[str, str]:
    """Returns name and value of a line that has another sign than a colon between them, or none."""
    name, *rest = _BETWEEN.split(line, maxsplit=1)
    return name.lower(), rest[0] if rest else "1"


@lru_cache(maxsize=4_096)
def _kind(name: str) -> LineKind | None:
    if len(name) > _LONGEST_NAME:
        return None
    kind = _OTHER_KINDS.get(name.replace("_", "-")) or kind_of_header(name)
    return None if kind in _NOT_IN_HEADERS else kind


def _readable(value: str) -> str:
    """Returns a value as its author saw it, who may have copied it from a page."""
    if value.isascii():
        return value
    try:
        return shown(value.encode("latin-1").decode())
    except UnicodeError:  # it is Latin-1
        return value


def _has_directive(kind: LineKind, name: str, value: str) -> bool:
    if kind is LineKind.DIRECTIVES:
        return opted_out_by_header([value])
    return kind is LineKind.PREFERENCE and opted_out_by_header([name]) and _is_on(value)


def _has_preference(kind: LineKind, name: str, value: str) -> bool:
    if kind is LineKind.USAGE:
        return forbids_training(value)
    if kind is LineKind.NO_TRAINING:  # `DisallowAITraining: /`, which is a line of robots.txt
        return _is_on(value) or value.startswith("/")
    if "usage" in name and value.isdigit():  # of a service: `X-AI-Usage: 0` counts tokens
        return False
    return kind is LineKind.PREFERENCE and forbids_training(f"{_bare(name)}={value}")


def _is_on(value: str) -> bool:
    return not value or is_reservation(value)


def _bare(name: str) -> str:
    return name.removeprefix("x-").removeprefix("x_").removeprefix("allow-").removeprefix("allow_")
