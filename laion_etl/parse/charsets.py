"""Decodes HTML by the rules of the Encoding and HTML standards: byte order mark, server, meta, then a guess.

Only the encodings of the Encoding standard are used, under the labels that pages use for them: `latin1` there
is windows-1252, and UTF-7, which smuggles markup past filters, does not exist. Without a label, UTF-8 if the
bytes are that, else windows-1252, which browsers of most languages assume.
"""

import codecs
import re

from laion_etl.core.encodings import codec_of, legacy_codecs

_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_PRESCAN_BYTES = 4096  # the standard says 1,024; many pages have theirs later
_META = re.compile(rb"<meta[^>]{0,500}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.-]{1,40})", re.IGNORECASE)
_XML = re.compile(rb"\s*<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([A-Za-z0-9_:.-]{1,40})", re.IGNORECASE)
_UNICODE = {
    **dict.fromkeys(
        ["utf-8", "utf8", "utf_8", "unicode-1-1-utf-8", "unicode11utf8", "unicode20utf8", "x-unicode20utf8"],
        "utf-8",
    ),
    **dict.fromkeys(
        ["utf-16", "utf-16le", "unicode", "csunicode", "iso-10646-ucs-2", "ucs-2", "unicodefeff"], "utf-16-le"
    ),
    **dict.fromkeys(["utf-16be", "unicodefffe"], "utf-16-be"),
}
_DECODED_AS = {"gbk": "gb18030", "cp950": "big5hkscs"}  # the standard decodes more than it encodes
_WIDE = ("utf-16-le", "utf-16-be")


def load_codecs() -> None:
    """Imports the codecs, for a process that cannot import anything later."""
    for codec in {*_UNICODE.values(), *legacy_codecs().values(), *_DECODED_AS.values()}:
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
    return _DECODED_AS.get(legacy, legacy) or _UNICODE.get(label.strip().lower(), "")


def _stated(head: bytes) -> str:
    """Returns the label of the encoding that a page states itself, '' without one.

    One that could be read as ASCII cannot be UTF-16, so it is UTF-8 then (HTML 13.2.3.2).
    """
    found = _META.search(head) or _XML.match(head)
    label = found[1].decode() if found else ""
    return "utf-8" if _codec_of(label) in _WIDE else label


def _is_utf8(body: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(body)  # its last character may be cut off
    except UnicodeDecodeError:
        return False
    return True
