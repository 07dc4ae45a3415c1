"""What a copy of a dataset elsewhere lacks, and which files it has that the current version does not have.

A copy has the layout of `dataset/<name>/`, with the files of the current version only: its manifest lists
those of all crawls. Nothing here talks to a server.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from laion_etl.core.errors import InputError
from laion_etl.core.stage_stats import Output
from laion_etl.dataset import manifest, versions
from laion_etl.dataset.joined_samples import is_joined
from laion_etl.dataset.versions import Release, dataset_folder, read_versions, versions_name
from laion_etl.io.storage import Store
from laion_etl.publish.commit import root_files

_MAX_FILES = 100  # of one commit: the Hub advises so
_MAX_BYTES = 5 << 30  # of one commit: what has to be sent again at most


@dataclass(frozen=True, slots=True)
class Remote:
    """A file of the copy: its SHA-256 if it is a large file, the id of its git blob in any case."""

    bytes: int
    sha256: str
    blob: str


@dataclass(frozen=True, slots=True)
class PushPlan:
    """Paths are relative to the dataset. `root` goes last: readers of the copy see complete versions."""

    release: Release
    files: tuple[tuple[str, Output], ...]
    root: tuple[tuple[str, bytes], ...]
    deleted: tuple[str, ...]
    unchanged: int

    @property
    def bytes(self) -> int:
        """The bytes that have to be sent."""
        return sum(file.bytes for _, file in self.files) + sum(len(data) for _, data in self.root)

    @property
    def commits(self) -> Iterator[Sequence[tuple[str, Output]]]:
        """Yield the files of each commit."""
        waiting: list[tuple[str, Output]] = []
        for path, file in self.files:
            size = sum(one.bytes for _, one in waiting)
            if waiting and (len(waiting) == _MAX_FILES or size + file.bytes > _MAX_BYTES):
                yield waiting
                waiting = []
            waiting.append((path, file))
        if waiting:
            yield waiting


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a copy of a dataset's current version has to have; `kept`: what it may have."""

    release: Release
    files: Mapping[str, Output]
    root: Mapping[str, bytes]
    kept: frozenset[str]
    folders: frozenset[str]

    def compare(self, remote: Mapping[str, Remote], store: Store) -> PushPlan:
        """Return what has to be sent and deleted; small files are read to compare them."""
        files = [
            (path, file) for path, file in self.files.items() if not _is_there(file, remote.get(path), store)
        ]
        root = [(path, data) for path, data in self.root.items() if not _is_same(data, remote.get(path))]
        ours = (path for path in remote if path.partition("/")[0] in self.folders)
        deleted = sorted(path for path in ours if path not in self.files and path not in self.kept)
        unchanged = len(self.files) + len(self.root) - len(files) - len(root)
        return PushPlan(self.release, tuple(files), tuple(root), tuple(deleted), unchanged)


def find_wanted(dataset: str, store: Store, *, samples: bool) -> Wanted:
    """List the files of the current version. `samples`: joined samples, which have images, as well.

    Raises InputError if nothing is published.
    """
    listed = read_versions(dataset, store)
    current = manifest.current_manifest(dataset, store)
    if current is None or listed.current is None:
        raise InputError(f"cannot push {dataset}: nothing is published; run `laion-etl stage publish` first")
    root = f"{dataset_folder(dataset)}/"
    all_files = {file.name.removeprefix(root): file for file in current.files}
    files = {
        path: Output(file.name, file.bytes, file.sha256)
        for path, file in all_files.items()
        if samples or not is_joined(file)
    }
    written = listed.current.manifest
    files[written.name.removeprefix(root)] = written
    at_root = {name.removeprefix(root): data for name, data in root_files(current.release, store).items()}
    at_root[versions.NAME] = store.read(versions_name(dataset))
    folders = {*listed.purged, *(one.version for one in listed.listed)}
    return Wanted(current.release, files, at_root, frozenset(all_files), frozenset(folders))


def _is_there(file: Output, found: Remote | None, store: Store) -> bool:
    if found is None or found.bytes != file.bytes:
        return False
    return found.sha256 == file.sha256 if found.sha256 else _is_same(store.read(file.name), found)


def _is_same(data: bytes, found: Remote | None) -> bool:
    if found is None:
        return False
    if found.sha256:
        return found.sha256 == hashlib.sha256(data).hexdigest()
    return found.blob == hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
