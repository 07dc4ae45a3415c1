"""Reads the lines of robots.txt as their authors must have meant them.

Large crawlers pass over some mistakes (`Dissallow`, no colon, a byte order mark); an owner who made another
one wants the same. So names of lines are compared by their letters, with one mistake allowed, and what an
editor, a template or a word processor adds is ignored: other blanks, quotes and dashes, invisible characters,
HTML, several lines in one. `Allow` has to be right. Text is decoded with `surrogateescape`, so octets of
other encodings remain what they are.
"""

import json
import re
import string
import unicodedata
from collections.abc import Iterator
from enum import Enum, auto
from functools import lru_cache
from html import unescape
from itertools import pairwise

_ENCODED_TEXT_BYTES = 400  # of the beginning, which show whether a file is in UTF-16 or UTF-32
_MARKS = (b"\xff\xfe", b"\xfe\xff")
# The beginning of UTF-7: its mark, or `[` or `{` of JSON; and what it has for the letters that matter most.
_UTF_7 = re.compile(rb"\s*\+(?:/v[89+/]|AFs|AHs)")
_IN_UTF_7 = {b"+ACo-": b"*", b"+AC8-": b"/", b"+ACQ-": b"$", b"+ACI-": b'"'}

_FEW_ZEROS = 8  # in text that is not UTF-16

_LINE_END = re.compile("[\r\n\x0b\x0c\x1c-\x1e\x85\u2028\u2029]+")
_NOT_SHOWN = re.compile("[\\0-\x08\x0e-\x1b\x7f\u200b\u2060\ufeff\ufffe]+|\u00ef\u00bb\u00bf")
_SHOWN_AS_BLANK = re.compile("[\u00a0\udca0]")  # a non-breaking space, also in Latin-1
_TAG = re.compile(
    r"</?(?:html|head|body|title|pre|code|p|br|div|span|font|li|ul|ol|td|tr|h[1-6]|b|i|em|strong)\b[^<>]{0,200}>",
    re.IGNORECASE,
)
_ENTITY = re.compile(
    r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|ast|sol|colon|nbsp|quot|apos|lt|gt|hyphen|dash);"
)
_COMMENT_BEGINNINGS = ("//", ";", "!", "<!")
_LEADING_COMMENT = re.compile(r"/\*.{0,200}?\*/\s*")
# Where another line begins within a line: also behind a line end that a template wrote as `\n`. A line
# that we do not know has to end there too; but `\news: x` at the beginning of a value may be a path.
_WITHIN = re.compile(
    r"(?:\\r\\n|\\n|\\r|(?:%0[dD])?%0[aA])(?=\s{0,9}(?:(?:user-?agent|disallow|allow|sitemap)\s{0,9}:|\\[nr]|[\"'`]?\s{0,9}\Z))"
    r"|(?<!:)(?<!:\s)(?:\\r\\n|\\n|\\r)(?=\s{0,9}[a-z-]{1,20}\s{0,9}:)"
    r"|(?<=[\s,;|>\"'*)])(?=(?:user-?agent|disallow)\s{0,9}:)",
    re.IGNORECASE,
)
_SEPARATOR = re.compile("[:=\uff1a\ufe55\u2236]")
_NAME_BEGINNING = re.compile(
    r"(user[\s_:-]?agent|content[\s_-]?(?:signals?|usage)|tdm[\s_-]?reservation|x[_-]robots[_-]tag|[a-z]+)[;.-]{0,2}\s+",
    re.IGNORECASE,
)
_PREFERENCE = re.compile(
    r"(?:allow[\s_-]?)?(train[\s_-]?(?:gen)?ai|(?:gen)?ai[\s_-]?(?:train(?:ing)?|use|usage|input)"
    r"|no[\s_-]?(?:image[\s_-]?)?(?:(?:gen)?ai|ml|tdm|llm|(?:(?:gen)?ai[\s_-]?)?train(?:ing)?))"
    r"(?:\s*[:=]\s*(.*)|\s+(no?|none|disallow(?:ed)?|forbidden|prohibited|denied|false|off|yes|true|on))?",
    re.IGNORECASE,
)
_MAX_NAME = 40
_HIDDEN = "\u00ad\u061c\u180e\u200b\u2060\ufe0f\ufeff\ufffd" + "".join(
    map(chr, (*range(0x200C, 0x2010), *range(0x202A, 0x202F), *range(0x2066, 0x206A)))
)
_BLANKS = string.whitespace + "\u1680\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
AROUND = _BLANKS + _HIDDEN  # what may stand around a value without being part of it

_HYPHENS = re.compile("[\u2010-\u2015\u2212\ufe63\uff0d]")

_NOT_MISSPELT = frozenset({"disavow"})


class LineKind(Enum):
    """What a line of robots.txt is."""

    USER_AGENT = auto()
    DISALLOW = auto()
    ALLOW = auto()
    USAGE = auto()
    NO_TRAINING = auto()  # `DisallowAITraining` of draft-canel-robots-ai-control
    RESERVATION = auto()  # the header or the key of tdmrep.json as a line
    DIRECTIVES = auto()  # `X-Robots-Tag: noai` as a line
    PREFERENCE = auto()  # a preference or directive as a line, `AI-Training: no`; its value has the name
    LICENSE = auto()  # of RSL: where the terms for AI are


_KINDS = {"user-agent": LineKind.USER_AGENT, "disallow": LineKind.DISALLOW, "allow": LineKind.ALLOW}
_PLAIN_LINE = re.compile(
    rf"[ \t]*({'|'.join(_KINDS)})[ \t]*:[ \t]*+(?!=)([A-Za-z0-9/*$?=&%_.~+-]*+)[ \t]*+\Z",
    re.IGNORECASE | re.ASCII,
)


def decoded(body: bytes) -> str:
    """Returns the text of a file in UTF-8, UTF-16 or UTF-32; other octets as surrogates."""
    beginning = body[:_ENCODED_TEXT_BYTES]
    if beginning.count(0) * 4 >= len(beginning) > 0:
        return body.decode(json.detect_encoding(body), "replace")
    if body.startswith(_MARKS):
        # Letters of other scripts have no zero bytes; the rules have. Without any, only the mark is wrong.
        if body.count(0) > _FEW_ZEROS:
            return body.decode("utf-16", "replace")
        body = body[2:]
    return (_without_utf_7(body) if b"+A" in body or b"+/v" in beginning else body).decode(
        "utf-8", "surrogateescape"
    )


def _without_utf_7(body: bytes) -> bytes:
    if _UTF_7.match(body) is not None:
        try:
            return body.decode("utf-7").encode()
        except UnicodeError:
            pass
    for written, meant in _IN_UTF_7.items():
        body = body.replace(written, meant)
    return body


def shown(text: str) -> str:
    """Returns text without what cannot be seen, with letters and hyphens that look like those of ASCII."""
    plain = unicodedata.normalize("NFKC", "".join(one for one in text if one not in _HIDDEN))
    return _HYPHENS.sub("-", plain)


def encoded(text: str) -> bytes:
    """Returns the octets of text from `decoded`; the parts of a line of a file in UTF-8 are as they were."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


def lines_of(body: bytes) -> Iterator[tuple[LineKind, str]]:
    """Yields kind and value of the lines that are known, without comments."""
    text = _SHOWN_AS_BLANK.sub(" ", _NOT_SHOWN.sub("", decoded(body)))
    if text.lstrip().startswith("<") and "agent" not in text.lower():
        return  # a page of HTML that stands for every missing file
    if "&" in text:
        text = _ENTITY.sub(lambda found: unescape(found[0]), text)
    if "<" in text:
        text = _TAG.sub("\n", text)
    for line in _LINE_END.split(text):
        if (plain := _PLAIN_LINE.match(line)) is not None:  # nearly all
            yield _KINDS[plain[1].lower()], plain[2]
            continue
        shown = line.partition("#")[0].strip(AROUND)
        if not shown or shown.startswith(_COMMENT_BEGINNINGS):
            continue
        if shown.startswith("/*"):
            shown = _LEADING_COMMENT.sub("", shown, count=1)
        for part in _WITHIN.split(shown) if _may_be_several(shown) else (shown,):
            if (found := _line(part.strip(AROUND))) is not None:
                yield found


def _may_be_several(line: str) -> bool:
    text = line.lower()
    return "\\" in text or text.count("agent") + text.count("disallow") > 1


def _line(line: str) -> tuple[LineKind, str] | None:
    separator = _SEPARATOR.search(line, 0, _MAX_NAME)
    name = line[: separator.start()] if separator else ""
    end = separator.end() if separator else 0
    kind = _kind(name) if "/" not in name else None
    if kind is None and (preference := _PREFERENCE.fullmatch(line)) is not None:
        return LineKind.PREFERENCE, f"{preference[1]}={preference[2] or preference[3] or ''}".removesuffix(
            "="
        )
    if separator and kind is None and (second := _SEPARATOR.search(line, end, _MAX_NAME)):  # `User:agent:`
        longer = line[: second.start()]
        kind = _kind(longer) if "/" not in longer else None
        end = second.end() if kind else end
    if kind is None and (found := _NAME_BEGINNING.match(line)) is not None:
        kind, end = _kind(found[1]), found.end()
    return (kind, line[end:].lstrip(AROUND + ":=\uff1a")) if kind else None


def kind_of_header(name: str) -> LineKind | None:
    """Returns what a header would be as a line; it may begin with `X-`."""
    bare = name.removeprefix("x-").removeprefix("x_")
    return LineKind.PREFERENCE if _PREFERENCE.fullmatch(bare) else _kind(name) or _kind(bare)


@lru_cache(maxsize=256)
def _kind(name: str) -> LineKind | None:
    letters = "".join(
        one for one in unicodedata.normalize("NFKD", name).lower() if one.isascii() and one.isalnum()
    ).lstrip(string.digits)
    if letters == "allow":
        return LineKind.ALLOW if name.strip().lower() == "allow" else None
    once = _without_doubles(letters)
    for names, kind in _NAMES:
        if once in names:
            return kind
    for written in (once, once.removesuffix("ed"), once.removesuffix("al")):
        if written in _LIKE_DISALLOW and written not in _NOT_MISSPELT:
            return LineKind.DISALLOW
        if written in _LIKE_USER_AGENT:
            return LineKind.USER_AGENT
    return None


def _without_doubles(letters: str) -> str:
    return letters[:1] + "".join(after for before, after in pairwise(letters) if after != before)


def _misspelt(word: str) -> frozenset[str]:
    """Returns a word and all that are one letter more, less or other, or have two swapped."""
    cuts = [(word[:place], word[place:]) for place in range(len(word) + 1)]
    letters = string.ascii_lowercase + string.digits
    return frozenset(
        {word}
        | {left + right[1:] for left, right in cuts if right}
        | {left + right[1] + right[0] + right[2:] for left, right in cuts if len(right) > 1}
        | {left + letter + rest for left, right in cuts for letter in letters for rest in (right, right[1:])}
    )


_LIKE_DISALLOW, _LIKE_USER_AGENT = _misspelt(_without_doubles("disallow")), _misspelt("useragent")
_LIKE_USAGE = _misspelt("contentsignal") | _misspelt("contentsignals") | _misspelt("contentusage")
_LIKE_USAGE |= {"aiusage", "aipolicy", "contentpolicy", "contentpreference", "contentpreferences", "usage"}
_LIKE_NO_TRAINING = _misspelt(_without_doubles("disallowaitraining")) | _misspelt("disalowtraining")
_LIKE_NO_TRAINING |= {
    f"disalow{what}" for what in ("ai", "genai", "tdm", "ml", "mining", "datamining", "llm")
}
_LIKE_RESERVATION = _misspelt("tdmreservation") | _misspelt("tdmreservations") | _misspelt("tdmreserved")
_LICENSES = frozenset(
    {
        "license",
        "licence",
        "licenses",
        "licences",
        "rsl",
        "rslicense",
        "rslicence",
        "licenseurl",
        "contentlicense",
        "ailicense",
    }
)
_LIKE_DIRECTIVES = _misspelt("xrobotstag") | _misspelt("robotstag")
_LIKE_DIRECTIVES |= {_without_doubles(name) for name in ("xrobottag", "robottag", "xrobottags", "robottags")}
_NAMES = (
    (_LIKE_USAGE, LineKind.USAGE),
    (_LIKE_NO_TRAINING, LineKind.NO_TRAINING),
    (_LIKE_RESERVATION, LineKind.RESERVATION),
    (_LIKE_DIRECTIVES, LineKind.DIRECTIVES),
    (_LICENSES, LineKind.LICENSE),
)
