"""versions.json of a dataset: which of its versions are visible; the one that is listed last is current.

A version's folder is filled first, versions.json is replaced last, in one atomic write. A version that is
listed is never written to again, but for its report page; whatever lies in a folder that is not listed is
what a killed attempt left, and the next one overwrites it. So readers see one whole version or another.

Many crawls may be published into a dataset at once: whoever finds that the file was written since it was read
describes its version anew, beside what the dataset has by then. One crawl at a time is published by one.
"""

import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace

from laion_etl.core.errors import ChangedError, InputError, SettingsError
from laion_etl.core.stage_stats import Output
from laion_etl.io.storage import Store

NAME = "versions.json"
FORMAT = 1
_FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}\Z")


@dataclass(frozen=True, slots=True)
class Release:
    """A version of a dataset; raises SettingsError when name or version can't be a folder name."""

    name: str
    version: str

    def __post_init__(self) -> None:
        for what, value in (("dataset name", self.name), ("dataset version", self.version)):
            if not _FOLDER_NAME.match(value):
                raise SettingsError(f"{value!r} is no {what}: use letters, digits, dot, dash and underscore")

    @property
    def folder(self) -> str:
        return f"{dataset_folder(self.name)}/{self.version}"

    def file(self, name: str) -> str:
        """Name in the store of a file of this version."""
        return f"{self.folder}/{name}"


def dataset_folder(name: str) -> str:
    """Where a dataset lies in the store."""
    return f"dataset/{name}"


@dataclass(frozen=True, slots=True)
class Version:
    """A visible version, the crawl whose rows it was made for, and its manifest."""

    version: str
    crawl: str
    manifest: Output


@dataclass(frozen=True, slots=True)
class Versions:
    """The visible versions of a dataset, in the order of their making, and the names of purged ones.

    `mark`: of the file they were read from, None where there was none; see Store.swap.
    """

    dataset: str
    listed: tuple[Version, ...] = ()
    purged: tuple[str, ...] = ()
    mark: str | None = field(default=None, compare=False)

    @property
    def current(self) -> Version | None:
        return self.listed[-1] if self.listed else None

    def find(self, version: str) -> Version:
        """The version of a name, '' for the current one; raises InputError naming those there are."""
        found = [one for one in self.listed if version in ("", one.version)]
        if not found:
            known = ", ".join(one.version for one in self.listed) or "none"
            raise InputError(
                f"dataset {self.dataset} has no version {version or 'yet'} (it has: {known}); publish a "
                "crawl, or name another one"
            )
        return found[-1]

    def release(self, wanted: str) -> Release:
        """The folder of the next version: the name that is wanted, with a number where it is taken."""
        taken = {*self.purged, *(one.version for one in self.listed)}
        number, name = 1, wanted
        while name in taken:
            number += 1
            name = f"{wanted}.{number}"
        return Release(self.dataset, name)

    def with_version(self, version: Version) -> "Versions":
        return replace(self, listed=(*self.listed, version))

    def with_manifest(self, version: str, manifest: Output) -> "Versions":
        """The same versions, one of them with another manifest."""
        listed = (replace(one, manifest=manifest) if one.version == version else one for one in self.listed)
        return replace(self, listed=tuple(listed))

    def purge(self, names: frozenset[str]) -> "Versions":
        """Without some versions; their names are not given again."""
        listed = tuple(one for one in self.listed if one.version not in names)
        return replace(self, listed=listed, purged=tuple(sorted({*self.purged, *names})))


def is_named(version: str, wanted: str) -> bool:
    """Whether a version has the wanted name, or that with a number."""
    return re.fullmatch(rf"{re.escape(wanted)}(\.\d+)?", version) is not None


def versions_name(dataset: str) -> str:
    return f"{dataset_folder(dataset)}/{NAME}"


def read_versions(dataset: str, store: Store) -> Versions:
    """What is visible; raises InputError when the file is none of ours."""
    name = versions_name(dataset)
    if (found := store.read_with_etag(name)) is None:
        return Versions(dataset)
    data, mark = found
    try:
        document = json.loads(data)
        listed = tuple(
            Version(one["version"], one["crawl"], Output(**one["manifest"])) for one in document["versions"]
        )
        purged = tuple(document["purged"])
        for name in (*purged, *(one.version for one in listed)):
            Release(dataset, name)  # a name that would lead elsewhere is refused
    except (ValueError, KeyError, TypeError, SettingsError) as error:
        raise InputError(f"{store.uri(name)} is no list of versions ({error}); restore it") from error
    return Versions(dataset, listed, purged, mark)


def write_versions(versions: Versions, store: Store) -> Output:
    """Makes these the visible versions, at once; raises ChangedError where others were written meanwhile."""
    document = {
        "format": FORMAT,
        "name": versions.dataset,
        "current": versions.current.version if versions.current else None,
        "versions": [asdict(one) for one in versions.listed],
        "purged": list(versions.purged),
    }
    data = json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"
    return store.swap(versions_name(versions.dataset), data, versions.mark)


def change_versions(dataset: str, store: Store, change: Callable[[Versions], Versions]) -> Versions:
    """Makes what `change` gives visible, asking it again where others write the file meanwhile."""
    while True:
        changed = change(read_versions(dataset, store))
        with suppress(ChangedError):
            write_versions(changed, store)
            return changed
