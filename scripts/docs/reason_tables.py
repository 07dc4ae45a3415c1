"""The tables of drop reasons in docs/formats.md, generated from laion_etl/core/funnel.py by `make docs`.

Each table is placed between `<!-- reasons: STAGE -->` and `<!-- end of reasons -->`.
"""

import re
import sys
from pathlib import Path

from laion_etl.core.funnel import STAGE_REASONS

_TABLE = re.compile(r"(<!-- reasons: (\w+) -->\n).*?(<!-- end of reasons -->)", re.DOTALL)


def with_tables(page: str) -> str:
    """Return the page with its tables regenerated. Raises KeyError for a stage without reasons."""
    return _TABLE.sub(lambda match: f"{match[1]}\n{reason_table(match[2])}\n{match[3]}", page)


def reason_table(stage: str) -> str:
    """Return a Markdown table of a stage's reasons and their meanings."""
    rows = [f"| {reason.value} | {reason.sentence} |" for reason in STAGE_REASONS[stage]]
    return "\n".join(["| reason | meaning |", "|---|---|", *rows]) + "\n"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        Path(name).write_text(with_tables(Path(name).read_text()))
