import pytest

from laion_etl.publish import png


@pytest.fixture(autouse=True)
def small_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures as PNG files are drawn small: most tests here publish, few look at them."""
    monkeypatch.setattr(png, "WIDTH_PX", 90)
