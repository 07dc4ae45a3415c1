"""Decodes the Content-Encoding that some servers apply although none was requested, in bounded pieces.

As browsers do it (Fetch, "handle content codings"): gzip and deflate are decoded, also raw deflate and also
twice; what follows the compressed data is ignored, also a further gzip member that is broken; a label that
names no compression (`none`, `utf-8`, `aws-chunked`, `image/jpeg`) means bytes as they are. A wrong label
ends a browser's request, and that of `curl --compressed`; curl without the option and urllib look at no
label. Here the first bytes decide, where they can: what is neither gzip nor zlib is taken as it is under the
names of these, and an image under the names of codings that are not decoded here (`br`, `zstd`). Other bytes
under those may be compressed: without a magic number in Brotli that cannot be known.
"""

import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from laion_etl.core.funnel import DownloadStatus
from laion_etl.download.deadlines import BROKEN
from laion_etl.download.http1 import Connection
from laion_etl.download.http_head import DECODABLE, bad_response
from laion_etl.download.link_failed import LinkFailed

_NOT_DECODED = frozenset({"br", "zstd", "dcb", "dcz"})
_MAX_LAYERS = 2
_GZIP_MAGIC = b"\x1f\x8b"
_MAGIC_BYTES = 4  # how many bytes of a body say what it is
_RAW_BYTES = 256  # of what has no header: by these it is deflate or not compressed, whatever the packets are
_IMAGES = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF")
_TEXT_BYTES = 16  # in compressed data so many are never all printable
_TEXT = re.compile(rb"(?:\xef\xbb\xbf)?[\t\r\n -~]{%d}" % (_TEXT_BYTES - 3))
_MEMBERS_FREE = 1_000
_MIN_MEAN_MEMBER_BYTES = 1_024  # a body of smaller gzip members, on average, is an attack on the reader


class ContentDecoder(Protocol):
    """Decodes the parts of a body, one after another."""

    def __call__(self, part: bytes) -> Iterable[bytes]:
        """Yields what a part decodes to."""

    def finish(self) -> Iterable[bytes]:
        """Yields what is left at the end of the body: too little to be judged before."""

    @property
    def unfinished(self) -> bool:
        """Whether the compressed data have begun and not ended, so that more must follow."""

    @property
    def ended(self) -> bool:
        """Whether the compressed data have come to their own end, whatever length was announced."""


def content_decoder(codings: Sequence[str], max_bytes: int) -> ContentDecoder:
    """Returns a function that decodes parts of a body into pieces of at most `max_bytes`.

    `codings` are in lower case and in the order in which they were applied. Raises LinkFailed for too many;
    the function does so for what would have to be decoded and cannot be.
    """
    not_decoded = next((coding for coding in codings if coding in _NOT_DECODED), "")
    if not_decoded:
        return _NotDecoded(not_decoded)
    layers = [coding for coding in codings if coding in DECODABLE]
    if not layers:
        return _AsItIs()
    if len(layers) > _MAX_LAYERS:
        raise bad_response("too many content-encodings")
    inner = _Inflater(max_bytes, raw=layers[0].endswith("deflate"))
    if len(layers) == 1:
        return inner
    return _Twice(_Inflater(max_bytes, raw=layers[1].endswith("deflate")), inner, max_bytes)


async def next_part(connection: Connection, decode: ContentDecoder, length: int | None = None) -> bytes:
    """Returns the next part of a body; b"" also where the length that was announced does not come.

    Some servers announce the length before compression. By the end of the compressed data the body is whole;
    with `length` only if that is what was announced, because rules could follow.
    """
    try:
        return await connection.part()
    except (LinkFailed, *BROKEN):
        if decode.ended and length in (None, connection.framing.length):
            return b""
        raise


class _AsItIs:
    unfinished = ended = False

    def __call__(self, part: bytes) -> tuple[bytes]:
        return (part,)

    def finish(self) -> tuple[()]:
        return ()


class _NotDecoded:
    """Takes what is plainly not compressed as it is, under the name of a coding that is not decoded."""

    ended = False

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._beginning = b""
        self._plain = False

    def __call__(self, part: bytes) -> Iterator[bytes]:
        if not self._plain:
            part = self._beginning = self._beginning + part
            if len(part) < _TEXT_BYTES:
                return
            if not part.startswith(_IMAGES) and _TEXT.match(part) is None:
                raise bad_response(f"content-encoding {self._coding}")
            self._plain, self._beginning = True, b""
        yield part

    def finish(self) -> tuple[()]:
        return ()

    @property
    def unfinished(self) -> bool:
        return self._beginning != b""


class _Inflater:
    """Inflates gzip, zlib or (if `raw`) bare deflate, by the first bytes; other bytes stay as they are."""

    def __init__(self, max_bytes: int, *, raw: bool) -> None:
        self._max_bytes = max_bytes
        self._raw = raw
        self._beginning = b""  # of the body, or of what may be a further gzip member
        self._plain = self._ended = False
        self._zlib: zlib._Decompress | None = None
        self._members = 0
        self._inflated = 0

    def __call__(self, part: bytes) -> Iterator[bytes]:
        while part and not self._ended:
            if self._plain:
                yield part
                return
            if self._zlib is None:
                part, self._beginning = self._beginning + part, b""
                if len(part) < self._needed(part):
                    self._beginning = part
                    return
                self._begin(part)
                continue
            yield self._inflate(self._zlib, part)
            part = self._rest(self._zlib)

    def finish(self) -> Iterator[bytes]:
        part, self._beginning = self._beginning, b""
        if self._members or not part:
            return
        if part.startswith(_GZIP_MAGIC):
            self._beginning = part  # more must follow
            return
        self._begin(part)
        yield from self(part)

    def _needed(self, part: bytes) -> int:
        """How many bytes say what the data are."""
        if len(part) < _MAGIC_BYTES or not self._raw or self._members or _has_header(part):
            return _MAGIC_BYTES
        return _RAW_BYTES

    @property
    def unfinished(self) -> bool:
        began_member = not self._members and self._beginning.startswith(_GZIP_MAGIC)
        return not self._plain and (self._zlib is not None or began_member)

    @property
    def ended(self) -> bool:
        return self._members > 0 and self._zlib is None and not self._plain

    def _begin(self, data: bytes) -> None:
        """Decides from its first bytes what the data are."""
        gzipped = data.startswith(_GZIP_MAGIC)
        if self._members and not gzipped:
            self._ended = True  # padding, most often zero bytes
        elif gzipped or _is_zlib(data):
            self._zlib = zlib.decompressobj(zlib.MAX_WBITS | 32)
        elif self._raw and _may_be_deflate(data):
            self._zlib = zlib.decompressobj(-zlib.MAX_WBITS)
        else:
            self._plain = True
        self._members += 1
        if self._members > _MEMBERS_FREE + self._inflated / _MIN_MEAN_MEMBER_BYTES:
            raise bad_response("tiny gzip members")

    def _inflate(self, inflater: "zlib._Decompress", part: bytes) -> bytes:
        try:
            data = inflater.decompress(part, self._max_bytes)
        except zlib.error as error:
            if self._members == 1:
                raise bad_response("content-encoding broken") from error
            self._ended = True  # `unfinished` stays true
            return b""
        self._inflated += len(data)
        return data

    def _rest(self, inflater: "zlib._Decompress") -> bytes:
        """Returns what of the last part is still to be decoded."""
        if inflater.eof:
            self._zlib = None
        return inflater.unconsumed_tail or inflater.unused_data


class _Twice:
    """Removes an outer layer and then an inner one; what lies between is as limited as the result."""

    def __init__(self, outer: _Inflater, inner: _Inflater, max_bytes: int) -> None:
        self._outer = outer
        self._inner = inner
        self._left = max_bytes

    def __call__(self, part: bytes) -> Iterator[bytes]:
        for between in self._outer(part):
            self._left -= len(between)
            if self._left < 0:
                raise LinkFailed(DownloadStatus.TOO_MANY_BYTES)
            yield from self._inner(between)

    def finish(self) -> Iterator[bytes]:
        for between in self._outer.finish():
            yield from self._inner(between)
        yield from self._inner.finish()

    @property
    def unfinished(self) -> bool:
        return self._outer.unfinished or self._inner.unfinished

    @property
    def ended(self) -> bool:
        return self._outer.ended and self._inner.ended


def _has_header(data: bytes) -> bool:
    """Whether data begin like gzip, zlib or an image."""
    return data.startswith((_GZIP_MAGIC, *_IMAGES)) or _is_zlib(data)


def _may_be_deflate(data: bytes) -> bool:
    """Whether the first bytes of data can be inflated without a header."""
    if data.startswith(_IMAGES):
        return False
    try:
        zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[:_RAW_BYTES], 1 << 16)
    except zlib.error:
        return False
    return True


def _is_zlib(data: bytes) -> bool:
    """Whether data begin with the header of RFC 1950."""
    return data[0] & 0x8F == 8 and int.from_bytes(data[:2]) % 31 == 0
