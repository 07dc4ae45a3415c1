"""Finds the licence of a page: its first link to a Creative Commons licence or public domain mark.

A link counts by its target (a deed or legal code of Creative Commons), read as browsers read it (WHATWG URL):
host in any case, with port, escapes resolved, line breaks left out. `rel=license` (HTML 4.6.7.12) alone is
not enough: it may point to any terms. But if a page marks one of several Creative Commons links with it, that
one is the licence of the page, and the others belong to something on it. Next comes one that a meta element
states (`dcterms.license`, `name=license`, `og:license` and their like, by its URL or a text with that), which
speaks of the page, too.
"""

import re
from collections.abc import Iterable
from urllib.parse import unquote

import ada_url

NO_LICENCE = "?"  # LAION's value for "none found"

# The host as it may be in JSON, lower case. Browsers take dots and letters of East Asian scripts for those
# of ASCII (UTS 46), resolve percent escapes, and leave out line breaks and invisible characters: any of these
# may stand before or behind "commons", which has to be whole. The kernel (records.py) has the same rule.
_COMMONS = re.compile(
    rb"commons(?=[.%\\\x80-\xff])(?:(?<=ecommons)|(?<=[\x80-\xff]commons)|(?<=\\.commons)|(?<=\\u.{4}commons)"
    rb"|(?<=%..commons))",
    re.DOTALL,
)
_HOSTS = ("creativecommons.org", "www.creativecommons.org")
_ELSEWHERE = "https://page.invalid/"  # what a link without a host belongs to
_LICENCE = re.compile(
    r"/licen[cs]es/(by|by-sa|by-nd|by-nc|by-nc-sa|by-nc-nd|by-nd-nc|nc|nd|sa|nc-sa|nd-nc|devnations|"
    r"sampling\+?|nc-sampling\+)/(\d\.\d)(?![\d.])",
    re.IGNORECASE | re.ASCII,
)
_PUBLIC_DOMAIN = re.compile(
    r"/publicdomain/(zero|mark|certification)/(\d\.\d)(?![\d.])", re.IGNORECASE | re.ASCII
)
_DEDICATION = re.compile(r"/licen[cs]es/publicdomain(?![\w-])", re.IGNORECASE | re.ASCII)
_KINDS = {"by-nd-nc": "by-nc-nd"}  # version 1.0 used another order than later versions

# `license`, `dcterms.license`, `DC.Rights.License`, `og:license`; not `og:image:license`: that of an image.
_META = re.compile(
    r"(?!.*(?<![a-z])(?:image|photo|video|audio)(?![a-z]))(?:.*[.:_-])?"
    r"(?:licen[cs]e|rights|copyright)(?:[._-]?ur[il])?",
    re.IGNORECASE | re.DOTALL,
)
_IN_A_TEXT = re.compile(r"(?:https?:)?//[^\s\"'<>]+", re.IGNORECASE)


def names_commons(payload: bytes) -> bool:
    """Whether the JSON of a page may name the host of Creative Commons."""
    return _COMMONS.search(payload.lower()) is not None


def may_have_licence(url: str) -> bool:
    """Whether a URL may be one of Creative Commons."""
    return "commons" in url.lower()


def page_licence(
    links: Iterable[tuple[str | None, str | None]], metas: Iterable[tuple[str | None, str | None]] = ()
) -> str:
    """Returns the licence of a page like `https://creativecommons.org/licenses/by-sa/4.0/`, or '?'.

    Kind and version are kept; ports to countries (`3.0/de/`), languages and deeds are not.

    Args:
        links: URL and rel of the links of the page, in order.
        metas: Name (or property) and content of its meta elements, in order.
    """
    first = NO_LICENCE
    for url, rel in links:
        licence = licence_of(url) if url else None
        if licence and rel and "license" in rel.lower().split():
            return licence
        if licence and first == NO_LICENCE:
            first = licence
    for name, content in metas:
        if name and content and _META.fullmatch(name.strip()) and (licence := _stated(content)):
            return licence
    return first


def _stated(content: str) -> str | None:
    """Returns the licence that the content of a meta element is the URL of, or has a URL of in its text."""
    return next(
        (found for url in (content, *_IN_A_TEXT.findall(content)) if (found := licence_of(url))), None
    )


def licence_of(url: str) -> str | None:
    """Returns the canonical URL of the licence or public domain mark that a URL points to."""
    if not may_have_licence(url):
        return None
    try:
        parsed = ada_url.URL(url, base=_ELSEWHERE)
    except ValueError:
        return None
    if parsed.hostname.removesuffix(".") not in _HOSTS or parsed.protocol not in ("http:", "https:"):
        return None
    path = unquote(parsed.pathname)
    if found := _LICENCE.match(path):
        kind = found[1].lower()
        return f"https://creativecommons.org/licenses/{_KINDS.get(kind, kind)}/{found[2]}/"
    if found := _PUBLIC_DOMAIN.match(path):
        return f"https://creativecommons.org/publicdomain/{found[1].lower()}/{found[2]}/"
    if _DEDICATION.match(path):
        return "https://creativecommons.org/licenses/publicdomain/"
    return None
