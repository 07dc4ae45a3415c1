"""Finds links that cannot lead to an image: what scripts write for a missing value, and the page itself.

`undefined` and `null` are what JavaScript makes of a missing address, `None` what Python does. A link like
`#` or `page.html` on that page is a request for the page, which is HTML. One that has the page's URL in full
is kept: a custom source may give an image as its own page.
"""

import numpy as np

from laion_etl.core.byte_arena import ByteArena
from laion_etl.core.funnel import ParseReason
from laion_etl.core.kernels import Bytes, Ints
from laion_etl.core.reason_codes import REASON_CODES

Spans = tuple[Ints, Ints]

_MISSING = frozenset(
    slash + name for slash in (b"", b"/") for name in (b"undefined", b"null", b"NaN", b"None")
)
_LENGTHS = np.array(sorted({len(name) for name in _MISSING}), np.int32)


def judge_absent(arena: ByteArena, raw: Spans, urls: Spans, pages: Spans, reasons: Bytes) -> None:
    """Sets the reasons of such links; `raw`: the URLs as pages have them, `pages`: the URLs of the pages."""
    raw_lengths, lengths = raw[1] - raw[0], urls[1] - urls[0]
    # Few URLs have one of these lengths, so that texts are looked at for few.
    for row in np.flatnonzero(np.isin(raw_lengths, _LENGTHS)).tolist():
        if arena.bytes(raw[0][row], raw[1][row]) in _MISSING:
            reasons[row] = REASON_CODES[ParseReason.URL_INVALID]
    may_be_page = (lengths == pages[1] - pages[0]) & (raw_lengths != lengths)
    for row in np.flatnonzero(may_be_page).tolist():
        if arena.bytes(urls[0][row], urls[1][row]) == arena.bytes(pages[0][row], pages[1][row]):
            reasons[row] = REASON_CODES[ParseReason.URL_INVALID]
