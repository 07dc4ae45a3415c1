"""Decodes HTML by the rules of the Encoding and HTML standards: byte order mark, server, meta, then a guess.

Only the encodings of the Encoding standard are used, under the labels that pages use for them: `latin1` there
is windows-1252, and UTF-7, which smuggles markup past filters, does not exist. Without a label, UTF-8 if the
bytes are that, else windows-1252, which browsers of most languages assume.
"""

import codecs
import re

_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_PRESCAN_BYTES = 4096  # the standard says 1,024; many pages have theirs later
_META = re.compile(rb"<meta[^>]{0,500}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.-]{1,40})", re.IGNORECASE)
_XML = re.compile(rb"\s*<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([A-Za-z0-9_:.-]{1,40})", re.IGNORECASE)
_CODECS = {
    "utf-8": "utf-8 utf8 unicode-1-1-utf-8 utf_8",
    "cp1252": "windows-1252 cp1252 iso-8859-1 iso8859-1 iso_8859-1 latin1 latin-1 l1 ascii us-ascii x-cp1252",
    "iso8859-2": "iso-8859-2 iso8859-2 latin2 l2",
    "iso8859-3": "iso-8859-3",
    "iso8859-4": "iso-8859-4",
    "iso8859-5": "iso-8859-5 cyrillic",
    "iso8859-6": "iso-8859-6 arabic",
    "iso8859-7": "iso-8859-7 greek",
    "iso8859-8": "iso-8859-8 iso-8859-8-i hebrew",
    "iso8859-10": "iso-8859-10",
    "iso8859-13": "iso-8859-13",
    "iso8859-14": "iso-8859-14",
    "iso8859-15": "iso-8859-15 latin-9 latin9",
    "iso8859-16": "iso-8859-16",
    "koi8-r": "koi8-r koi8_r koi8 koi",
    "koi8-u": "koi8-u koi8-ru",
    "mac-roman": "macintosh mac x-mac-roman",
    "mac-cyrillic": "x-mac-cyrillic",
    "cp866": "ibm866 cp866",
    "cp874": "windows-874 tis-620 iso-8859-11",
    "cp1250": "windows-1250 cp1250",
    "cp1251": "windows-1251 cp1251 win-1251",
    "cp1253": "windows-1253 cp1253",
    "cp1254": "windows-1254 cp1254 iso-8859-9 latin5",
    "cp1255": "windows-1255 cp1255",
    "cp1256": "windows-1256 cp1256",
    "cp1257": "windows-1257 cp1257",
    "cp1258": "windows-1258 cp1258",
    "gb18030": "gb18030 gbk gb2312 gb_2312-80 x-gbk chinese",
    "big5hkscs": "big5 big5-hkscs x-x-big5 cn-big5",
    "euc_jp": "euc-jp x-euc-jp",
    "iso2022_jp": "iso-2022-jp",
    "cp932": "shift_jis shift-jis sjis x-sjis windows-31j ms_kanji",
    "cp949": "euc-kr euc_kr ks_c_5601-1987 korean windows-949",
    "utf-16-le": "utf-16 utf-16le unicode",
    "utf-16-be": "utf-16be",
}
_BY_LABEL = {label: codec for codec, labels in _CODECS.items() for label in labels.split()}
_WIDE = ("utf-16-le", "utf-16-be")


def load_codecs() -> None:
    """Imports the codecs, for a process that cannot import anything later."""
    for codec in _CODECS:
        codecs.lookup(codec)


def decoded(body: bytes, served_as: str) -> str:
    """Returns the text of a page; what is not valid in its encoding becomes U+FFFD."""
    for mark, codec in _MARKS:
        if body.startswith(mark):
            return body[len(mark) :].decode(codec, "replace")
    codec = _BY_LABEL.get(served_as.strip().lower(), "") or _stated(body[:_PRESCAN_BYTES])
    if not codec:
        codec = "utf-8" if _is_utf8(body) else "cp1252"
    return body.decode(codec, "replace")


def _stated(head: bytes) -> str:
    """Returns the codec that a page states itself, '' without one.

    One that could be read as ASCII cannot be UTF-16, so it is UTF-8 then (HTML 13.2.3.2).
    """
    found = _META.search(head) or _XML.match(head)
    codec = _BY_LABEL.get(found[1].decode().lower(), "") if found else ""
    return "utf-8" if codec in _WIDE else codec


def _is_utf8(body: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(body)  # its last character may be cut off
    except UnicodeDecodeError:
        return False
    return True
