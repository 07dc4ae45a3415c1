"""What a store is, wherever its files are."""

import hashlib
import io
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import IO, BinaryIO, Protocol

from laion_etl.core.errors import ChangedError, StorageError
from laion_etl.core.stage_stats import Output, StageStats
from laion_etl.io.storage.errors import storage_errors


class NewFile(io.RawIOBase):
    """A file being written to a store: sequential, counted and hashed on the way."""

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
        """Leaves the raw file open: the store publishes it once the writer is done."""

    @property
    def output(self) -> Output:
        return Output(self.name, self._bytes, self._sha256.hexdigest())


class Watcher(Protocol):
    """Who is told of units of work, by the name of their stats."""

    def begun(self, stats_name: str) -> None: ...

    def finished(self, stats_name: str, stats: StageStats) -> None: ...


class Store(ABC):
    """A place for files. Every method raises StorageError with the URI and what to do."""

    watcher: Watcher | None = None

    @abstractmethod
    def uri(self, name: str = "") -> str:
        """The full URI of a name (a plain path for local stores)."""

    @abstractmethod
    def create(self, name: str) -> AbstractContextManager[NewFile]:
        """`with store.create(name) as file:` writes a file that appears, whole, when the block ends.

        When the block raises, nothing appears and what stood there before stays.
        """

    @abstractmethod
    def open(self, name: str) -> BinaryIO:
        """A seekable reader."""

    @abstractmethod
    def read_range(self, name: str, offset: int, size: int) -> bytes:
        """At most `size` bytes from an offset on; fewer at the end of the file."""

    @abstractmethod
    def read_marked(self, name: str) -> tuple[bytes, str] | None:
        """The whole file with a mark for `swap`; None where there is none."""

    @abstractmethod
    def swap(self, name: str, data: bytes, mark: str | None) -> Output:
        """Writes a small file, if it is still the one with this mark (None: if there is none yet).

        Raises ChangedError where it is not. Of several processes that do this at once, one gets through.
        """

    @abstractmethod
    def exists(self, name: str) -> bool: ...

    @abstractmethod
    def folders(self, prefix: str) -> list[str]:
        """Names of the folders right below a folder-like prefix, without it, ascending."""

    @abstractmethod
    def list(self, prefix: str) -> list[str]:
        """Names below a folder-like prefix, ascending; unfinished files are not shown."""

    @abstractmethod
    def marks(self, prefix: str, ending: str) -> dict[str, str]:
        """Names like those of `list` with an ending, each with a mark that changes when the file does."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Removes a file; a missing one is fine."""

    @abstractmethod
    def check(self) -> None:
        """Raises StorageError unless the store can be written."""

    def _check_mark(self, name: str, mark: str | None) -> None:
        """Raises ChangedError unless the file is the one with this mark."""
        found = self.read_marked(name)
        if (found[1] if found else None) != mark:
            raise self._changed(name)

    def _changed(self, name: str) -> ChangedError:
        return ChangedError(f"{self.uri(name)} was written by somebody else meanwhile; try again")

    def read(self, name: str) -> bytes:
        with self.open(name) as file:
            return file.read()

    def write(self, name: str, data: bytes) -> Output:
        with self.create(name) as file:
            file.write(data)
        return file.output

    def write_stats(self, name: str, stats: StageStats) -> StageStats:
        self.write(name, stats.to_json())
        if self.watcher is not None:
            self.watcher.finished(name, stats)
        return stats

    def read_stats(self, name: str) -> StageStats:
        try:
            return StageStats.from_json(self.read(name))
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(
                f"{self.uri(name)} is no stats file ({error}); delete it and run the stage again"
            ) from error

    def finished(self, name: str, fingerprint: str) -> StageStats | None:
        """The stats of a unit that is already done with the same settings and inputs; else it begins."""
        if self.exists(name) and (stats := self.read_stats(name)).fingerprint == fingerprint:
            return stats
        self.begin(name)
        return None

    def begin(self, name: str) -> None:
        """A unit is worked on from now on, until `write_stats` of this name."""
        if self.watcher is not None:
            self.watcher.begun(name)
