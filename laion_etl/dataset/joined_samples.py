"""Names and counts of the joined samples of a version: those of many scored shards in one tar.

`samples/<crawl>-NNNNN.tar` of a version has a parquet file with a row for each sample, in the same order, and
the embeddings of its images and captions. Those of a range of batches have its number before their own.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from laion_etl.dataset.number_runs import runs_of
from laion_etl.dataset.subsets import DataFile

FOLDER = "samples"
TAR, PARQUET = ".tar", ".parquet"
IMAGE_EMBEDDINGS, TEXT_EMBEDDINGS = "_img_emb.npy", "_text_emb.npy"
EMBEDDINGS = (IMAGE_EMBEDDINGS, TEXT_EMBEDDINGS)
_MAX_ERRORS = 100  # that a version records; the log has all


def stem_of(folder: str, crawl: str, number: int, range_number: int | None) -> str:
    """Return the name, without ending, of the files of one tar; `folder`: that of the version."""
    of_range = "" if range_number is None else f"-{range_number:05d}"
    return f"{folder}/{FOLDER}/{crawl}{of_range}-{number:05d}"


def is_joined(file: DataFile) -> bool:
    """Whether a file of a version has joined samples, their rows or their embeddings."""
    return not file.subset and bool(file.crawl) and PurePosixPath(file.name).parent.name == FOLDER


def split_name(name: str) -> tuple[str, str]:
    """Return stem and ending of a file of joined samples. Raises ValueError if it is none."""
    for ending in (*EMBEDDINGS, TAR, PARQUET):
        if name.endswith(ending):
            return name.removesuffix(ending), ending
    raise ValueError(f"{name} is not a file of joined samples")


def range_of(file: DataFile) -> int:
    """Return the number of the range of batches that a file of joined samples is from, 0 for all batches."""
    numbers = split_name(PurePosixPath(file.name).name)[0].removeprefix(f"{file.crawl}-").split("-")
    return int(numbers[0]) if len(numbers) > 1 else 0


@dataclass(slots=True)
class Joined:
    """The number of samples that were joined, and what was left out: samples of shards that are damaged.

    `errors`: the first of them, as batch and cause, by batch. `damaged`: all batches whose shard cannot be
    read; one whose tar can be read, and lacks a sample, is not among them.
    """

    samples: int = 0
    left_out: int = 0
    batches_left_out: int = 0
    errors: list[tuple[int, str]] = field(default_factory=list)
    damaged: list[int] = field(default_factory=list)

    def leave_out(self, batch: int, samples: int, error: str) -> None:
        """Count the samples of a batch that cannot be read."""
        self.left_out += samples
        self.batches_left_out += 1
        self._note(batch, error)

    def merge(self, later: "Joined") -> None:
        """Add the counts of the batches that follow."""
        self.samples += later.samples
        self.left_out += later.left_out
        self.batches_left_out += later.batches_left_out
        for batch, error in later.errors:
            self._note(batch, error)
        self.damaged += later.damaged

    def to_plain(self) -> dict[str, Any]:
        """Return plain JSON values."""
        errors = [{"batch": batch, "error": error} for batch, error in self.errors]
        return {
            "joined": self.samples,
            "left_out": self.left_out,
            "batches_left_out": self.batches_left_out,
            "errors": errors,
            "damaged": [list(run) for run in runs_of(sorted(self.damaged))],
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Joined":
        """Read what `to_plain` returned. Raises KeyError, TypeError or ValueError."""
        errors = [(int(one["batch"]), str(one["error"])) for one in plain["errors"]]
        return cls(
            int(plain["joined"]),
            int(plain["left_out"]),
            int(plain["batches_left_out"]),
            errors,
            list(damaged_batches(plain)),
        )

    def _note(self, batch: int, error: str) -> None:
        if len(self.errors) < _MAX_ERRORS:
            self.errors.append((batch, error))


def damaged_batches(plain: Mapping[str, Any]) -> Iterator[int]:
    """Yield the batches whose shards could not be read, from what `Joined.to_plain` returned.

    An earlier version did not record them.
    """
    for first, step, count in plain.get("damaged", ()):
        yield from range(first, first + step * count, step)
