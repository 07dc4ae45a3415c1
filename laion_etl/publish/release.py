"""What the manifest, the card and the report are all made from."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from laion_etl import __version__
from laion_etl.errors import SettingsError
from laion_etl.overview import CrawlFunnel
from laion_etl.publish.contact import Band
from laion_etl.publish.scored import ScoredCrawl
from laion_etl.publish.statistics import Statistics
from laion_etl.publish.subsets import Subset
from laion_etl.settings import Settings

PIPELINE = f"laion_etl {__version__}"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}\Z")
_NUMBERS_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Release:
    """A version of a dataset; raises SettingsError when name or version can't be a folder name."""

    name: str
    version: str

    def __post_init__(self) -> None:
        for what, value in (("dataset name", self.name), ("dataset version", self.version)):
            if not _NAME.match(value):
                raise SettingsError(f"{value!r} is no {what}: use letters, digits, dot, dash and underscore")

    @property
    def folder(self) -> str:
        return f"dataset/{self.name}/{self.version}"

    def file(self, name: str) -> str:
        """Name in the store of a file of this version."""
        return f"{self.folder}/{name}"


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything known of a version once its rows have been read."""

    release: Release
    scored: ScoredCrawl
    settings: Settings
    subsets: tuple[Subset, ...]
    statistics: Statistics
    funnel: CrawlFunnel
    kept: tuple[Band, ...]
    rejected: tuple[Band, ...]

    @property
    def crawl(self) -> str:
        return self.scored.crawl

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know before trusting the numbers."""
        notes = []
        if self.scored.planned is None:
            notes.append("The crawl has no plan in the store, so missing batches can't be named.")
        if self.scored.missing:
            count, numbers = len(self.scored.missing), number_list(self.scored.missing)
            notes.append(f"Missing batches: {count:,} of {self.scored.planned:,} planned ({numbers}).")
        if self.scored.missing_partitions:
            count, numbers = len(self.scored.missing_partitions), number_list(self.scored.missing_partitions)
            notes.append(f"Missing partitions: {count:,} of {self.scored.partitions:,} ({numbers}).")
        if self.scored.unplanned:
            numbers = number_list(self.scored.unplanned)
            notes.append(f"Left out: scored batches that no plan names any more ({numbers}).")
        if len(self.scored.models) > 1:
            models = "; ".join(self.scored.models)
            notes.append(f"Scored by different models, so similarities do not compare: {models}.")
        return (*notes, *(f"Counts that do not join up: {problem}." for problem in self.funnel.problems))


def number_list(numbers: Iterable[int]) -> str:
    """The first numbers, and how many more there are."""
    listed = list(numbers)
    shown = ", ".join(str(number) for number in listed[:_NUMBERS_SHOWN])
    rest = len(listed) - _NUMBERS_SHOWN
    return f"{shown} and {rest:,} more" if rest > 0 else shown
