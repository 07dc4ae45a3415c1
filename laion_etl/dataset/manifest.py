"""Reads manifest.json of a version: its parts (one per crawl) and its files.

Files are named relative to the version's folder; those written by an earlier version begin with `../`. A
manifest may come from an untrusted source: names that lead out of the dataset's folder are refused, and those
listed twice.
"""

import hashlib
import posixpath
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import itemgetter
from typing import Any

from laion_etl.core.errors import InputError, SettingsError
from laion_etl.core.formats import check_format
from laion_etl.core.head_columns import HeadColumn, from_plain
from laion_etl.core.plain_json import NOT_AS_EXPECTED, parse_json
from laion_etl.core.quantities import quantity
from laion_etl.core.schemas import DATASET_FILES
from laion_etl.core.stage_stats import StageStats
from laion_etl.dataset.subsets import DataFile
from laion_etl.dataset.versions import Release, Version, check_folder_name, dataset_folder, read_versions
from laion_etl.io.storage import Store

NAME = "manifest.json"
STATS = "_stats.json"
BATCH_RANGES = "numbers"  # of the batches of a part; version 0.1 did not write it
_OPTIONAL = ("columns", "removed", "scores", "evaluation_sets")
FORMAT = 2  # no release wrote 1, which had the rows of one crawl


@dataclass(frozen=True, slots=True)
class ManifestPart:
    """The rows of one crawl, and the version whose folder holds them."""

    crawl: str
    version: str
    fingerprint: str
    rows: int
    subsets: Mapping[str, int]
    dropped: Mapping[str, int]
    removals: tuple[str, ...]
    models: tuple[str, ...]
    settings: Mapping[str, Mapping[str, Any]]
    batches: Mapping[str, Any]
    partitions: Mapping[str, Any]
    columns: tuple[HeadColumn, ...] = ()  # of custom heads
    removed: int = 0  # samples that scoring kept and removals took out of the scored shards since
    scores: str = ""  # see Coverage
    evaluation_sets: Sequence[Mapping[str, Any]] = ()  # whose images no row is near

    def to_plain(self) -> dict[str, Any]:
        """Return plain JSON values; those that not every part has are left out where there are none."""
        plain = asdict(self)
        return {name: plain[name] for name in plain if plain[name] or name not in _OPTIONAL}


@dataclass(frozen=True, slots=True)
class Manifest:
    """A version of a dataset as its manifest describes it; file names are names in the store."""

    release: Release
    document: Mapping[str, Any]
    parts: tuple[ManifestPart, ...]
    files: tuple[DataFile, ...]

    def part(self, crawl: str) -> ManifestPart | None:
        return next((part for part in self.parts if part.crawl == crawl), None)

    def data_files(self, subset: str, crawl: str) -> list[DataFile]:
        """Return the parquet files of a subset that hold the rows of a crawl, in order."""
        return [file for file in self.files if (file.subset, file.crawl) == (subset, crawl)]

    @property
    def schema_number(self) -> int:
        """The number of the schema of the files that this version wrote; see DATASET_FILES."""
        return int(self.document.get("schema_format") or 1)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the files that this version wrote."""
        return tuple(column["name"] for column in self.document.get("schema", ()))

    @property
    def subsets(self) -> tuple[str, ...]:
        return tuple(subset["name"] for subset in self.document["subsets"])


def read_manifest(dataset: str, version: Version, store: Store) -> Manifest:
    """Read the manifest of a visible version. Raises InputError if it is not the committed one."""
    release = Release(dataset, version.version)
    name = release.file(NAME)
    data = store.read(name)
    if hashlib.sha256(data).hexdigest() != version.manifest.sha256:
        raise InputError(
            f"cannot read {store.uri(name)}: its SHA-256 is not the one in versions.json; restore it"
        )
    return parse_manifest(release, data, store.uri(name))


def parse_manifest(release: Release, data: bytes, uri: str) -> Manifest:
    """Parse a manifest. Raises InputError if it is not one, or was written by a newer laion-etl."""
    try:
        document = parse_json(data)
        check_format(uri, document.get("format"), FORMAT)
        check_format(uri, document.get("schema_format"), DATASET_FILES.number, "schema")
        parts = tuple(
            ManifestPart(
                **{
                    **part,
                    "removals": tuple(part["removals"]),
                    "models": tuple(part["models"]),
                    "columns": from_plain(part.get("columns", ())),
                }
            )
            for part in document["parts"]
        )
        files = tuple(
            DataFile(**{**file, "name": _resolved(release, file["name"])}) for file in document["files"]
        )
        _check_names(release, parts, files)
        return _checked(Manifest(release, document, parts, files))
    except (*NOT_AS_EXPECTED, SettingsError) as error:
        raise InputError(f"cannot read {uri}: it is not a manifest ({error}); restore it") from error


def _check_names(release: Release, parts: Sequence[ManifestPart], files: Sequence[DataFile]) -> None:
    """Raise SettingsError for names that could lead out of a folder, ValueError for repeated ones.

    Crawls and removals are parts of names of other files in the store, and a part or file is read as often as
    it is listed.
    """
    for part in parts:
        Release(release.name, part.version)
        check_folder_name("crawl", part.crawl)
        for removal in part.removals:
            check_folder_name("removal", removal)
    for file in files:
        if file.crawl:
            check_folder_name("crawl", file.crawl)
    for names in ([part.crawl for part in parts], [file.name for file in files]):
        name, count = max(Counter(names).items(), key=itemgetter(1), default=("", 0))
        if count > 1:
            raise ValueError(f"it lists {name} {quantity(count, 'time')}")


def _checked(manifest: Manifest) -> Manifest:
    """Return it unless a name or count in it is none: then raise one of NOT_AS_EXPECTED."""
    if not all(isinstance(name, str) for name in (*manifest.columns, *manifest.subsets)):
        raise ValueError("a column or a subset has a name that is not a text")
    counts = [part.rows for part in manifest.parts]
    counts += [file.rows for file in manifest.files if file.rows is not None]
    if not all(isinstance(count, int) and count >= 0 for count in counts):
        raise ValueError("a number of rows is not a count")
    return manifest


def current_manifest(dataset: str, store: Store) -> Manifest | None:
    """Read the manifest of the current version; None if nothing is published."""
    current = read_versions(dataset, store).current
    return read_manifest(dataset, current, store) if current else None


def published_part(dataset: str, crawl: str, store: Store) -> Release | None:
    """Return the version that holds the rows of a crawl listed in the dataset's current version."""
    manifest = current_manifest(dataset, store)
    part = manifest.part(crawl) if manifest else None
    return Release(dataset, part.version) if part else None


def published_stats(dataset: str, crawl: str, store: Store) -> StageStats | None:
    """Read the publish stats of a crawl in the current version."""
    release = published_part(dataset, crawl, store)
    return store.read_stats(release.file(STATS)) if release else None


def _resolved(release: Release, name: str) -> str:
    found = posixpath.normpath(f"{release.folder}/{name}")
    if not found.startswith(f"{dataset_folder(release.name)}/"):
        raise ValueError(f"{name!r} is outside the dataset")
    return found


def relative_name(file: str, release: Release) -> str:
    """Return the name of a file as it is written in the manifest of a version."""
    return posixpath.relpath(file, release.folder)
