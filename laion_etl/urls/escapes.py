"""The form of URLs in which blocklists compare them: percent escapes as in RFC 3986 6.2.2.

`%7euser` and `~user` are one path to most servers, so an entry of a list has to find both. The URL that is
stored and requested keeps its escapes: a server that signs its URLs takes others for forged.
"""

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from laion_etl.core.byte_arena import ByteArena
from laion_etl.core.kernels import Ints
from laion_etl.urls.kernels import flag_spans_with

_PERCENT = ord("%")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def normal_escapes(url: str) -> str:
    """Returns a URL whose escapes have upper-case digits, with none for unreserved characters.

    A URL with a stray percent sign is unchanged: only its server knows its meaning.
    """
    if "%" not in url or _STRAY_PERCENT.search(url):
        return url
    return _ESCAPE.sub(_normal_escape, url)


def _normal_escape(escape: re.Match[str]) -> str:
    character = chr(int(escape[1], 16))
    return character if character in _UNRESERVED else escape[0].upper()


def comparable_urls(urls: pa.StringArray) -> pa.StringArray:
    """Returns a column of URLs with normal escapes."""
    escaped = pc.match_substring(urls, "%")
    if not pc.any(escaped).as_py():
        return urls
    forms = [normal_escapes(url) for url in urls.filter(escaped).to_pylist()]
    return pc.replace_with_mask(urls, escaped, pa.array(forms, pa.string()))


def compare_spans(arena: ByteArena, starts: Ints, ends: Ints) -> None:
    """Replaces spans of URLs by those of URLs with normal escapes."""
    escaped = np.empty(starts.size, np.uint8)
    flag_spans_with(_PERCENT, arena.data, (starts, ends), escaped)
    for row in np.flatnonzero(escaped).tolist():
        starts[row], ends[row] = arena.add(normal_escapes(arena.text(starts[row], ends[row])).encode())
