"""The files of a crawl that hold links and images, as units, and the slices in which a locator is built.

A unit is what a removal rewrites together: the files of a batch (batch, shard, scored shard), the pairs of a
partition, or a published file. Each file has a tag that changes with its content: the ETag that the store
lists it with, of published files the SHA-256 in the manifest. A file is covered by a segment that was made
from it with the same tag; whatever replaced it since, the locator is not trusted for it and it is read.

The published files are those of the language subsets in the current version of each dataset: the other
subsets repeat their rows.
"""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from laion_etl.core.errors import DamagedFileError, InputError, MissingFileError
from laion_etl.core.ids import batch_name
from laion_etl.dataset.manifest import Manifest, current_manifest
from laion_etl.dataset.subsets import LANGUAGE_SUBSETS
from laion_etl.dataset.versions import versions_name
from laion_etl.io.planned import planned_batches
from laion_etl.io.storage import Store

BATCHES, PAIRS, PUBLISHED = "batches", "pairs", "published"
BATCH_FOLDERS = ("batches", "scored", "shards")
_BATCHES_PER_SLICE = 5_000
_FILES_PER_SLICE = {PAIRS: 16, PUBLISHED: 64}  # or more, in larger crawls, rather than more slices than this
_SLICES = 32
_PARQUET = ".parquet"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Slice:
    """Units of one kind by their names: from `first` up to but without `last`, '' without an end."""

    kind: str
    first: str = ""
    last: str = ""

    def holds(self, unit: str) -> bool:
        return self.first <= unit and (not self.last or unit < self.last)


def published_datasets(store: Store) -> list[str]:
    """Return the names of all datasets, in the order of their files."""
    found = (name for name in store.folders("dataset") if store.exists(versions_name(name)))
    return sorted(found, key=versions_name)


def slices(crawl: str, store: Store) -> list[Slice]:
    """Return the slices of a crawl; together they hold every unit, also ones that are still to come."""
    return [
        one
        for kind, names in (
            (BATCHES, _batch_names(crawl, store)),
            (PAIRS, [unit_of(name) for name, _ in _parquet_files(f"pairs/{crawl}", Slice(PAIRS), store)]),
            (PUBLISHED, [name for name, _ in _published_files(crawl, store)]),
        )
        for one in _cut(kind, names)
    ]


def files(crawl: str, part: Slice, store: Store) -> Iterator[tuple[str, str]]:
    """Yield name and tag of each file of a slice, folder by folder."""
    if part.kind == PUBLISHED:
        yield from (file for file in _published_files(crawl, store) if part.holds(file[0]))
        return
    for folder in BATCH_FOLDERS if part.kind == BATCHES else (PAIRS,):
        yield from _parquet_files(f"{folder}/{crawl}", part, store)


def located_crawls(store: Store) -> list[str]:
    """Return the crawls that have files of any kind, ascending."""
    found = {crawl for folder in (*BATCH_FOLDERS, PAIRS) for crawl in store.folders(folder)}
    return sorted(found.union(part.crawl for manifest in _manifests(store) for part in manifest.parts))


def check_has_files(crawl: str, store: Store) -> None:
    """Raise InputError for a crawl that has no files of any kind, as one with a misspelt name."""
    if crawl not in located_crawls(store):
        raise InputError(
            f"cannot locate {crawl}: the store has no files of it; compare the name with the folders in "
            f"{store.uri('pairs')}"
        )


def all_files(crawl: str, store: Store) -> Iterator[tuple[str, str]]:
    """Yield name and tag of each file of a crawl."""
    for kind in (BATCHES, PAIRS, PUBLISHED):
        yield from files(crawl, Slice(kind), store)


def unit_of(name: str) -> str:
    """Return the name of a file's unit: of a published file its name, of others without folder and ending."""
    return name if name.startswith("dataset/") else name.rpartition("/")[2].removesuffix(_PARQUET)


def cover(name: str, tag: str) -> int:
    """Return a number for a file with a tag, 64 bits of a hash."""
    digest = hashlib.blake2b(f"{name}\0{tag}".encode(), digest_size=8).digest()
    return int.from_bytes(digest)


def _cut(kind: str, names: Sequence[str]) -> list[Slice]:
    size = _BATCHES_PER_SLICE if kind == BATCHES else max(_FILES_PER_SLICE[kind], -(-len(names) // _SLICES))
    firsts = ["", *sorted(names)[size::size]]
    return [Slice(kind, first, last) for first, last in zip(firsts, [*firsts[1:], ""], strict=True)]


def _batch_names(crawl: str, store: Store) -> list[str]:
    try:
        return [batch_name(number) for number in planned_batches(crawl, store)]
    except MissingFileError:
        found = {unit_of(name) for name, _ in files(crawl, Slice(BATCHES), store)}
        return sorted(found)


def _parquet_files(folder: str, part: Slice, store: Store) -> Iterator[tuple[str, str]]:
    for file in store.files(folder, part.first, part.last):
        if file.name.endswith(_PARQUET):
            yield file.name, file.etag


def _published_files(crawl: str, store: Store) -> Iterator[tuple[str, str]]:
    for manifest in _manifests(store):
        for subset in LANGUAGE_SUBSETS:
            yield from ((file.name, file.sha256) for file in manifest.data_files(subset, crawl))


def _manifests(store: Store) -> Iterator[Manifest]:
    """Yield the current manifests. A damaged one is left out: removals report it where they read it."""
    for dataset in published_datasets(store):
        try:
            manifest = current_manifest(dataset, store)
        except (InputError, MissingFileError, DamagedFileError) as error:
            _log.warning("%s", error)
            continue
        if manifest is not None:
            yield manifest
