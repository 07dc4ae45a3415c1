"""Finds the licence of a page: its first link to a Creative Commons licence or public domain mark.

A link counts by its target (a deed or legal code of Creative Commons). `rel=license` (HTML 4.6.7.12) alone is
not enough: it may point to any terms. But if a page marks one of several Creative Commons links with it, that
one is the licence of the page, and the others belong to something on it.
"""

import re
from collections.abc import Iterable

NO_LICENCE = "?"  # LAION's value for "none found"

_HOST = r"(?:https?:)?//(?:www\.)?creativecommons\.org"
_LICENCE = re.compile(
    rf"{_HOST}/licen[cs]es/(by|by-sa|by-nd|by-nc|by-nc-sa|by-nc-nd|by-nd-nc|nc|nd|sa|nc-sa|nd-nc|devnations|"
    r"sampling\+?|nc-sampling\+)/(\d\.\d)(?![\d.])",
    re.IGNORECASE,
)
_PUBLIC_DOMAIN = re.compile(
    rf"{_HOST}/publicdomain/(zero|mark|certification)/(\d\.\d)(?![\d.])", re.IGNORECASE
)
_DEDICATION = re.compile(rf"{_HOST}/licen[cs]es/publicdomain(?![\w-])", re.IGNORECASE)
_KINDS = {"by-nd-nc": "by-nc-nd"}  # version 1.0 used another order than later versions


def page_licence(links: Iterable[tuple[str | None, str | None]]) -> str:
    """Returns the licence of (URL, rel) links like `https://creativecommons.org/licenses/by-sa/4.0/`, or '?'.

    Kind and version are kept; ports to countries (`3.0/de/`), languages and deeds are not.
    """
    first = NO_LICENCE
    for url, rel in links:
        licence = licence_of(url) if url else None
        if licence and rel and "license" in rel.lower().split():
            return licence
        if licence and first == NO_LICENCE:
            first = licence
    return first


def licence_of(url: str) -> str | None:
    """Returns the canonical URL of the licence or public domain mark that a URL points to."""
    if "creativecommons.org" not in url:
        return None
    url = url.strip()
    if found := _LICENCE.match(url):
        kind = found[1].lower()
        return f"https://creativecommons.org/licenses/{_KINDS.get(kind, kind)}/{found[2]}/"
    if found := _PUBLIC_DOMAIN.match(url):
        return f"https://creativecommons.org/publicdomain/{found[1].lower()}/{found[2]}/"
    if _DEDICATION.match(url):
        return "https://creativecommons.org/licenses/publicdomain/"
    return None
