"""The interface of a store, wherever its files are."""

import hashlib
import io
import logging
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import IO, BinaryIO, NamedTuple, Protocol

from laion_etl.core.errors import ChangedError, DamagedFileError, StorageError
from laion_etl.core.plain_json import NOT_AS_EXPECTED
from laion_etl.core.stage_stats import Output, StageStats
from laion_etl.io.storage.errors import storage_errors

_COPY_BYTES = 1 << 20
_log = logging.getLogger(__name__)
# Raises when the caller may not write any more; called right before a file becomes visible.
Guard = Callable[[], None]
# A guarded write that finds the name changed this often gives up: a former owner changes it once at most.
MAX_GUARDED_TRIES = 8


class ListedFile(NamedTuple):
    """A file of a listing. The ETag changes with the file."""

    name: str
    etag: str
    bytes: int


class NewFile(io.RawIOBase):
    """A file being written to a store: sequential, counted and hashed as it is written."""

    def __init__(self, name: str, raw: IO[bytes], uri: str) -> None:
        self.name = name
        self._uri = uri
        self._raw = raw
        self._sha256 = hashlib.sha256()
        self._bytes = 0

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        view = memoryview(data).cast("B")  # type: ignore[arg-type]
        with storage_errors("write", self._uri):
            self._raw.write(view)
        self._sha256.update(view)
        self._bytes += len(view)
        return len(view)

    def tell(self) -> int:
        return self._bytes

    def close(self) -> None:
        """Leaves the raw file open: the store makes it visible when the writer is done."""

    @property
    def output(self) -> Output:
        return Output(self.name, self._bytes, self._sha256.hexdigest())


class Watcher(Protocol):
    """Observer of unit starts and completions; a unit is identified by the name of its stats."""

    def begun(self, stats_name: str) -> None: ...

    def finished(self, stats_name: str, stats: StageStats) -> None: ...


class Store(ABC):
    """A place for files. Every method raises StorageError, which names the URI and what to do."""

    watcher: Watcher | None = None

    @abstractmethod
    def uri(self, name: str = "") -> str:
        """Returns the full URI of a name (a plain path for local stores)."""

    @abstractmethod
    def create(self, name: str, guard: Guard | None = None) -> AbstractContextManager[NewFile]:
        """Writes a file: `with store.create(name) as file:`. It becomes visible when the block ends.

        When the block or the guard raises, nothing becomes visible and an existing file of the name stays.
        With a guard the file replaces only what was there before the guard was called: a process that was
        suspended after its guard had passed does not replace what another one has written since. If the
        name has changed meanwhile, the guard is called again.
        """

    @abstractmethod
    def open(self, name: str) -> BinaryIO:
        """Returns a seekable reader."""

    @abstractmethod
    def read_range(self, name: str, offset: int, size: int) -> bytes:
        """Returns at most `size` bytes from an offset on; fewer at the end of the file."""

    @abstractmethod
    def read_with_etag(self, name: str) -> tuple[bytes, str] | None:
        """Returns the whole file and its ETag for `swap`; None if there is no such file."""

    @abstractmethod
    def status(self, name: str) -> str | None:
        """Returns what changes whenever the file is written, for `replace`; None if there is no such file."""

    @contextmanager
    def replace(self, name: str, status: str | None) -> Iterator[NewFile]:
        """Writes a file like `create` if its status is still this one; raises ChangedError otherwise."""

        def unchanged() -> None:
            if self.status(name) != status:
                raise self._changed(name)

        with self.create(name, unchanged) as file:
            yield file

    @abstractmethod
    def swap(self, name: str, data: bytes, etag: str | None) -> Output:
        """Writes a small file if its ETag is still this one (None: if there is no such file yet).

        Raises ChangedError otherwise. Of several processes that do this at once, one succeeds.
        """

    @abstractmethod
    def exists(self, name: str) -> bool: ...

    @abstractmethod
    def folders(self, prefix: str) -> list[str]:
        """Returns the names of the folders directly below a folder-like prefix, without it, ascending."""

    @abstractmethod
    def list(self, prefix: str) -> list[str]:
        """Returns the names below a folder-like prefix, ascending; unfinished files are left out."""

    @abstractmethod
    def etags(self, prefix: str, ending: str) -> dict[str, str]:
        """Returns those names of `list` that have an ending, each with an ETag: it changes with the file."""

    @abstractmethod
    def files(self, folder: str, first: str = "", last: str = "") -> Iterator[ListedFile]:
        """Yields the files directly in a folder, by name: those from `first` up to but without `last`
        ('': to the end). Holds few in memory, however many there are (S3).
        """

    @abstractmethod
    def delete(self, name: str) -> None:
        """Removes a file; a missing one is fine."""

    @abstractmethod
    def check(self) -> None:
        """Raises StorageError unless the store can be written."""

    def _checked(self, name: str) -> str:
        """Return a name, which may come from a file that another program made, unless it leads elsewhere."""
        if name.startswith("/") or ".." in name.split("/") or "\0" in name:
            raise StorageError(
                f"cannot use the name {name!r} in the store {self.uri()}: it leads out of the store; find "
                "out which file names it, and restore that file"
            )
        return name

    def _check_etag(self, name: str, etag: str | None) -> None:
        """Raises ChangedError unless the file has this ETag."""
        found = self.read_with_etag(name)
        if (found[1] if found else None) != etag:
            raise self._changed(name)

    def _changed(self, name: str) -> ChangedError:
        return ChangedError(f"cannot replace {self.uri(name)}: another process modified it meanwhile; retry")

    def read(self, name: str) -> bytes:
        with self.open(name) as file, storage_errors("read", self.uri(name)):
            return file.read()

    @abstractmethod
    def read_with_age(self, name: str) -> tuple[bytes, float]:
        """Return the bytes of a file, and how many seconds ago it was written.

        By the clock of the bucket's server, for those who write and read may have others. In a folder by this
        machine's clock and the time of the file, which a network file system takes from its own server.
        """

    def write(self, name: str, data: bytes, guard: Guard | None = None) -> Output:
        with self.create(name, guard) as file:
            file.write(data)
        return file.output

    def copy(self, source: Output, name: str, guard: Guard | None = None) -> None:
        """Copies a file to another name, as `create` would write it; in a bucket no bytes pass through here.

        Raises MissingFileError if there is no such file, DamagedFileError if bytes that pass are others.
        """
        with self.open(source.name) as file, self.create(name, guard) as new:
            shutil.copyfileobj(file, new, _COPY_BYTES)
            if new.output != replace(source, name=name):
                raise DamagedFileError(
                    f"cannot copy {self.uri(source.name)}: it is not that of its stats; run its stage again"
                )

    def write_stats(self, name: str, stats: StageStats, guard: Guard | None = None) -> StageStats:
        self.write(name, stats.to_json(), guard)
        if self.watcher is not None:
            self.watcher.finished(name, stats)
        return stats

    def read_stats(self, name: str) -> StageStats:
        """Returns the stats; raises MissingFileError, DamagedFileError, or InputError for a newer format."""
        return self._as_stats(name, self.read(name))

    def read_stats_with_etag(self, name: str) -> tuple[StageStats, str] | None:
        """Returns the stats and their ETag for `swap`; None if there are none. Raises like `read_stats`."""
        found = self.read_with_etag(name)
        return (self._as_stats(name, found[0]), found[1]) if found else None

    def _as_stats(self, name: str, data: bytes) -> StageStats:
        try:
            return StageStats.from_json(data, self.uri(name))
        except NOT_AS_EXPECTED as error:
            raise DamagedFileError(
                f"cannot read {self.uri(name)}: not a stats file ({error}); delete it and run the stage again"
            ) from error

    def finished(self, name: str, fingerprint: str) -> StageStats | None:
        """Returns the stats of a unit that is done with this fingerprint; else None, and the unit begins.

        A unit whose stats are damaged is not done: doing it again replaces them.
        """
        try:
            if self.exists(name) and (stats := self.read_stats(name)).fingerprint == fingerprint:
                return stats
        except DamagedFileError as error:
            _log.warning("%s; done again", error)
        self.begin(name)
        return None

    def begin(self, name: str) -> None:
        """Notifies the watcher that work on a unit begins; `write_stats` of the same name ends it."""
        if self.watcher is not None:
            self.watcher.begun(name)
