"""The check of `make check` for modules that are too long."""

from scripts.check_length import is_too_long

LINES = "a = 1\n" * 299


def test_a_module_of_300_lines_passes_and_a_longer_one_needs_a_reason() -> None:
    assert not is_too_long('"""A module."""\n' + LINES)
    assert is_too_long('"""A module."""\n\n' + LINES)
    assert is_too_long('"""A module.\n\nLonger than 300 lines:\n"""\n' + LINES)
    assert not is_too_long('"""A module.\n\nLonger than 300 lines: it is one table.\n"""\n' + LINES)


def test_a_reason_is_not_found_outside_the_docstring() -> None:
    assert is_too_long('"""A module."""\n# Longer than 300 lines: really\n' + LINES)
