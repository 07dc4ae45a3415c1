"""Makes image URLs absolute by the WHATWG URL standard (ada), and filters them.

`resolve` is the standard; `resolve_urls` applies it to a column and passes only those
URLs to it that are not in a simple absolute or relative form. The limits are the original's: http(s) only,
length of URL and host, no .svg and .gif; hosts.py filters by host.

Before you change the form that `resolve` gives to any URL:

- Raise RULE_VERSION, and move the previous `resolve` to EARLIER_RULES. Finished partitions are then parsed
  again, so that a crawl does not mix two forms, and compiled blocklists are built again.
- `removals/<id>.json` keeps hashes of URLs and of pairs, by the rule of that day. What was removed stays
  removed only because EARLIER_RULES still gives the links of a page their earlier forms: never delete a rule
  from it.
- A pair's id is a hash of this form: pairs of earlier crawls in Postgres are not duplicates of the new ones
  where the form differs.
- `kernels.py` has the same rule for simple URLs; tests/parse/test_urls.py holds the two together.

Two URLs that differ only in how they escape a character are two: servers compare signatures with the URL as
it was signed. Blocklists compare another form (escapes.py).
"""

import re
from collections.abc import Callable

import ada_url
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from laion_etl.core.byte_arena import ByteArena
from laion_etl.core.funnel import ParseReason
from laion_etl.core.kernels import Bytes, Ints
from laion_etl.core.reason_codes import REASON_CODES
from laion_etl.core.text_columns import buffers_of
from laion_etl.settings import ParseSettings
from laion_etl.urls.escapes import normal_escapes
from laion_etl.urls.host_kernels import BAD_EXTENSION, LONG_HOST, LONG_URL, check_urls
from laion_etl.urls.kernels import NEEDS_PARSER, resolve_plain
from laion_etl.urls.legacy_queries import FAR_TOO_LONG

Spans = tuple[Ints, Ints]  # starts and ends in an arena
Resolve = Callable[[str, str], str | ParseReason]

RULE_VERSION = 2  # raise it whenever `resolve` gives any URL another form, and see above


def page_base(page_url: str, base: str | None) -> str:
    """Returns the base of relative URLs: `Head.Base` of the page, itself relative to the page URL.

    HTML 4.2.3 (the base element): a base that is not a valid http(s) URL is ignored.
    """
    if not base:
        return page_url
    try:
        joined = ada_url.URL(base, base=page_url)
    except ValueError:
        return page_url
    return str(joined.href) if joined.protocol in ("http:", "https:") else page_url


def resolve(raw: str, base: str) -> str | ParseReason:
    """Returns the absolute URL as the standard writes it, without fragment, or the reason to drop it.

    If the base is invalid, an absolute URL is still accepted. Percent escapes stay as they are. A user name
    in the URL of the page is not passed on to its links.
    """
    base = without_credentials(base)
    try:
        url = ada_url.URL(raw, base=base) if ada_url.check_url(base) else ada_url.URL(raw)
    except ValueError:
        return ParseReason.URL_INVALID
    if url.protocol not in ("http:", "https:"):
        return ParseReason.URL_SCHEME
    if url.username or url.password:
        return ParseReason.URL_INVALID
    url.hash = ""
    return str(url.href)


# What a template leaves when it is not filled in: {{ image.src }}, ${src}, <%= src %>, <?php ... ?>, and what
# JavaScript makes of an object, in URLs as `resolve` writes them. One brace alone, two brackets or
# underscores (`{guid}.jpg`, `[[1]]`, `__A__.jpg`) are in URLs of images that exist.
_TEMPLATE = re.compile(
    r"(?:\{|%7B){2}(?:(?!\{|%7B).){0,200}?(?:\}|%7D){2}|\$(?:\{|%7B)(?:(?!\{|%7B).){0,200}?(?:\}|%7D)"
    r"|%3C([%?]).{0,300}?\1%3E|\[object%20\w{1,40}\]",
    re.IGNORECASE,
)


def is_template(url: str) -> bool:
    """Whether an absolute URL is a template that was not filled in; a server has nothing there."""
    return _TEMPLATE.search(url) is not None


def _resolve_1(raw: str, base: str) -> str | ParseReason:
    """The first rule: escapes in normal form, which some servers do not take for the URL that they signed."""
    form = resolve(raw, base)
    return form if isinstance(form, ParseReason) else normal_escapes(form)


EARLIER_RULES: dict[int, Resolve] = {1: _resolve_1}  # `resolve` as it was, by its version


_CREDENTIALS = re.compile(r"^([^/\\?#@]*[/\\]{2,})[^/\\?#]*@")


def without_credentials(url: str) -> str:
    """Returns a page URL without user name and password; one that has none as it is."""
    if "@" not in url:
        return url
    try:
        parsed = ada_url.URL(url)
    except ValueError:  # it is stored with the pairs of the page nevertheless
        return _CREDENTIALS.sub(r"\1", url)
    if not (parsed.username or parsed.password):
        return url
    parsed.username = parsed.password = ""
    return str(parsed.href)


def form_by_rule(version: int, url: str, base: str = "") -> str:
    """Return a URL in the form of some version of the rule; '' if that rule drops it."""
    rule = resolve if version == RULE_VERSION else EARLIER_RULES[version]
    form = rule(url, base)
    return "" if isinstance(form, ParseReason) else form


def may_have_other_forms(urls: pa.StringArray) -> npt.NDArray[np.bool_]:
    """Return for each absolute URL whether some version of the rule may give it another form.

    Versions differ in what they do with escapes, and none changes a URL that needs no parser otherwise.
    Asking each version takes 25 microseconds a URL, this takes 0.3.
    """
    if not len(urls):
        return np.zeros(0, np.bool_)
    data, ends = buffers_of(urls)
    starts, before = ends[:-1].copy(), ends[1:].copy()
    spans, no_base = (starts, before.copy()), (np.zeros(1, np.int32), np.zeros(1, np.int32))
    states = np.empty(len(urls), np.int32)
    content = data.copy()
    longest = int((before - starts).max(initial=0))
    resolve_plain(content, spans, no_base, np.zeros(len(urls), np.int32), content.size, longest, states)
    escaped = pc.match_substring(urls, "%").to_numpy(zero_copy_only=False)
    return np.asarray((states == NEEDS_PARSER) | (spans[1] != before) | escaped)


def resolve_urls(
    arena: ByteArena, urls: Spans, bases: Spans, records: Ints, reasons: Bytes, max_chars: int
) -> None:
    """Makes the URL spans absolute; `bases` are spans per record. Sets the reasons of rows that have none."""
    starts, ends = urls
    lengths = np.minimum(ends - starts, max_chars) + np.minimum(bases[1] - bases[0], max_chars)[records]
    arena.reserve(int(lengths.sum()))
    states = np.empty(starts.size, np.int32)
    arena.size = resolve_plain(arena.data, urls, bases, records, arena.size, max_chars, states)
    for row in np.flatnonzero(states == NEEDS_PARSER).tolist():
        base = (bases[0][records[row]], bases[1][records[row]])
        resolved = _resolve_span(arena, (starts[row], ends[row]), base, max_chars)
        if isinstance(resolved, ParseReason):
            reasons[row] = REASON_CODES[resolved]
        else:
            starts[row], ends[row] = arena.add(resolved.encode())


def _resolve_span(
    arena: ByteArena, url: tuple[int, int], base: tuple[int, int], max_chars: int
) -> str | ParseReason:
    if url[1] - url[0] > FAR_TOO_LONG * max_chars:
        return ParseReason.URL_TOO_LONG
    resolved = resolve(arena.text(*url), arena.text(*base))
    if not isinstance(resolved, ParseReason) and is_template(resolved):
        return ParseReason.URL_INVALID
    return resolved


class UrlRule:
    """Filters absolute URLs by the limits of the settings."""

    def __init__(self, settings: ParseSettings) -> None:
        self._limits = (settings.max_url_chars, settings.max_host_chars)
        self._extensions = _extension_table(settings.refused_extensions)

    def judge(self, arena: ByteArena, urls: Spans, reasons: Bytes) -> None:
        """Sets the reasons of URLs beyond the limits."""
        findings = np.empty(urls[0].size, np.int32)
        check_urls(arena.data, urls, self._limits, self._extensions, findings)
        reasons[:] = _CODE_OF_FINDING[findings]


_CODE_OF_FINDING = np.zeros(4, np.uint8)
_CODE_OF_FINDING[LONG_HOST] = REASON_CODES[ParseReason.HOST_TOO_LONG]
_CODE_OF_FINDING[LONG_URL] = REASON_CODES[ParseReason.URL_TOO_LONG]
_CODE_OF_FINDING[BAD_EXTENSION] = REASON_CODES[ParseReason.URL_EXTENSION]


def _extension_table(extensions: tuple[str, ...]) -> Bytes:
    encoded = [extension.lower().encode() for extension in extensions]
    table = np.zeros((len(encoded), max(map(len, encoded), default=0) + 1), np.uint8)
    for row, extension in enumerate(encoded):
        table[row, : len(extension)] = list(extension)
    return table
