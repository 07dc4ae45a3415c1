"""Creative Commons licence links of a page; the first one becomes the licence of its pairs."""

import re
from collections.abc import Iterable

NO_LICENCE = "?"  # LAION's mark for "none seen"

_CREATIVE_COMMONS = re.compile(
    r"^(?:https?:)?//(?:www\.)?creativecommons\.org/(licenses|publicdomain)/([a-z0-9+-]+)/(\d\.\d)",
    re.IGNORECASE,
)


def page_licence(link_urls: Iterable[str]) -> str:
    """The licence as `https://creativecommons.org/licenses/by-sa/4.0/`, or '?'."""
    for url in link_urls:
        if found := _CREATIVE_COMMONS.match(url.strip()):
            kind, name, version = (part.lower() for part in found.groups())
            return f"https://creativecommons.org/{kind}/{name}/{version}/"
    return NO_LICENCE
