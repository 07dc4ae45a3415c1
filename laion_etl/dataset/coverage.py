"""Which batches of a crawl are scored and which are missing, of any number of batches in little memory."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from typing import Any

from laion_etl.core.head_columns import HeadColumn, from_plain
from laion_etl.dataset.model_text import distinct_models


@dataclass(frozen=True, slots=True)
class Coverage:
    """What of a crawl is scored: as `ScoredCrawl`, with the batches as ranges, first and last number each.

    `thresholds_en`, `thresholds_other`: the similarities that scoring asked for, where its stats say so.
    `scores`: a digest of the fingerprints of all scored batches, by which a crawl scored again is noticed.
    Its size depends on the number of gaps, not of batches. Those of consecutive batches of a crawl merge.
    """

    crawl: str
    ranges: tuple[tuple[int, int], ...]
    planned: int | None
    missing: tuple[int, ...] = ()
    unplanned: tuple[int, ...] = ()
    partitions: int | None = None
    missing_partitions: tuple[int, ...] = ()
    damaged: tuple[int, ...] = ()
    models: tuple[str, ...] = ()
    columns: tuple[HeadColumn, ...] = ()
    safety: tuple[str, ...] = ()
    thresholds_en: tuple[float, ...] = ()
    thresholds_other: tuple[float, ...] = ()
    scores: str = ""
    other_models: tuple[str, ...] = ()  # of languages other than English, where they are not `models`
    without_other: int = 0  # batches that were scored without such a model

    @property
    def all_models(self) -> tuple[str, ...]:
        """All models that scored, those of other languages last."""
        return (*self.models, *(f"{model}, for other languages" for model in self.other_models))

    @property
    def has_several_models(self) -> bool:
        """Whether similarities are of several models, also of one for other languages in some batches."""
        mixed = bool(self.other_models) and self.without_other > 0
        return mixed or max(len(self.models), len(self.other_models)) > 1

    @property
    def count(self) -> int:
        """The number of scored batches."""
        return sum(last - first + 1 for first, last in self.ranges)

    @property
    def numbers(self) -> Iterator[int]:
        """The numbers of the scored batches, ascending."""
        return (number for first, last in self.ranges for number in range(first, last + 1))

    def merged(self, later: "Coverage") -> "Coverage":
        """Return this and that of later batches of the same crawl as one."""
        return replace(
            self,
            ranges=_joined([*self.ranges, *later.ranges]),
            planned=(self.planned or 0) + (later.planned or 0),
            missing=(*self.missing, *later.missing),
            damaged=(*self.damaged, *later.damaged),
            models=distinct_models([*self.models, *later.models]),
            safety=tuple(sorted({*self.safety, *later.safety})),
            thresholds_en=tuple(sorted({*self.thresholds_en, *later.thresholds_en})),
            thresholds_other=tuple(sorted({*self.thresholds_other, *later.thresholds_other})),
            scores=_summed([self.scores, later.scores]),
            other_models=distinct_models([*self.other_models, *later.other_models]),
            without_other=self.without_other + later.without_other,
        )

    def to_plain(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Coverage":
        """Read what `to_plain` returned. Raises KeyError, TypeError or ValueError."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()
        }
        ranges = tuple((int(first), int(last)) for first, last in plain["ranges"])
        return cls(**values | {"ranges": ranges, "columns": from_plain(plain["columns"])})


def digest_of_scores(fingerprints: Iterable[tuple[int, str]]) -> str:
    """Return a digest of batches, number and fingerprint each: a sum of hashes, to which parts add theirs."""
    return _summed(sha256(f"{number} {made}".encode()).hexdigest() for number, made in fingerprints)


def _summed(digests: Iterable[str]) -> str:
    return f"{sum(int(one, 16) for one in digests if one) % 2**256:064x}"


def number_ranges(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Return numbers as ranges, first and last each, ascending."""
    return list(_joined([(number, number) for number in sorted(numbers)]))


def _joined(ranges: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Return ascending ranges with those joined that have no number between them."""
    joined: list[tuple[int, int]] = []
    for first, last in ranges:
        if joined and first == joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    return tuple(joined)
