"""A store in a local folder: files are written under a temporary name, synced and renamed."""

import fcntl
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from laion_etl.core.stage_stats import Output
from laion_etl.io.file_locks import folder_lock
from laion_etl.io.storage.errors import storage_errors
from laion_etl.io.storage.store import NewFile, Store

PARTIAL_SUFFIX = ".partial"


class LocalStore(Store):
    """A folder. Leftovers of killed writers are removed by the next writer of the same name."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def uri(self, name: str = "") -> str:
        return str(self.root / name)

    @contextmanager
    def create(self, name: str) -> Iterator[NewFile]:
        path = self.root / name
        partial = path.with_name(f".{path.name}.{uuid4().hex}{PARTIAL_SUFFIX}")
        try:
            with storage_errors("write", path):
                path.parent.mkdir(parents=True, exist_ok=True)
                _remove_leftovers(path)
                raw = partial.open("xb")
                fcntl.flock(raw, fcntl.LOCK_EX)  # shows that the writer is alive
            with raw:
                yield NewFile(name, raw, self.uri(name))
                with storage_errors("write", path):
                    raw.flush()
                    os.fsync(raw.fileno())
                    partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    def open(self, name: str) -> BinaryIO:
        with storage_errors("read", self.root / name):
            return (self.root / name).open("rb")

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        with self.open(name) as file:
            file.seek(offset)
            return file.read(size)

    def read_with_etag(self, name: str) -> tuple[bytes, str] | None:
        if not self.exists(name):
            return None
        data = self.read(name)
        return data, hashlib.sha256(data).hexdigest()

    def swap(self, name: str, data: bytes, etag: str | None) -> Output:
        folder = (self.root / name).parent
        with storage_errors("write", folder):
            folder.mkdir(parents=True, exist_ok=True)
        with folder_lock(folder):
            self._check_etag(name, etag)
            return self.write(name, data)

    def exists(self, name: str) -> bool:
        return (self.root / name).is_file()

    def folders(self, prefix: str) -> list[str]:
        folder = self.root / prefix
        with storage_errors("list", folder):
            return sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []

    def list(self, prefix: str) -> list[str]:
        folder = self.root / prefix
        with storage_errors("list", folder):
            found = [p for p in folder.rglob("*") if p.is_file() and p.suffix != PARTIAL_SUFFIX]
        return sorted(p.relative_to(self.root).as_posix() for p in found)

    def etags(self, prefix: str, ending: str) -> dict[str, str]:
        folder, found = self.root / prefix, {}
        with storage_errors("list", folder):
            for path in folder.rglob(f"*{ending}"):
                if path.suffix != PARTIAL_SUFFIX and (status := _status(path)) is not None:
                    etag = f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}"
                    found[path.relative_to(self.root).as_posix()] = etag
        return found

    def delete(self, name: str) -> None:
        with storage_errors("delete", self.root / name):
            (self.root / name).unlink(missing_ok=True)

    def check(self) -> None:
        with storage_errors("write", self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass


def _status(path: Path) -> os.stat_result | None:
    """Returns the status of a file; None for anything else, and for one that was just deleted."""
    with suppress(FileNotFoundError):
        status = path.stat()
        return status if stat.S_ISREG(status.st_mode) else None
    return None


def _remove_leftovers(path: Path) -> None:
    """Deletes temporary files of the same name whose writer is dead (its lock is gone)."""
    for leftover in path.parent.glob(f".{path.name}.*{PARTIAL_SUFFIX}"):
        with leftover.open("rb") as raw:
            try:
                fcntl.flock(raw, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # its writer is alive
            leftover.unlink(missing_ok=True)
