from pathlib import Path

import pytest

from laion_etl.settings import SettingField, setting_fields
from scripts.docs import commands, metrics
from scripts.docs.reference import reference
from scripts.docs.reproduction import reproduction


def test_the_configuration_reference_is_current() -> None:
    page = Path(__file__).parents[1] / "docs" / "configuration.md"
    assert page.read_text() == reference(), "run `make docs`"


def test_the_command_reference_is_current() -> None:
    page = Path(__file__).parents[1] / "docs" / "commands.md"
    assert page.read_text() == commands.reference(), "run `make docs`"


def test_the_reference_of_metrics_and_alerts_is_current() -> None:
    page = Path(__file__).parents[1] / "docs" / "metrics.md"
    assert page.read_text() == metrics.reference(), "run `make docs`"


def test_the_reproduction_table_has_the_defaults_of_the_settings() -> None:
    page = Path(__file__).parents[1] / "docs" / "reproduction.md"
    assert page.read_text() == reproduction(), "run `make docs`"


@pytest.mark.parametrize("field", setting_fields(), ids=lambda field: field.variable)
def test_every_setting_is_in_the_reference_with_what_is_declared(field: SettingField) -> None:
    [row] = [line for line in reference().splitlines() if line.startswith(f"| `{field.variable}` |")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert len(cells) == 6
    _, default, unit, values, changes, meaning = cells
    declaration = field.declaration
    assert default.strip("`") == field.text(field.default)
    assert unit == declaration.unit
    assert declaration.range in values
    assert all(f"`{choice}`" in values for choice in declaration.choices if choice)
    assert changes == (declaration.changes or "")
    assert meaning.startswith(field.doc)
