"""Finds the encoding that a page states; the queries of its URLs are in it (urls/legacy_queries.py).

As browsers do (HTML 13.2.3.2): the Content-Type header first, then the first meta element that names an
encoding. Names of no encoding are passed over. Where a page states none, browsers guess; here it then counts
as UTF-8.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

from laion_etl.core.encodings import is_known

_CHARSET = re.compile(r"charset\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s;\"']+))", re.IGNORECASE)


def page_charset(headers: object, metas: Iterable[Mapping[object, object]]) -> str:
    """Returns the label of the encoding of a page, '' if it states none.

    Args:
        headers: The headers of the response as a WAT record has them.
        metas: The attributes of its meta elements, in order.
    """
    return next(filter(is_known, chain(_served_as(headers), labels_in(metas))), "")


def _served_as(headers: object) -> Iterator[str]:
    for name, value in headers.items() if isinstance(headers, dict) else ():
        if isinstance(name, str) and name.strip().lower() == "content-type":
            yield from map(_named, value if isinstance(value, list) else [value])


def labels_in(metas: Iterable[Mapping[object, object]]) -> Iterator[str]:
    """Yields what meta elements say of the encoding, in order: labels, or anything else."""
    for meta in metas:
        stated = {str(name).lower(): value for name, value in meta.items()}
        charset = stated.get("charset")
        if isinstance(charset, str):
            yield charset.strip()
        if str(stated.get("http-equiv", "")).strip().lower() == "content-type":
            yield _named(stated.get("content"))


def _named(content_type: object) -> str:
    found = _CHARSET.search(content_type) if isinstance(content_type, str) else None
    return (found[1] or found[2] or found[3] or "").strip() if found else ""
