"""What is counted while a WAT file is parsed."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from laion_etl.core.caption_source import SOURCES
from laion_etl.core.funnel import Outcomes, ParseReason, RecordReason
from laion_etl.core.kernels import Ints
from laion_etl.parse.internal_errors import InternalErrors

_DAMAGES_NAMED = 100


@dataclass(slots=True)
class SourceCounts:
    """Links by the source of their captions: those read, and those that are kept as pairs.

    Only where captions come from several sources: counting what has one would cost time and say nothing new.
    """

    is_counted: bool = False
    links: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, captions: Iterable[str]) -> "SourceCounts":
        """Returns the counts of files whose captions come from these sources."""
        return cls(len(set(captions)) > 1)

    def read(self, codes: Ints) -> None:
        """Counts links that are read."""
        if self.is_counted:
            for code, count in enumerate(np.bincount(codes).tolist()):
                self.links[SOURCES[code].value] += count

    def keep(self, pairs: pa.Table) -> None:
        """Counts pairs that are kept."""
        self._add(pairs, 1)

    def drop(self, pairs: pa.Table) -> None:
        """Takes back pairs that were counted as kept."""
        self._add(pairs, -1)

    def add(self, other: "SourceCounts") -> None:
        self.links.update(other.links)
        self.kept.update(other.kept)

    def to_plain(self) -> dict[str, dict[str, int]]:
        """Returns plain JSON values: for each source the links read and kept."""
        return {
            source.value: {"links": self.links[source.value], "kept": self.kept[source.value]}
            for source in SOURCES
            if self.links[source.value]
        }

    def _add(self, pairs: pa.Table, sign: int) -> None:
        if self.is_counted:
            for found in pc.value_counts(pairs["caption_source"]).to_pylist():
                self.kept[found["values"]] += sign * found["counts"]


@dataclass(slots=True)
class FileCounts:
    """Counts of one WAT file, or of several together."""

    records: Outcomes[RecordReason] = field(default_factory=Outcomes)
    links: Outcomes[ParseReason] = field(default_factory=Outcomes)
    custom: Counter[str] = field(default_factory=Counter)  # links dropped by custom filters
    damaged: list[list[int]] = field(default_factory=list)  # WAT file, offset: the first damaged members
    errors: InternalErrors = field(default_factory=InternalErrors)
    sources: SourceCounts = field(default_factory=SourceCounts)

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
        self.sources.add(other.sources)

    def name_damages(self, damaged: list[list[int]]) -> None:
        """Lists the first 100 damaged members; the others are only counted, in `records`."""
        self.damaged += damaged[: _DAMAGES_NAMED - len(self.damaged)]
