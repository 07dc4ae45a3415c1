"""versions.json of a dataset: which of its versions are visible; the one listed last is current.

A version's folder is filled first, versions.json is replaced last, in one atomic write. A listed version is
never written to again, except its report; files in an unlisted folder are left over from a killed attempt,
and the next attempt overwrites them. So readers always see one complete version.

Several crawls may be published into a dataset at once: a publisher that finds versions.json changed rewrites
its manifest to include the new versions and tries again. Each crawl has one publisher at a time.
"""

import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace

from laion_etl.core.errors import ChangedError, InputError, SettingsError
from laion_etl.core.formats import check_format
from laion_etl.core.plain_json import NOT_AS_EXPECTED, parse_json
from laion_etl.core.stage_stats import Output
from laion_etl.io.storage import Store

NAME = "versions.json"
FORMAT = 1
_FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}\Z")


@dataclass(frozen=True, slots=True)
class Release:
    """A version of a dataset; raises SettingsError if name or version is not a valid folder name."""

    name: str
    version: str

    def __post_init__(self) -> None:
        check_folder_name("dataset name", self.name)
        check_folder_name("dataset version", self.version)

    @property
    def folder(self) -> str:
        return f"{dataset_folder(self.name)}/{self.version}"

    def file(self, name: str) -> str:
        """Return the name in the store of a file of this version."""
        return f"{self.folder}/{name}"


def check_folder_name(what: str, value: str) -> None:
    """Raise SettingsError for a value that must not be part of a file's name: it could lead elsewhere."""
    if not _FOLDER_NAME.match(value):
        raise SettingsError(f"invalid {what} {value!r}: only letters, digits, '.', '_' and '-' are allowed")


def dataset_folder(name: str) -> str:
    """Return the folder of a dataset in the store."""
    return f"dataset/{name}"


@dataclass(frozen=True, slots=True)
class Version:
    """A visible version, the crawl whose rows it was made for, and its manifest."""

    version: str
    crawl: str
    manifest: Output


@dataclass(frozen=True, slots=True)
class Versions:
    """The visible versions of a dataset, oldest first, and the names of purged ones.

    `etag`: version of the file they were read from, None if there was no file; see Store.swap.
    """

    dataset: str
    listed: tuple[Version, ...] = ()
    purged: tuple[str, ...] = ()
    etag: str | None = field(default=None, compare=False)

    @property
    def current(self) -> Version | None:
        return self.listed[-1] if self.listed else None

    def find(self, version: str) -> Version:
        """Return a version by name, '' for the current one. Raises InputError listing the existing ones."""
        found = [one for one in self.listed if version in ("", one.version)]
        if not found:
            known = ", ".join(one.version for one in self.listed) or "none"
            raise InputError(
                f"cannot find version {version or 'current'} of dataset {self.dataset}: it has {known}; "
                "publish a crawl, or name another version"
            )
        return found[-1]

    def release(self, wanted: str) -> Release:
        """Return the next version: the wanted name, with a number appended if it is taken."""
        taken = {*self.purged, *(one.version for one in self.listed)}
        number, name = 1, wanted
        while name in taken:
            number += 1
            name = f"{wanted}.{number}"
        return Release(self.dataset, name)

    def with_version(self, version: Version) -> "Versions":
        return replace(self, listed=(*self.listed, version))

    def with_manifest(self, version: str, manifest: Output) -> "Versions":
        """Return the versions with the manifest of one of them replaced."""
        listed = (replace(one, manifest=manifest) if one.version == version else one for one in self.listed)
        return replace(self, listed=tuple(listed))

    def purge(self, names: frozenset[str]) -> "Versions":
        """Return the versions without some; their names are never reused."""
        listed = tuple(one for one in self.listed if one.version not in names)
        return replace(self, listed=listed, purged=tuple(sorted({*self.purged, *names})))


def is_named(version: str, wanted: str) -> bool:
    """Whether a version has the wanted name, with or without an appended number."""
    return re.fullmatch(rf"{re.escape(wanted)}(\.\d+)?", version) is not None


def versions_name(dataset: str) -> str:
    return f"{dataset_folder(dataset)}/{NAME}"


def read_versions(dataset: str, store: Store) -> Versions:
    """Read the visible versions. Raises InputError if the file is invalid or of a newer laion-etl."""
    name = versions_name(dataset)
    if (found := store.read_with_etag(name)) is None:
        return Versions(dataset)
    data, etag = found
    try:
        document = parse_json(data)
        check_format(store.uri(name), document.get("format"), FORMAT)
        listed = tuple(
            Version(one["version"], one["crawl"], Output(**one["manifest"])) for one in document["versions"]
        )
        purged = tuple(document["purged"])
        for version in (*purged, *(one.version for one in listed)):
            Release(dataset, version)  # refuses names that lead out of the folder
    except (*NOT_AS_EXPECTED, SettingsError) as error:
        raise InputError(
            f"cannot read {store.uri(name)}: it is not a list of versions ({error}); restore it"
        ) from error
    return Versions(dataset, listed, purged, etag)


def write_versions(versions: Versions, store: Store) -> Output:
    """Make these the visible versions, atomically. Raises ChangedError if the file has changed since."""
    document = {
        "format": FORMAT,
        "name": versions.dataset,
        "current": versions.current.version if versions.current else None,
        "versions": [asdict(one) for one in versions.listed],
        "purged": list(versions.purged),
    }
    data = json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"
    return store.swap(versions_name(versions.dataset), data, versions.etag)


def change_versions(dataset: str, store: Store, change: Callable[[Versions], Versions]) -> Versions:
    """Apply `change` to the visible versions; it is called again if another process writes the file first."""
    while True:
        changed = change(read_versions(dataset, store))
        with suppress(ChangedError):
            write_versions(changed, store)
            return changed
