"""Finds the WARC records in inflated bytes, whatever gzip members they were in.

Content-Length says where a record ends, if the next record or nothing follows there; anything between two
records that is white space, NUL or a byte order mark belongs to neither (writers differ in the number of line
ends after a record). A wrong length is corrected by looking for the next record; a payload of JSON that is
whole by its length ends there, whatever follows.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_MAGIC = b"WARC/"
_BEGINNING = re.compile(
    _MAGIC, re.IGNORECASE
)  # of a record: some writers have the version line in lower case
# Possessive: a pattern that could go back would need 120 bytes of memory for each byte of padding.
_PADDING = re.compile(rb"(?:[\r\n\t \0]|\xef\xbb\xbf)*+")
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_LENGTH = re.compile(rb"^Content-Length[ \t]*:[ \t]*(\d+)", re.IGNORECASE | re.MULTILINE)
_TARGET = re.compile(rb"^WARC-Target-URI[ \t]*:[ \t]*([^\r\n]*)", re.IGNORECASE | re.MULTILINE)
_METADATA = re.compile(rb"^WARC-Type[ \t]*:[ \t]*metadata[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_RESPONSE = re.compile(rb"^WARC-Type[ \t]*:[ \t]*response[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_CONVERSION = re.compile(rb"^WARC-Type[ \t]*:[ \t]*conversion[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_NEXT = re.compile(rb"(?<=\n)WARC/(?=[0-9])|(?i:warc)/[0-9]\.[0-9]+[ \t]*\r?\n")
_CONTINUES_JSON = b',]}"'  # what may follow a closing brace
_LINE_ENDS = 4  # bytes that some writers count to the payload
_FOLD = re.compile(rb"\r?\n[ \t]+")  # RFC 2822 2.2.3, which WARC allows


@dataclass(frozen=True, slots=True)
class WarcRecord:
    """A record. `start` is its place in the bytes; `is_whole` is False if it goes on beyond their end."""

    start: int
    head: bytes
    payload: bytes
    is_whole: bool

    @property
    def is_metadata(self) -> bool:
        return bool(_METADATA.search(self.head))

    @property
    def is_response(self) -> bool:
        return bool(_RESPONSE.search(self.head))

    @property
    def is_conversion(self) -> bool:
        """Whether it is made from another record: the text of a page in a WET file."""
        return bool(_CONVERSION.search(self.head))

    @property
    def target(self) -> str:
        """The last WARC-Target-URI, without the angle brackets of WARC 1.0; '' without one."""
        found = _TARGET.findall(self.head)
        return in_brackets(found[-1].decode(errors="replace").strip()) if found else ""

    @property
    def is_of_a_wat_file(self) -> bool:
        """Whether this is metadata in JSON: WARC files have metadata of another form, WET files none."""
        return self.is_metadata and self.payload.lstrip()[:1] == b"{"


@dataclass(frozen=True, slots=True)
class NoRecord:
    """Bytes that are not a WARC record, up to the next one."""

    start: int


def in_brackets(url: str) -> str:
    """Returns a URL without the angle brackets that WARC 1.0 has around it."""
    return url[1:].partition(">")[0] if url.startswith("<") else url


def begins_a_record(data: bytes) -> bool:
    """Whether a record begins here, after the padding that may precede it."""
    return _begins(data, _after_padding(data, 0))


def split_records(data: bytes) -> Iterator[WarcRecord | NoRecord]:
    """Yields the records in some bytes, in order, and what lies between them."""
    position = _after_padding(data, 0)
    while position < len(data):
        if _begins(data, position):
            record, position = _record(data, position)
            yield record
        elif _is_begun(data, position):
            yield WarcRecord(position, data[position:], b"", is_whole=False)
            return
        else:
            yield NoRecord(position)
            found = _NEXT.search(data, position)
            position = found.start() if found else len(data)
        position = _after_padding(data, position)


def _record(data: bytes, start: int) -> tuple[WarcRecord, int]:
    """Returns the record that begins at `start`, and where it ends."""
    found = _HEAD_END.search(data, start)
    body = found.end() if found else len(data)
    head = _FOLD.sub(b" ", data[start:body])
    end, is_whole = _extent(data, body, _LENGTH.search(head))
    return WarcRecord(start, head, data[body:end], is_whole and found is not None), end


def _extent(data: bytes, body: int, announced: re.Match[bytes] | None) -> tuple[int, bool]:
    """Returns where a payload ends, and whether that is in the data."""
    if announced:
        end = body + int(announced[1][:18])
        if end <= len(data):
            after = _after_padding(data, end)
            if after == len(data) or _begins(data, after) or _is_begun(data, after):
                return end, True
            if _is_end_of_json(data, end):
                return end, True
    following = _NEXT.search(data, body)
    if following:
        return following.start(), True
    return len(data), not announced or end <= len(data)


def _is_end_of_json(data: bytes, end: int) -> bool:
    """Whether a payload of JSON may end here, so that what follows is not part of it."""
    last = data[max(0, end - _LINE_ENDS) : end].rstrip()
    return last.endswith(b"}") and data[end : end + 1] not in _CONTINUES_JSON


def _is_begun(data: bytes, position: int) -> bool:
    """Whether the data ends within the first bytes of a record."""
    return len(data) - position < len(_MAGIC) and _MAGIC.startswith(data[position:].upper())


def _begins(data: bytes, position: int) -> bool:
    return _BEGINNING.match(data, position) is not None


def _after_padding(data: bytes, position: int) -> int:
    found = _PADDING.match(data, position)
    return found.end() if found else position
