"""Finds the encoding that a page states; the queries of its URLs are in it (urls/legacy_queries.py).

As browsers do (HTML 13.2.3.2): the Content-Type header first, then the first meta element that names an
encoding. Where a page states none, browsers guess; here it then counts as UTF-8.
"""

import re
from collections.abc import Iterable, Mapping

_CHARSET = re.compile(r"charset\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s;\"']+))", re.IGNORECASE)


def page_charset(headers: object, metas: Iterable[Mapping[object, object]]) -> str:
    """Returns the label of the encoding of a page, '' if it states none.

    Args:
        headers: The headers of the response as a WAT record has them.
        metas: The attributes of its meta elements, in order.
    """
    if isinstance(headers, dict):
        for name, value in headers.items():
            if isinstance(name, str) and name.strip().lower() == "content-type":
                values = value if isinstance(value, list) else [value]
                if label := next((found for one in values if (found := _named(one))), ""):
                    return label
    for meta in metas:
        stated = {str(name).lower(): value for name, value in meta.items()}
        charset = stated.get("charset")
        if isinstance(charset, str) and charset.strip():
            return charset.strip()
        if str(stated.get("http-equiv", "")).strip().lower() == "content-type" and (
            label := _named(stated.get("content"))
        ):
            return label
    return ""


def _named(content_type: object) -> str:
    found = _CHARSET.search(content_type) if isinstance(content_type, str) else None
    return (found[1] or found[2] or found[3] or "").strip() if found else ""
