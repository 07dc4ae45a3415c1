"""Encodes the queries of URLs as browsers do on pages that are not in UTF-8 (WHATWG URL, 1.3 and 4.4).

`photo.php?name=дом` on a page in windows-1251 is a request for `photo.php?name=%E4%EE%EC`: the server knows
only that one. Paths and hosts do not depend on the page's encoding.
"""

import re
from collections.abc import Mapping

import numpy as np

from laion_etl.core.byte_arena import ByteArena
from laion_etl.core.kernels import Ints
from laion_etl.urls.kernels import flag_foreign_queries

# Bytes for each character that a URL may have: one takes at most 4, and white space is dropped.
FAR_TOO_LONG = 8

_FOREIGN = re.compile(r"[^\x00-\x7f]+")
_QUERY = re.compile(r"([^?#]*\?)([^#]*)(.*)", re.DOTALL)
# What encoders of Python have at another place than the standard, for characters that are written the same.
_SAME_IN_JAPANESE = str.maketrans("\uff5e\u2225\uff0d", "\u301c\u2016\u2212")
_JAPANESE = ("euc_jp", "iso2022_jp")
_ENCODED = frozenset(b"\"#<>'")  # the special-query percent-encode set, of printable ASCII


def encoded_query(url: str, codec: str) -> str:
    """Returns a URL whose query is encoded in the page's encoding, if it has characters beyond ASCII.

    A character that the encoding lacks is written as a reference, `&#8364;`, as in forms.
    """
    found = _QUERY.fullmatch(url)
    if found is None or found[2].isascii():
        return url
    return found[1] + _FOREIGN.sub(lambda run: _escaped(run[0], codec), found[2]) + found[3]


def _escaped(text: str, codec: str) -> str:
    if codec == "gbk" and "\u20ac" in text:  # one byte in the standard, which the codec of Python lacks
        parts = text.split("\u20ac")
        return "%80".join(_escaped(part, codec) if part else "" for part in parts)
    if codec in _JAPANESE:
        text = text.translate(_SAME_IN_JAPANESE)
    try:
        return "".join(map(_written, text.encode(codec)))
    except UnicodeEncodeError:
        if len(text) > 1:
            return "".join(_escaped(character, codec) for character in text)
        return f"%26%23{ord(text)}%3B"


def _written(byte: int) -> str:
    return chr(byte) if 0x20 < byte < 0x7F and byte not in _ENCODED else f"%{byte:02X}"


def rows_with_foreign_query(arena: ByteArena, urls: tuple[Ints, Ints]) -> Ints:
    """Returns the rows of URLs with a character beyond ASCII in their query."""
    flags = np.empty(urls[0].size, np.uint8)
    flag_foreign_queries(arena.data, arena.words, urls, flags)
    return np.flatnonzero(flags).astype(np.int32)


def encode_queries(
    arena: ByteArena, urls: tuple[Ints, Ints], records: Ints, codecs: Mapping[int, str], max_chars: int
) -> None:
    """Encodes the queries of a column; `codecs` are those of the records that are not in UTF-8.

    URLs far longer than `max_chars` stay as they are: they are refused anyway, and take long to encode.
    """
    if not codecs:
        return
    starts, ends = urls
    for row in rows_with_foreign_query(arena, urls).tolist():
        codec = codecs.get(int(records[row]))
        if codec and ends[row] - starts[row] <= FAR_TOO_LONG * max_chars:
            url = encoded_query(arena.text(starts[row], ends[row]), codec)
            starts[row], ends[row] = arena.add(url.encode())
