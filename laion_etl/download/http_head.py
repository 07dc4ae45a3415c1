"""The head of an HTTP/1.1 response: status, headers, and how its body is framed (RFC 9112).

Where servers break the rules, this accepts what browsers and curl accept, as long as the end of the body is
unambiguous; tests/download/response_shapes.py lists what that is, next to what curl makes of it. Such a
response is odd: its connection is not used again.
"""

import re
from dataclasses import dataclass

from laion_etl.core.funnel import DownloadStatus
from laion_etl.download.link_failed import LinkFailed

DECODABLE = frozenset({"gzip", "x-gzip", "deflate", "x-deflate"})  # codings that content_encoding.py removes
# What is not among these, such as `binary`, is a mistake for Content-Transfer-Encoding: browsers ignore it.
_TRANSFER_CODINGS = DECODABLE | {"compress", "x-compress"}

_STATUS_LINE = re.compile(rb"HTTP/(1\.[0-9]) ([1-9][0-9]{2})(?: [^\r\n\0]*)?")
_ODD_STATUS_LINE = re.compile(rb"HTTP/([0-9]\.[0-9]) +([1-9][0-9]{2})(?![0-9])[^\n\0]*", re.IGNORECASE)
# Possessive, so that 60 kB of blanks take linear time; it does not match a line with blanks at its end.
_HEADER_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]++):[ \t]*+((?:[^\r\n\0]*+(?<![ \t]))?)")
_LENGTH = re.compile(r"\+?0*+([0-9]{1,18}|(?<=0))(?:[ \t;].*|\.0{0,9})?")
_WHOLE_RANGE = re.compile(r"(?:bytes\b[\s=:]*)?0\s*-\s*([0-9]{1,18})\s*/\s*([0-9]{1,18})", re.IGNORECASE)
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]")
# The server, or one in front of it, gave up on this request; the next one may get another answer (RFC 9110,
# 15.5.9 and 15.5.20; RFC 8470; RFC 6585; 499 is that of nginx for a client that has gone).
_PASSING_CLIENT_ERRORS = frozenset({408, 421, 425, 429, 499})
_LASTING_SERVER_ERRORS = frozenset({501, 505})  # not implemented, another version of HTTP


@dataclass(frozen=True, slots=True)
class Head:
    """Status and headers of a response; names in lower case, values as Latin-1.

    Lines without a colon are headers without a name, at the end: only an owner's wish is read in them.
    """

    status: int
    minor_version: int
    headers: tuple[tuple[str, str], ...]
    odd: bool  # something broke the rules

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def one(self, name: str) -> str:
        for key, value in self.headers:
            if key == name:
                return value
        return ""

    def listed(self, name: str) -> list[str]:
        """Returns the members of all headers of a name that is defined as a list, in lower case."""
        return [
            member
            for key, value in self.headers
            if key == name
            for part in value.split(",")
            if (member := part.partition(";")[0].strip(" \t").lower())
        ]


@dataclass(frozen=True, slots=True)
class Framing:
    """Where the body of a response ends, and whether the connection stays open after it.

    `length` is None if the body is chunked or ends with the connection. `codings` were applied to the body
    for its transfer, on top of its Content-Encoding. `fault`: why the end of the body cannot be known.
    """

    length: int | None
    chunked: bool
    keeps: bool
    codings: tuple[str, ...] = ()
    fault: str = ""


def bad_response(message: str) -> LinkFailed:
    return LinkFailed(DownloadStatus.BAD_RESPONSE, message)


def parse_head(raw: bytes) -> Head:
    """Parses a response head without its final empty line. Raises LinkFailed if it is not HTTP."""
    first, *lines = raw.replace(b"\r\n", b"\n").split(b"\n")
    odd = b"\r" in raw.replace(b"\r\n", b"")
    status = _STATUS_LINE.fullmatch(first)
    if status is None:
        status, odd = _ODD_STATUS_LINE.fullmatch(first), True
    if status is None:
        raise bad_response("not HTTP")
    headers: list[tuple[str, list[str]]] = []  # a value in its lines
    unnamed: list[tuple[str, str]] = []
    for line in lines:
        found = _HEADER_LINE.fullmatch(line) or _HEADER_LINE.fullmatch(line.rstrip(b" \t"))
        if found is not None:
            headers.append((str(found[1], "ascii").lower(), [str(found[2], "latin-1")]))
        else:
            odd = True
            if not _add_odd_line(headers, line):
                unnamed.append(("", str(line.strip(b" \t\r"), "latin-1")))
    whole = tuple((name, " ".join(filter(None, parts))) for name, parts in headers)
    return Head(int(status[2]), _minor_version(status[1]), (*whole, *unnamed), odd)


def _minor_version(version: bytes) -> int:
    """Returns x of HTTP/1.x; a server that says 2 or 3 here still speaks 1.1."""
    major, minor = version[:1], version[2:]
    return int(minor) if major == b"1" else int(major > b"1")


def _add_odd_line(headers: list[tuple[str, list[str]]], line: bytes) -> bool:
    """Reads a line that is not a header by the rules as what it must mean. Returns False without a colon."""
    if line[:1] in (b" ", b"\t"):
        if headers:  # a folded line
            headers[-1][1].append(str(line.strip(b" \t\r"), "latin-1"))
        return True
    odd_name, colon, odd_value = line.partition(b":")
    name = odd_name.strip(b" \t\r")
    if colon and name:  # most often a space before the colon
        headers.append((str(name, "latin-1").lower(), [str(odd_value.strip(b" \t\r"), "latin-1")]))
    return bool(colon)


def framing_of(head: Head) -> Framing:
    """Determines the framing (RFC 9112, section 6.3)."""
    length, odd, fault = _content_length(head)
    if head.status in (204, 304):
        # A body that a 204 announces may come later, and must not be taken for the next response.
        odd = odd or (head.status == 204 and bool(length or head.one("transfer-encoding")))
        length = 0
        codings = []
    else:
        codings = [coding for coding in head.listed("transfer-encoding") if coding != "identity"]
    chunked = codings[-1:] == ["chunked"]
    if chunked:
        fault = ""  # chunks override any length
    elif "chunked" in codings:
        fault = "transfer-encoding behind chunked"
    if codings and (codings != ["chunked"] or length is not None or head.minor_version == 0):
        odd = True  # may be a sign of request smuggling
    if chunked or not _TRANSFER_CODINGS.isdisjoint(codings):
        length = None  # overridden: without chunks, the body ends with the connection
    options = head.listed("connection")
    keeps = "keep-alive" in options if head.minor_version == 0 else "close" not in options
    ends = chunked or length is not None
    others = tuple(coding for coding in codings if coding in DECODABLE)
    return Framing(length, chunked, keeps and ends and not (odd or head.odd or fault), others, fault)


def _content_length(head: Head) -> tuple[int | None, bool, str]:
    """Returns the announced length, whether it is written oddly, and what is wrong with it."""
    values = head.all("content-length")
    if not values:
        return None, False, ""
    if len(values) == 1 and len(values[0]) <= 18 and values[0].isascii() and values[0].isdigit():
        return int(values[0]), False, ""
    lengths: set[int] = set()
    for value in (part.strip(" \t") for part in ",".join(values).split(",")):
        found = _LENGTH.fullmatch(value)
        if found is None and value:
            return None, True, "wrong content-length"
        if found is not None:
            lengths.add(int(found[1] or 0))
    if len(lengths) > 1:
        return None, True, "wrong content-length"
    return next(iter(lengths), None), True, ""


def location_of(head: Head) -> str:
    """Returns the target of a redirect; "" if there is none. Bytes beyond ASCII may be in any charset."""
    location = next(filter(None, head.all("location")), "")
    if location.isascii():
        return location
    raw = location.encode("latin-1")
    return str(_BEYOND_ASCII.sub(lambda found: b"%%%02X" % found[0][0], raw), "ascii")


def is_whole(head: Head) -> bool:
    """Whether a status other than 200 comes with the whole image (RFC 9110, 15.3)."""
    if head.status == 206:  # not asked for, but it may be all there is
        found = _WHOLE_RANGE.fullmatch(head.one("content-range").strip())
        return found is not None and int(found[1]) + 1 == int(found[2])
    return 200 <= head.status < 300 and head.status not in (204, 205)


def is_part(head: Head) -> bool:
    """Whether the body is said to be a part of what was asked for. A 206 without a range may be all of it."""
    return head.status == 206 and bool(head.one("content-range")) and not is_whole(head)


def is_success(status: int) -> bool:
    """Whether the body is what was asked for (RFC 9309, 2.3.1.1): also of 203, and an unasked 206."""
    return 200 <= status < 300


def is_passing(status: int) -> bool:
    """Whether the same request may get another answer later."""
    if status in _PASSING_CLIENT_ERRORS:
        return True
    return 500 <= status < 600 and status not in _LASTING_SERVER_ERRORS
