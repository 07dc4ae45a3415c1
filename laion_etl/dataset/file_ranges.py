"""The files of a version by the range of batches that they were published in.

Ranges hold the rows of different batches, so what reads a whole version can work on them side by side, on one
machine or many. A crawl that was published at once is one range, number 0.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TypeVar

from laion_etl.dataset.joined_samples import is_joined, range_of
from laion_etl.dataset.manifest import Manifest
from laion_etl.dataset.subsets import DataFile

# The last one is what version 0.1 named the hashes of images.
_NUMBER = re.compile(r"(?:part-(\d{5})-\d+\.parquet|_image_hashes-(\d{5})\.pq|_pictures-(\d{5})\.parquet)\Z")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FileRange:
    """The data files of one range of a crawl, in the order of the manifest."""

    crawl: str
    number: int
    files: tuple[DataFile, ...]

    def data_files(self, subset: str) -> list[DataFile]:
        """Return the files of a subset, in order."""
        return [file for file in self.files if file.subset == subset]


def file_ranges(manifest: Manifest) -> tuple[FileRange, ...]:
    """Return the ranges of a version, by crawl and number; cards and other files are in none."""
    found: dict[tuple[str, int], list[DataFile]] = {}
    for file in manifest.files:
        if file.crawl:
            found.setdefault((file.crawl, _number(file)), []).append(file)
    return tuple(FileRange(crawl, number, tuple(found[crawl, number])) for crawl, number in sorted(found))


def share(of: Sequence[T], number: int, total: int) -> Sequence[T]:
    """Return part `number` of `total`, counted from 1: every `total`-th."""
    return of[number - 1 :: total]


def _number(file: DataFile) -> int:
    if is_joined(file):
        return range_of(file)
    match = _NUMBER.match(PurePosixPath(file.name).name)
    return int(match[match.lastindex or 0]) if match else 0
