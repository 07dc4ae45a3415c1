"""What a confined process writes to its error output."""

import subprocess
import sys

import pytest


def test_what_a_taken_over_process_writes_controls_no_terminal_and_fills_no_log() -> None:
    """What it writes before it is confined, of its own start, is printed as it is."""
    command = [sys.executable, "-m", "tests.sandbox.noisy"]
    printed = subprocess.run(command, capture_output=True, check=True).stderr.decode()
    first, rest = printed.split("\n", 1)
    assert first == "\x1b[1mat its start"
    lines = rest.splitlines()
    assert lines[0].split() == ["]0;title", "a", "�", "line"]
    assert all(line.isprintable() for line in lines)
    assert max(map(len, lines)) <= 1_000
    assert "a line" in lines
    assert len(rest) < 1_100_000


@pytest.mark.parametrize("closed", ["2>&-", "2>/dev/full"])
def test_a_process_ends_where_its_error_output_goes_nowhere(closed: str) -> None:
    command = ["sh", "-c", f'"$0" -m tests.sandbox.noisy {closed}', sys.executable]
    assert subprocess.run(command, check=False, timeout=600).returncode == 0
