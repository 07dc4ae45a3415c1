"""Check that each module has at most 300 lines; exit with 1 and list those that are longer.

    python scripts/check_length.py

A longer module passes if its docstring has a line that begins with "Longer than 300 lines:" and says why.
"""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("laion_etl", "dags", "plugins", "scripts")
MAX_LINES = 300
REASON = f"Longer than {MAX_LINES} lines: "


def is_too_long(text: str) -> bool:
    """Whether a module is longer than allowed and its docstring does not say why."""
    if len(text.splitlines()) <= MAX_LINES:
        return False
    docstring = ast.get_docstring(ast.parse(text)) or ""
    return not any(line.startswith(REASON) and line != REASON for line in docstring.splitlines())


def main() -> int:
    """Return the exit code: 1 when a module is too long."""
    paths = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    long = [path for path in paths if is_too_long(path.read_text())]
    for path in long:
        lines = len(path.read_text().splitlines())
        print(f"{path.relative_to(ROOT)}: {lines} lines; split it, or say why in its docstring: {REASON}...")
    return 1 if long else 0


if __name__ == "__main__":
    sys.exit(main())
