from pathlib import Path

from laion_etl.reference import reference
from laion_etl.reproduction import reproduction
from laion_etl.settings import setting_fields


def test_the_configuration_reference_is_current() -> None:
    page = Path(__file__).parents[1] / "docs" / "configuration.md"
    assert page.read_text() == reference(), "run `make docs`"


def test_the_reproduction_table_has_the_defaults_of_the_settings() -> None:
    page = Path(__file__).parents[1] / "docs" / "reproduction.md"
    assert page.read_text() == reproduction(), "run `make docs`"


def test_every_setting_is_in_the_reference() -> None:
    text = reference()
    for field in setting_fields():
        assert f"`{field.variable}`" in text
