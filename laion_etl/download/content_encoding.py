"""Decodes the Content-Encoding that some servers apply although none was requested, in bounded pieces."""

import zlib
from collections.abc import Callable, Iterable, Iterator

from laion_etl.download.http1 import bad_response

ContentDecoder = Callable[[bytes], Iterable[bytes]]


def content_decoder(encoding: str, max_bytes: int) -> ContentDecoder:
    """Returns a function that decodes parts of a body into pieces of at most `max_bytes`.

    Supports gzip and deflate. Raises LinkFailed for other encodings, and for several at once.
    """
    if encoding in ("", "identity"):
        return lambda part: (part,)
    if encoding in ("gzip", "x-gzip", "deflate"):
        return _ZlibDecoder(max_bytes)
    raise bad_response("content-encoding not asked for")


class _ZlibDecoder:
    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._zlib = zlib.decompressobj(zlib.MAX_WBITS | 32)

    def __call__(self, part: bytes) -> Iterator[bytes]:
        while part:
            if self._zlib.eof:  # a further gzip member
                self._zlib = zlib.decompressobj(zlib.MAX_WBITS | 32)
            try:
                yield self._zlib.decompress(part, self._max_bytes)
            except zlib.error as error:
                raise bad_response("content-encoding broken") from error
            part = self._zlib.unconsumed_tail or self._zlib.unused_data
