"""What a location must mean that is not written as RFC 9309 wants it.

Only for what forbids something: where two readings are possible both count. A value may be several paths, a
whole URL, a path without its slash, in quotes, with slashes or brackets of another kind or with a remark.
Letters beyond ASCII are those of UTF-8 and, because old sites have both, of Latin-1 (windows-1252).
"""

import re
import unicodedata

from laion_etl.core.html_entities import unescaped
from laion_etl.download.robots_lines import AROUND, encoded

_PLAIN_PATH = re.compile(r"(?:/(?!/)|\*)(?:[A-Za-z0-9/*$?=%_~+-]|(?<!/)\.)*")  # means what it says
# A mark with several words or a bracket behind it does not separate paths: `/a, but not /`, `/a, (see /)`.
_BETWEEN_PATHS = re.compile(
    r"[,;\uff0c\uff1b\u3001]\s++(?=[^\w(\[{<]|\S+(?:[,;\uff0c\uff1b\u3001]|\Z))|[,\uff0c\u3001](?=/)|(?<=/)[;|](?=/)"
    r"|(?<=[\"'`])[,;](?=[\"'`])"
)
_HOST = re.compile(
    r"(?:https?|\*):/{0,3}[^/]*|www\.[^/]+(?=/|\Z)|//[a-z0-9-]+(?:\.[a-z0-9-]+)+(?::\d+)?(?=/.)",
    re.IGNORECASE,
)
_QUOTES = "\"'`\u201c\u201d\u201e\u2018\u2019\u201a\u00ab\u00bb\u2039\u203a<>[](){}"
_PLAIN_QUOTES = "\"'`"
_LIST_MARKS = ",;"
_QUOTED_MEMBER = re.compile("(?<=[\"'`\u201d\u2019\\]])[,;]+\\Z")  # the end of a line of JSON or JavaScript
_PATH_BEGINNINGS = ("/", "*")
_ENDINGS = ("/", "*", "$", *_LIST_MARKS)  # of a path with a remark behind it
_SINGLE_DOT, _PARENT = re.compile(r"/(?:\./)+"), re.compile(r"/[^/*.]+/\.\./")
_OTHER_SLASHES = ("\uff0f", "\u2215", "\u2044")
# Words for the whole site, though each could be a path without its slash.
_EVERYTHING = frozenset({"all", "any", "everything", "everyone", "true", "yes"})
_WRITTEN_SLASH = re.compile(r"\A\^?(?:%2[fF]|(?<=\^)/)")  # escaped; behind the beginning of an expression

# Regular expressions, which many take patterns for. `/.*` alone, `/*/.*` or `/.*/` is more often files and
# folders like `.git`: it comes with lists of folders that are not public, and sitemaps of those that are.
_EXPRESSION = re.compile(
    r"\A\^|\\[./]|\(\.[*+]|\[\^|[^\s/*]/\.[*+]|/\.\+\??[^\s?$*]|/\.\*\??(?!/\**\$?(?:[\s,;]|\Z))[^\s?$*]"
)
_OF_EXPRESSION = re.compile(r"\\([./])|\(?(?:\.|\[\^/\])[*+]\??\)?|\A\^")


def as_paths(value: str) -> list[bytes]:
    """Returns the patterns that a value must mean; none if it is empty."""
    if _PLAIN_PATH.fullmatch(value):
        return [value.encode()]
    value = _QUOTED_MEMBER.sub("", value)
    if value.strip(AROUND + _QUOTES).lower() in _EVERYTHING:
        return [b"/"]
    values = [value, _OF_EXPRESSION.sub(_meant, value)] if _EXPRESSION.search(value) else [value]
    paths = (
        spelling
        for given in values
        for one in _BETWEEN_PATHS.split(given)
        if (written := _without_marks(one)).strip(_LIST_MARKS)
        for path in _between_blanks(written)
        for spelling in _spellings(path)
    )
    return list(dict.fromkeys(paths))


def _without_marks(value: str) -> str:
    """Returns a value without quotation marks and brackets. `/*"` and `/(` are not the whole site."""
    plain, written = value.strip(AROUND + _QUOTES), value.strip(AROUND)
    if plain == "/" and written.rstrip(_PLAIN_QUOTES) == plain:  # the end of a text in quotation marks
        return plain
    return plain if plain.strip("/*$") or written.startswith(tuple(_QUOTES)) else written


def _meant(found: re.Match[str]) -> str:
    """Returns what a part of a regular expression is in a pattern."""
    return found[1] or ("" if found[0] == "^" else "*")


def _as_path(value: str) -> str:
    if value.startswith(_OTHER_SLASHES):
        value = value.replace(value[0], "/")
    value = _WRITTEN_SLASH.sub("/", value, count=1)
    if "\\" in value:  # as in URLs; a query may have it
        path, mark, query = value.partition("?")
        value = path.replace("\\", "/") + mark + query
    value = _HOST.sub("", value, count=1) if _HOST.match(value) else value
    if not value.startswith(_PATH_BEGINNINGS):
        value = "/" + ("" if value in (".", "..") else value)
        value = value.removeprefix("/.") if value.startswith("/./") else value.removeprefix("/..")
    value = _PARENT.sub("/", _SINGLE_DOT.sub("/", value))
    return value if "*" in value else value.rstrip(_LIST_MARKS) or value


def _between_blanks(written: str) -> list[str]:
    """Returns the paths between the blanks of a value; or the value, if it may be one path with blanks.

    Of a sentence that begins with a path, `/foo (see /)`, only the first word can mean the whole site.
    """
    value = _as_path(written)
    words = [word.strip(_QUOTES) for word in value.split()]
    paths = [word.rstrip(_LIST_MARKS) for word in words if word.startswith(_PATH_BEGINNINGS)]
    if len(paths) > 1:
        is_list = len(paths) == len(words) and " (" not in value
        is_list = is_list or not written.startswith(_PATH_BEGINNINGS)
        return [path for place, path in enumerate(paths) if place == 0 or is_list or path.strip("/*$")]
    has_remark = len(words) > 1 and words[0].endswith(_ENDINGS)
    return [*paths, value] if has_remark else [value]


def _spellings(path: str) -> list[bytes]:
    written = encoded(path)
    found = [written, encoded(path.replace("&amp;", "&")), encoded(unescaped(path))]
    if path.isascii():
        return found
    found += [encoded(unicodedata.normalize(form, path)) for form in ("NFC", "NFD")]
    try:
        found.append(path.encode("windows-1252"))
    except UnicodeEncodeError:  # it has octets that are not UTF-8, or other letters
        found.append(written.decode("windows-1252", "replace").encode())
    return found
