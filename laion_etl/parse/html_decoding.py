"""Decodes HTML by the rules of the Encoding and HTML standards: byte order mark, server, meta, then a guess.

Only the encodings of the Encoding standard are used, under the labels that pages use for them: `latin1` there
is windows-1252, and UTF-7, which smuggles markup past filters, does not exist. Without a label, UTF-8 if the
bytes are that, else windows-1252, which browsers of most languages assume.
"""

import codecs
import re
from collections.abc import Iterator
from itertools import chain

from laion_etl.core.encodings import UNICODE_CODECS, codec_of, is_known, legacy_codecs
from laion_etl.parse.stated_charset import labels_in

_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_PRESCAN_BYTES = 4096  # the standard says 1,024; many pages have theirs later
_COMMENT = re.compile(rb"<!--(?:-?>|.*?(?:--!?>|\Z))", re.DOTALL)
_META = re.compile(rb"<meta[\s/]((?:[^>\"']++|\"[^\"]*+\"|'[^']*+')*+)", re.IGNORECASE)
_ATTRIBUTE = re.compile(rb"([^\s\"'>/=]++)\s*+=\s*+(?:\"([^\"]*+)\"|'([^']*+)'|([^\s\"'>]++))")
_XML = re.compile(rb"\s*<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([A-Za-z0-9_:.-]{1,40})", re.IGNORECASE)
_DECODED_AS = {"gbk": "gb18030", "cp950": "big5hkscs"}  # the standard decodes more than it encodes
_WIDE = ("utf-16-le", "utf-16-be")


def load_codecs() -> None:
    """Imports the codecs, for a process that cannot import anything later."""
    for codec in {*UNICODE_CODECS.values(), *legacy_codecs().values(), *_DECODED_AS.values()}:
        codecs.lookup(codec)


def decoded(body: bytes, served_as: str) -> tuple[str, str]:
    """Returns the text of a page, and the label of the encoding that it states, '' without one.

    What is not valid in its encoding becomes U+FFFD.
    """
    for mark, codec in _MARKS:
        if body.startswith(mark):
            return body[len(mark) :].decode(codec, "replace"), "utf-8"
    label = served_as if _codec_of(served_as) else _stated(body[:_PRESCAN_BYTES])
    codec = _codec_of(label) or ("utf-8" if _is_utf8(body) else "cp1252")
    return body.decode(codec, "replace"), label


def _codec_of(label: str) -> str:
    """Returns the codec that pages under a label are decoded with, '' if there is none."""
    legacy = codec_of(label)
    return _DECODED_AS.get(legacy, legacy) or UNICODE_CODECS.get(label.strip().lower(), "")


def _stated(head: bytes) -> str:
    """Returns the label of the encoding that a page states itself, '' without one.

    One that could be read as ASCII cannot be UTF-16, so it is UTF-8 then (HTML 13.2.3.2).
    """
    declared = _XML.match(head)
    labels = chain(labels_in(_metas(head)), [declared[1].decode()] if declared else [])
    label = next(filter(is_known, labels), "")
    return "utf-8" if _codec_of(label) in _WIDE else label


def _metas(head: bytes) -> Iterator[dict[object, object]]:
    """Yields the attributes of the meta elements outside of comments; of several with one name, the first."""
    for meta in _META.finditer(_COMMENT.sub(b"", head)):
        found = reversed(_ATTRIBUTE.findall(meta[1]))
        yield {
            name.decode("latin-1").lower(): (double or single or bare).decode("latin-1")
            for name, double, single, bare in found
        }


def _is_utf8(body: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(body)  # its last character may be cut off
    except UnicodeDecodeError:
        return False
    return True
