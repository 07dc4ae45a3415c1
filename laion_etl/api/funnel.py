"""What became of the records of a call."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Funnel:
    """Counts of records: `input` is `kept` and all of `dropped`, whose most frequent reason comes first."""

    input: int
    kept: int
    dropped: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in self.dropped.items())
        return f"{self.input:,} in, {self.kept:,} kept" + (f"; dropped: {reasons}" if reasons else "")
