"""The process that parses HTML: one page at a time, until its input ends.

A parser of HTML written in C meets anything here, and some pages cost it time that grows with the square of
their size (a hundred thousand nested elements take 20 s). So it runs confined (`sandbox`), and is killed when
a page has cost too much CPU time (html_parser.py). A page that ends it costs itself only.

Out, once: one byte, when it is confined.
In:  4 bytes length of charset, 4 bytes length of body, charset, body.    Out: 4 bytes length, JSON.
The JSON has the fields of Found, images as lists, and charset, or {"error": text} for an exception.
"""

import sys
from collections.abc import Collection
from typing import BinaryIO

import orjson

from laion_etl.parse.html_decoding import decoded, load_codecs
from laion_etl.parse.html_links import Found, found_in
from laion_etl.parse.html_protocol import ANSWER, READY, REQUEST
from laion_etl.sandbox.limits import confine

_MEMORY_MB = 1_024  # address space; a page of 8 MiB of tags takes 300


def answer(body: bytes, charset: str, wanted: Collection[str]) -> bytes:
    """Returns the answer for one page, without its length."""
    try:
        text, label = decoded(body, charset)
        return _plain(found_in(text, wanted), label)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a rule raises: the caller counts it
        return orjson.dumps({"error": f"{type(error).__name__}: {error}"[:500]})


def _plain(found: Found, charset: str) -> bytes:
    images = [[image.url, image.alt, image.title, image.text, image.source] for image in found.images]
    page = {"base": found.base, "licence": found.licence, "lang": found.lang, "charset": charset}
    return orjson.dumps(page | {"images": images})


def serve(source: BinaryIO, sink: BinaryIO, wanted: Collection[str]) -> None:
    """Answers pages until the input ends."""
    sink.write(READY)
    sink.flush()
    while header := source.read(REQUEST.size):
        charset_length, length = REQUEST.unpack(header)
        charset = source.read(charset_length).decode()
        body = source.read(length)
        found = answer(body, charset, wanted)
        sink.write(ANSWER.pack(len(found)) + found)
        sink.flush()


def main() -> None:
    """Arguments: the sources of captions that are wanted."""
    wanted = sys.argv[1:]
    load_codecs()  # and what parsing imports at its first use: later nothing can be imported
    answer(b"<img src=a alt=b><noscript><img data-src=c></noscript><figcaption>d</figcaption>", "", wanted)
    confine(_MEMORY_MB)
    serve(sys.stdin.buffer, sys.stdout.buffer, wanted)


if __name__ == "__main__":
    main()
