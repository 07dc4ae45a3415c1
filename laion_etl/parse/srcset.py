"""The largest image of a srcset (HTML 4.8.4.2.1): the one for the widest screen, or the densest."""

import re
from collections.abc import Iterable

_URL = re.compile(r"[\s,]*(\S+)")
_DESCRIPTOR = re.compile(r"\s*([0-9]{1,9}(?:\.[0-9]{1,9})?)([wx])(?:\s+[0-9]{1,9}h)?\s*")
_WIDTH_OF_DENSITY = 1_000  # of an image without any width, for comparing 1x with 800w of another set
_MAX_CANDIDATES = 200


def candidates(srcset: str) -> list[tuple[str, float]]:
    """Returns the URLs of a srcset with their sizes: widths in pixels, or 1,000 for each x of density.

    A URL ends at a space, or at a comma that a space follows; then comes a descriptor (2x, 800w), without
    which it is 1x. One with another descriptor, or of an image in the page itself, is left out.
    """
    found: list[tuple[str, float]] = []
    position = 0
    while len(found) < _MAX_CANDIDATES and (match := _URL.match(srcset, position)):
        url, position = match[1].rstrip(","), match.end()
        described = "1x"
        if not match[1].endswith(","):
            end = srcset.find(",", position)
            end = len(srcset) if end < 0 else end
            described, position = srcset[position:end].strip() or "1x", end
        size = _DESCRIPTOR.fullmatch(described)
        if size is not None and url and not url.lower().startswith("data:"):
            found.append((url, float(size[1]) * (_WIDTH_OF_DENSITY if size[2] == "x" else 1)))
    return found


def largest(srcsets: Iterable[str]) -> str | None:
    """Returns the URL of the largest image of some sets, of equal ones the first; None if they have none."""
    found = [candidate for srcset in srcsets for candidate in candidates(srcset)]
    return max(found, key=lambda candidate: candidate[1])[0] if found else None
