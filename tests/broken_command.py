"""Runs a command that has a bug: python -m tests.broken_command."""

import sys

from laion_etl.cli import app
from laion_etl.command_line import run


@app.command("broken")
def broken() -> None:
    """Raise what no command expects, with a password in its message."""
    raise KeyError("postgresql://me:hidden@db/laion")


if __name__ == "__main__":
    sys.argv = ["laion-etl", "broken"]
    run()
