"""Figures of published versions: most of the CPU time of publishing, and few tests look at them."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import pytest

from laion_etl.publish import presentation
from laion_etl.report import contact_sheets, png

_png = lru_cache(maxsize=1_024)(png.png)
_thumbnail = lru_cache(maxsize=4_096)(contact_sheets.thumbnail)


@contextmanager
def small_figures() -> Iterator[None]:
    """Within the block figures are drawn small, and figures and thumbnails once for equal data."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(png, "WIDTH_PX", 90)
        patch.setattr(presentation, "png", _png)
        patch.setattr(contact_sheets, "thumbnail", _thumbnail)
        yield
