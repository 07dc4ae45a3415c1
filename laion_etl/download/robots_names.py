"""The names of user agents in robots.txt: our own, and those of the lines that begin a group."""

import re
import unicodedata
from dataclasses import dataclass, field
from urllib.parse import unquote

from laion_etl.download.path_patterns import PathPattern, parse_path_pattern
from laion_etl.download.robots_lines import AROUND

_BETWEEN_NAMES = re.compile(r"[^A-Za-z0-9_.\-*/]+")
_EVERYONE = re.compile(r"\*++(?:[^A-Za-z0-9_\-][^A-Za-z]*+)?")
# `*` with a name right behind it, as in `*!bad`: whatever that means, it is not everyone.
_PART_OF_NAME = re.compile(r"(?<!\*)\*++[!?@~%$/.]++(?=[A-Za-z])")
# A product token may have `/*` right behind it: `Googlebot/* Bingbot/*`.
_REMARK = re.compile(r"(?:^|\s)/\*++(?=[\sA-Za-z]).*?(?:\*/|\Z)|(?:^|\s)//.*", re.DOTALL)
_COMMENT = re.compile(r"\([^()]*\)?")
_HYPHENS = str.maketrans("", "", "-_")
_PLAIN_NAME = re.compile(r"\*|[A-Za-z0-9][A-Za-z0-9_.\-]*")
_SURE_NAME = re.compile(r"\*(?=\s|\Z)|[A-Za-z0-9_][A-Za-z0-9_.\-]*")
_BETWEEN_SURE_NAMES = re.compile(r"[,;|]")
_QUOTES = "\"'`\u201c\u201d\u2018\u2019"
# A name with a wildcard: a part of several names.
_PATTERN_OF_NAMES = re.compile(
    r"(?<![^\s,;|\"'])(?=[*_\-]*[A-Za-z0-9])[A-Za-z0-9_\-]*+\*[A-Za-z0-9_\-*]*+(?![^\s,;|\"'])"
)
_IN_WORDS = re.compile(
    r"\W*(?:(?:all|any|every(?:one|body)?|any(?:one|body))(?:\s+(?:gen)?ai)?(?:[\s-]+{0})?|(?:gen)?ai(?:[\s-]+{0})?)\W*".replace(
        "{0}", r"(?:(?:ro)?bots?|crawlers?|spiders?|scrapers?|(?:user[\s-]?)?agents?)"
    ),
    re.IGNORECASE,
)
# Signs that look like `*`, and what a name in words has between its letters.
_STARS = str.maketrans(
    dict.fromkeys("\u066d\u2042\u204e\u2055\u2217\u22c6\u2605\u2606\u2731\u2732\u273d", "*")
)
_NOT_IN_TOKENS = re.compile(r"[^A-Za-z0-9.]+")
_MAX_NAMES = 100  # on one line
_MAX_NAMES_LENGTH = 4_000

_TOKEN = re.compile(r"[A-Za-z0-9_.\-]+")
_COMPATIBLE = re.compile(r"\bcompatible;\s*(?!MSIE)([A-Za-z0-9_.\-]+)", re.IGNORECASE)
_PRODUCT = re.compile(r"(?<![A-Za-z0-9_.\-])([A-Za-z0-9_.\-]{1,100})/[0-9]")
_BROWSERS = frozenset(
    {
        "mozilla",
        "applewebkit",
        "chrome",
        "safari",
        "gecko",
        "firefox",
        "version",
        "mobile",
        "edg",
        "edge",
        "opr",
    }
    | {"opera", "trident", "presto", "chromium", "crios", "fxios"}
)


def product_token(user_agent: str) -> str:
    """Returns the name by which robots.txt addresses a user agent (RFC 9309, 2.2.1); '' if it has none.

    That is the name before the first version: `MyBot` of `MyBot/1.0 (+url)`. A user agent that begins like a
    browser's is named by its comment, `MyBot` of `Mozilla/5.0 (compatible; MyBot/1.0; +url)`, or else by its
    first product that is not part of a browser, `MyBot` of `Mozilla/5.0 (MyBot/1.0; +url)`.
    """
    first = _TOKEN.match(user_agent.strip(AROUND + _QUOTES))
    name = first[0] if first else ""
    if name.lower() != "mozilla":
        return name
    if found := _COMPATIBLE.search(user_agent):
        return found[1]
    return next((one for one in _PRODUCT.findall(user_agent) if one.lower() not in _BROWSERS), name)


def comparable_name(name: str) -> str:
    """Returns a product token without what owners write in several ways: `Foo-Bot`, `foo_bot`, `FooBot`."""
    return name.lower().translate(_HYPHENS).rstrip(".")


@dataclass(slots=True)
class NamesOfGroup:
    """The names of a group, comparable: those that every crawler reads, and all that it may be for.

    A line such as `*!FooBot`, `all but FooBot` or `*bot` may mean a crawler or all others. What such a group
    forbids is forbidden; it permits nothing, and does not take the place of the rules for everyone.
    `any-bot` and `ai-bot` are such lines, too: by RFC 9309, 2.2.1 they are product tokens, but no crawler
    that we know has them, and a site generator shows `AI-bot` as the name that keeps out the crawlers of AI.
    `for_everyone`: a line of its own is `*`, whatever the other lines of the group mean. `unnamed`: a line is
    empty.
    """

    sure: set[str] = field(default_factory=set)
    perhaps: set[str] = field(default_factory=set)
    for_everyone: bool = False
    unnamed: bool = False

    def add(self, value: str, agent: str) -> None:
        """Takes note of a user-agent line."""
        self.unnamed = self.unnamed or not value
        if _PLAIN_NAME.fullmatch(value):  # nearly all
            names = {comparable_name(value)} - {""}
            self.for_everyone = self.for_everyone or value == "*"
            self.sure |= names
            self.perhaps |= names | ({"*"} if _IN_WORDS.fullmatch(value) else set())
            return
        text = unicodedata.normalize("NFKC", value[:_MAX_NAMES_LENGTH])
        sure = _sure_names(text)
        self.sure |= sure
        text = unquote(text).translate(_STARS)  # `%2A`, as in a path
        self.perhaps |= sure | _group_names(text)
        if _IN_WORDS.fullmatch(text):
            self.perhaps.add("*")
        if comparable_name(_NOT_IN_TOKENS.sub("", value[:_MAX_NAMES_LENGTH])) == agent:  # `Foo Bot`
            self.perhaps.add(agent)
        patterns = map(_name_pattern, _PATTERN_OF_NAMES.findall(text)[:_MAX_NAMES])
        if any(pattern.matches(agent.encode()) for pattern in patterns):
            self.perhaps.add(agent)


def _name_pattern(written: str) -> PathPattern:
    return parse_path_pattern(f"{comparable_name(written)}$".encode())


def _sure_names(text: str) -> set[str]:
    """Returns the names that stand first in a line, or first behind a mark that separates names."""
    parts = _BETWEEN_SURE_NAMES.split(_COMMENT.sub(" ", text), _MAX_NAMES)[:_MAX_NAMES]
    found = (_SURE_NAME.match(part.strip(AROUND + _QUOTES)) for part in parts)
    names = {comparable_name(name[0]) for name in found if name}
    # A crawler that calls itself a browser is named in the brackets behind that.
    return (names | {comparable_name(product_token(text))} if "mozilla" in names else names) - {""}


def _group_names(text: str) -> set[str]:
    """Returns the product tokens of a user-agent line, comparable; some list several.

    `*` is everyone where it stands alone, or with blanks or marks behind it, but not as a part of a name.
    """
    text = _PART_OF_NAME.sub(" ", _REMARK.sub(" ", text))
    names = [comparable_name(product_token(text))] if "(" in text else []
    parts = _BETWEEN_NAMES.split(_COMMENT.sub(" ", text) if _has_name_before(text) else text, _MAX_NAMES)
    for part in parts[:_MAX_NAMES]:
        name = part.lstrip("-./")
        if _EVERYONE.fullmatch(name):
            names.append("*")
        elif name.endswith("*") or not name.startswith("*"):
            names.append(comparable_name(product_token(name.strip("*"))))
    return set(names) - {""}


def _has_name_before(text: str) -> bool:
    """Whether a comment in brackets describes what stands in front of it."""
    return text.find("(") > 0
