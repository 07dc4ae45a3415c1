"""Patterns of URL paths as robots.txt and tdmrep.json write them (RFC 9309, section 2.2.2 and 2.2.3).

A pattern is a prefix in which `*` stands for anything and a final `$` for the end of the path. Pattern and
path are compared octet by octet after percent-decoding, so that `/größe`, `/gr%C3%B6%C3%9Fe` and
`/gr%c3%b6%c3%9fe` are the same. `%2A` and `%24` are the characters themselves. No regular expression is used:
a match takes time linear in path and pattern, whatever a hostile file contains. A pattern is cut off
after its first MAX_PARTS parts, so it then matches more paths, never fewer.
"""

import re
import string
from dataclasses import dataclass
from urllib.parse import quote_from_bytes, unquote_to_bytes

MAX_PARTS = 50  # those of real files have two or three

_WILDCARDS = re.compile(rb"\*+")
_PATH_BEGINNINGS = (b"/", b"*")


@dataclass(frozen=True, slots=True)
class PathPattern:
    """A pattern, divided at its wildcards: `parts` are percent-decoded octets, at least one.

    `octets` is the length that decides which of several rules is the most specific one: that of the pattern
    with all octets that are not printable ASCII percent-encoded.
    """

    parts: tuple[bytes, ...]
    to_end: bool
    octets: int

    @property
    def longest_part(self) -> bytes:
        """Octets that every matching path contains."""
        return max(self.parts, key=len)

    def matches(self, path: bytes) -> bool:
        """Whether the pattern matches `comparable_path(...)` from its beginning."""
        first, *others = self.parts
        if not path.startswith(first):
            return False
        if not others:
            return not self.to_end or path == first
        place = len(first)
        for part in others[:-1]:
            found = path.find(part, place)
            if found < 0:
                return False
            place = found + len(part)
        last = others[-1]
        if self.to_end:
            return path.endswith(last) and len(path) - len(last) >= place
        return path.find(last, place) >= 0


def parse_path_pattern(pattern: bytes) -> PathPattern:
    """Parses a pattern in UTF-8, percent-encoded or not."""
    written = _WILDCARDS.split(pattern.removesuffix(b"$"))
    to_end = pattern.endswith(b"$") and len(written) <= MAX_PARTS
    parts = tuple(unquote_to_bytes(part) for part in written[:MAX_PARTS])
    encoded = sum(len(quote_from_bytes(part, safe=string.punctuation)) for part in parts)
    return PathPattern(parts, to_end, encoded + len(parts) - 1 + to_end)


def has_many_parts(pattern: bytes) -> bool:
    """Whether a pattern may have more parts than are compared."""
    return pattern.count(b"*") >= MAX_PARTS


def begins_as_path(pattern: bytes) -> bool:
    """Whether a pattern begins as RFC 9309 wants it, or with the wildcard that is usual."""
    return pattern.startswith(_PATH_BEGINNINGS)


def comparable_path(path: str) -> bytes:
    """Returns path and query of a request in the form that patterns are compared with."""
    return unquote_to_bytes(path)
