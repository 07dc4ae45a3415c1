from collections.abc import Iterator

import pytest

from laion_etl.report import png


@pytest.fixture(scope="package", autouse=True)
def small_figures() -> Iterator[None]:
    """Draw PNG figures small: most tests here publish, few look at the figures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(png, "WIDTH_PX", 90)
        yield
