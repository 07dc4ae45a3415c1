from collections.abc import Iterator

import pytest

from laion_etl.report import png


@pytest.fixture(scope="package", autouse=True)
def small_figures() -> Iterator[None]:
    """Figures as PNG files are drawn small: most tests here publish, few look at them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(png, "WIDTH_PX", 90)
        yield
