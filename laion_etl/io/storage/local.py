"""A store in a local folder: files are written under a temporary name, synced and renamed."""

import errno
import fcntl
import hashlib
import os
import stat
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from laion_etl.core.errors import StoreOutageError
from laion_etl.core.stage_stats import Output
from laion_etl.io.file_locks import folder_lock
from laion_etl.io.storage.errors import closed, storage_errors
from laion_etl.io.storage.store import MAX_GUARDED_TRIES, Guard, ListedFile, NewFile, Store

PARTIAL_SUFFIX = ".partial"
_NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EXDEV, errno.ENOSYS)
_LOCK_TIMEOUT_S = 10.0
_LOCK_POLL_S = 0.05


class LocalStore(Store):
    """A folder. Leftovers of killed writers are removed by the next writer of the same name."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def uri(self, name: str = "") -> str:
        return str(self.root / name)

    @contextmanager
    def create(self, name: str, guard: Guard | None = None) -> Iterator[NewFile]:
        path = self._at(name)
        partial = path.with_name(f".{path.name}.{uuid4().hex}{PARTIAL_SUFFIX}")
        try:
            with storage_errors("write", path):
                path.parent.mkdir(parents=True, exist_ok=True)
                _remove_leftovers(path)
                raw = partial.open("xb")
                fcntl.flock(raw, fcntl.LOCK_EX)  # shows that the writer is alive
            with closed(raw):
                yield NewFile(name, raw, self.uri(name))
                with storage_errors("write", path):
                    raw.flush()
                    os.fsync(raw.fileno())
                    if guard is None:
                        partial.replace(path)
                    else:
                        self._replace_guarded(name, partial, guard)
        except BaseException:
            with suppress(OSError):  # its own error would take the place of the cause
                partial.unlink(missing_ok=True)
            raise

    def _at(self, name: str) -> Path:
        return self.root / self._checked(name)

    def _replace_guarded(self, name: str, partial: Path, guard: Guard) -> None:
        path = self._at(name)
        for _ in range(MAX_GUARDED_TRIES):
            before = _status(path)
            guard()
            if _added(partial, path) if before is None else _replaced(partial, path, before):
                return
        raise self._changed(name)

    def open(self, name: str) -> BinaryIO:
        path = self._at(name)
        with storage_errors("read", path):
            return open(path, "rb", opener=self._opened)

    def _opened(self, path: str, flags: int) -> int:
        """Open a file of the store, and nothing else that another user of a shared folder may put there.

        A FIFO would block forever, and a link could lead to what only this user may read. Links within the
        store are followed, and folders may be links.
        """
        flags |= os.O_NONBLOCK | os.O_NOFOLLOW
        try:
            descriptor = os.open(path, flags)
        except OSError as error:
            target = Path(path).resolve()
            if error.errno != errno.ELOOP or not target.is_relative_to(self.root.resolve()):
                raise
            descriptor = os.open(target, flags)
        kind = os.fstat(descriptor).st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            os.close(descriptor)
            raise OSError(errno.ENOTSUP, "it is not a file; find out who put it there, and delete it")
        return descriptor

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        with self.open(name) as file:
            file.seek(offset)
            return file.read(size)

    def read_with_age(self, name: str) -> tuple[bytes, float]:
        with self.open(name) as file, storage_errors("read", self._at(name)):
            return file.read(), time.time() - os.fstat(file.fileno()).st_mtime

    def read_with_etag(self, name: str) -> tuple[bytes, str] | None:
        if not self.exists(name):
            return None
        data = self.read(name)
        return data, hashlib.sha256(data).hexdigest()

    def status(self, name: str) -> str | None:
        with storage_errors("look up", self._at(name)):
            status = _status(self._at(name))
        return None if status is None else _as_text(status)

    def swap(self, name: str, data: bytes, etag: str | None) -> Output:
        folder = self._at(name).parent
        with storage_errors("write", folder):
            folder.mkdir(parents=True, exist_ok=True)
        with folder_lock(folder):
            return self.write(name, data, lambda: self._check_etag(name, etag))

    def exists(self, name: str) -> bool:
        return self._at(name).is_file()

    def folders(self, prefix: str) -> list[str]:
        folder = self._at(prefix)
        with storage_errors("list", folder):
            return sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []

    def list(self, prefix: str) -> list[str]:
        folder = self._at(prefix)
        with storage_errors("list", folder):
            found = [p for p in folder.rglob("*") if p.is_file() and p.suffix != PARTIAL_SUFFIX]
        return sorted(p.relative_to(self.root).as_posix() for p in found)

    def etags(self, prefix: str, ending: str) -> dict[str, str]:
        folder, found = self._at(prefix), {}
        with storage_errors("list", folder):
            for path in folder.rglob(f"*{ending}"):
                if path.suffix != PARTIAL_SUFFIX and (status := _status(path)) is not None:
                    etag = _as_text(status)
                    found[path.relative_to(self.root).as_posix()] = etag
        return found

    def files(self, folder: str, first: str = "", last: str = "") -> Iterator[ListedFile]:
        place = self._at(folder)
        with storage_errors("list", place):
            found = sorted(entry.name for entry in os.scandir(place)) if place.is_dir() else []
        for name in found:
            if first <= name and (not last or name < last) and not name.endswith(PARTIAL_SUFFIX):
                with storage_errors("list", place):
                    status = _status(place / name)
                if status is not None:
                    yield ListedFile(f"{folder}/{name}", _as_text(status), status.st_size)

    def delete(self, name: str) -> None:
        with storage_errors("delete", self._at(name)):
            self._at(name).unlink(missing_ok=True)

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


def _added(partial: Path, path: Path) -> bool:
    """Rename a file unless the new name exists; return whether it was done. `rename` would replace it."""
    try:
        os.link(partial, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        if path.exists():
            return False
        partial.replace(path)
        return True
    partial.unlink(missing_ok=True)
    return True


def _replaced(partial: Path, path: Path, before: os.stat_result) -> bool:
    """Rename a file to a name whose file is still the one of `before`; return whether it was done.

    Of those who replace the same file one at a time compares and renames: they lock the file itself.
    """
    try:
        with path.open("r+b") as current:  # NFS locks only files that are open for writing
            _lock(current, path)
            if not _same(os.fstat(current.fileno()), before) or not _same(path.stat(), before):
                return False
            partial.replace(path)
            partial.unlink(missing_ok=True)  # `rename` leaves both names of one file, linked by a lost call
            return True
    except FileNotFoundError:
        return False


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return _version(one) == _version(other)


def _version(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _as_text(status: os.stat_result) -> str:
    return "-".join(map(str, _version(status)))


def _lock(file: BinaryIO, path: Path) -> None:
    """Lock a file; give up when its holder is suspended, and go without where there are no locks.

    An open file description lock (fcntl(2)), because the file's writer may still hold its flock().
    """
    whole_file = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    end = time.monotonic() + _LOCK_TIMEOUT_S
    while True:
        try:
            fcntl.fcntl(file, fcntl.F_OFD_SETLK, whole_file)
        except (BlockingIOError, PermissionError):  # EAGAIN or EACCES: another process has it
            if time.monotonic() > end:
                raise StoreOutageError(
                    f"cannot write {path}: a process that is suspended holds its lock; end that process"
                ) from None
            time.sleep(_LOCK_POLL_S)
        except OSError:
            return
        else:
            return


def _without_waiting(path: str, flags: int) -> int:
    """Open what may be a FIFO of another user of a shared folder."""
    return os.open(path, flags | os.O_NONBLOCK)


def _remove_leftovers(path: Path) -> None:
    """Deletes temporary files of the same name whose writer is dead (its lock is gone)."""
    for leftover in path.parent.glob(f".{path.name}.*{PARTIAL_SUFFIX}"):
        # Its writer may finish, or give up, right after it was listed.
        if leftover.is_symlink():
            continue  # no writer makes one
        with suppress(FileNotFoundError), open(leftover, "rb", opener=_without_waiting) as raw:
            try:
                fcntl.flock(raw, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # its writer is alive
            leftover.unlink(missing_ok=True)
