"""What is counted while a WAT file is parsed."""

from collections import Counter
from dataclasses import dataclass, field

from laion_etl.core.funnel import Outcomes, ParseReason, RecordReason
from laion_etl.parse.internal_errors import InternalErrors

_DAMAGES_NAMED = 100


@dataclass(slots=True)
class FileCounts:
    """Counts of one WAT file, or of several together."""

    records: Outcomes[RecordReason] = field(default_factory=Outcomes)
    links: Outcomes[ParseReason] = field(default_factory=Outcomes)
    custom: Counter[str] = field(default_factory=Counter)  # links dropped by custom filters
    damaged: list[list[int]] = field(default_factory=list)  # WAT file, offset: the first damaged members
    errors: InternalErrors = field(default_factory=InternalErrors)

    @property
    def input(self) -> int:
        """Image links read."""
        return self.links.input + self.custom.total()

    @property
    def failed_links(self) -> int:
        """Links that a rule raised an exception for."""
        return self.dropped.get(ParseReason.INTERNAL_ERROR.value, 0)

    @property
    def failures(self) -> int:
        """Records and links that a rule raised an exception for."""
        return self.failed_links + self.records.count(RecordReason.INTERNAL_ERROR)

    @property
    def dropped(self) -> dict[str, int]:
        """Links per reason, most frequent first, ties by name."""
        both = Counter(self.links.dropped) + self.custom
        return dict(sorted(both.items(), key=lambda item: (-item[1], item[0])))

    def add(self, other: "FileCounts") -> None:
        self.records.add(other.records)
        self.links.add(other.links)
        self.custom.update(other.custom)
        self.name_damages(other.damaged)
        self.errors.add(other.errors)

    def name_damages(self, damaged: list[list[int]]) -> None:
        """Lists the first 100 damaged members; the others are only counted, in `records`."""
        self.damaged += damaged[: _DAMAGES_NAMED - len(self.damaged)]
