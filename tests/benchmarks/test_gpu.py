"""The script for a GPU: it stays within its time and lists what it skipped."""

import time

import pytest

from benchmarks.gpu import Budget, Result, missing_packages


def test_a_command_that_ends_in_time_gives_its_figures() -> None:
    budget = Budget(time.monotonic() + 600)
    assert budget.run("ours", ["printf", 'text\\n{"samples_per_s": 2.5}\\n']) == {"samples_per_s": 2.5}
    assert budget.skipped == []


def test_what_does_not_fit_into_the_time_is_named() -> None:
    budget = Budget(time.monotonic() - 1)
    assert budget.run("ours", ["false"]) == {}
    assert budget.skipped == ["ours"]


def test_a_command_that_fails_ends_the_script_with_its_error() -> None:
    with pytest.raises(SystemExit, match="cannot measure ours: exit code 2"):
        Budget(time.monotonic() + 600).run("ours", ["ls", "/nowhere/at/all"])


def test_shares_and_rates_of_a_core_are_worked_out() -> None:
    found = Result("ViT-B-32", 512, 8_000.0, 16_000.0, None, 0.9, 16, {}).to_plain()
    assert (found["share"], found["per_core"], found["bar"]) == (0.5, 500.0, "10,000 samples/s with 16 cores")
    assert Result("ViT-B-32", 512, None, 16_000.0, None, None, 16, {}).to_plain()["share"] is None


def test_nothing_is_installed_where_all_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing_packages() == [], "run `make setup`"
    monkeypatch.setattr("benchmarks.gpu._NEEDED", {"no_such_module": "no-such-package"})
    assert missing_packages() == ["no-such-package"]
