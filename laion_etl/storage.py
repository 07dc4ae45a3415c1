"""The one door to files: a local folder or s3://bucket/prefix behind the same small interface.

Names inside a store are relative and use '/'. A file becomes visible only when it is complete:
locally it is written under a temporary name in the same folder, synced and renamed; on S3 it is
spooled to local disk and sent in one upload (multipart when large), which S3 shows only when finished.
"""

import errno
import fcntl
import hashlib
import io
import os
import stat
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Protocol, cast
from urllib.parse import urlsplit
from uuid import uuid4

from laion_etl.errors import StorageError
from laion_etl.stats import Output, StageStats

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PARTIAL_SUFFIX = ".partial"
_COPIED_AT_ONCE = 1 << 22


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
                fcntl.flock(raw, fcntl.LOCK_EX)  # tells a living writer from a leftover
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

    def marks(self, prefix: str, ending: str) -> dict[str, str]:
        folder, found = self.root / prefix, {}
        with storage_errors("list", folder):
            for path in folder.rglob(f"*{ending}"):
                if path.suffix != PARTIAL_SUFFIX and (status := _status(path)) is not None:
                    mark = f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}"
                    found[path.relative_to(self.root).as_posix()] = mark
        return found

    def delete(self, name: str) -> None:
        with storage_errors("delete", self.root / name):
            (self.root / name).unlink(missing_ok=True)

    def check(self) -> None:
        with storage_errors("write", self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass


class S3Store(Store):
    """A prefix in a bucket, through boto3 (AWS_ENDPOINT_URL and the usual credentials are honoured)."""

    def __init__(self, bucket: str, prefix: str, client: "S3Client") -> None:
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._client = client

    def uri(self, name: str = "") -> str:
        return f"s3://{self._bucket}/{self._prefix}{name}"

    @contextmanager
    def create(self, name: str) -> Iterator[NewFile]:
        with tempfile.TemporaryFile() as spool:
            yield NewFile(name, spool, self.uri(name))
            with storage_errors("write", self.uri(name)):
                spool.seek(0)
                self._client.upload_fileobj(spool, self._bucket, self._prefix + name)

    def open(self, name: str) -> BinaryIO:
        with storage_errors("read", self.uri(name)):
            spool = tempfile.TemporaryFile()  # noqa: SIM115 - handed to the caller
            try:
                self._client.download_fileobj(self._bucket, self._prefix + name, spool)
            except BaseException:
                spool.close()
                raise
            spool.seek(0)
            return cast("BinaryIO", spool)

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        wanted = f"bytes={offset}-{offset + size - 1}"
        with storage_errors("read", self.uri(name)):
            found = self._client.get_object(Bucket=self._bucket, Key=self._prefix + name, Range=wanted)
            return found["Body"].read()

    def exists(self, name: str) -> bool:
        with storage_errors("look up", self.uri(name)):
            try:
                self._client.head_object(Bucket=self._bucket, Key=self._prefix + name)
            except self._client.exceptions.ClientError as error:
                if error.response.get("Error", {}).get("Code") in {"404", "NoSuchKey", "NotFound"}:
                    return False
                raise
            return True

    def folders(self, prefix: str) -> list[str]:
        with storage_errors("list", self.uri(prefix)):
            pages = list(self._pages(prefix, Delimiter="/"))
        found = [entry["Prefix"] for page in pages for entry in page.get("CommonPrefixes", [])]
        return sorted(name.rstrip("/").rpartition("/")[2] for name in found)

    def list(self, prefix: str) -> list[str]:
        return sorted(self.marks(prefix, ""))

    def marks(self, prefix: str, ending: str) -> dict[str, str]:
        with storage_errors("list", self.uri(prefix)):
            entries = [e for page in self._pages(prefix) for e in page.get("Contents", [])]
        marks = {e["Key"].removeprefix(self._prefix): e["ETag"] for e in entries}
        return {name: mark for name, mark in marks.items() if name.endswith(ending)}

    def _pages(self, prefix: str, **options: Any) -> Iterator[Any]:
        folder = self._prefix + (f"{prefix.strip('/')}/" if prefix.strip("/") else "")
        pages = self._client.get_paginator("list_objects_v2")
        yield from pages.paginate(Bucket=self._bucket, Prefix=folder, **options)

    def delete(self, name: str) -> None:
        with storage_errors("delete", self.uri(name)):
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + name)

    def check(self) -> None:
        with storage_errors("write", self.uri()):
            self._client.list_objects_v2(Bucket=self._bucket, MaxKeys=1)


def local_copy(store: Store, output: Output, folder: Path) -> Path:
    """A file of the store as a local one: itself in a folder, else fetched once into `folder` and checked.

    Raises StorageError when what was fetched has other bytes.
    """
    if isinstance(store, LocalStore):
        return store.root / output.name
    cache = LocalStore(folder)
    name = f"{output.sha256}{Path(output.name).suffix}"
    if not cache.exists(name):
        with cache.create(name) as copy, store.open(output.name) as file:
            while data := file.read(_COPIED_AT_ONCE):
                copy.write(data)
            if copy.output.sha256 != output.sha256:
                raise StorageError(f"{store.uri(output.name)} is not what its stats say; make it again")
    return folder / name


def _status(path: Path) -> os.stat_result | None:
    """Of a file; None for anything else, and for one that has just gone."""
    with suppress(FileNotFoundError):
        status = path.stat()
        return status if stat.S_ISREG(status.st_mode) else None
    return None


def open_store(uri: str) -> Store:
    """The store at a folder path or s3://bucket/prefix."""
    if not uri.startswith("s3://"):
        return LocalStore(Path(uri.removeprefix("file://")).expanduser().absolute())
    parts = urlsplit(uri)
    if not parts.netloc:
        raise StorageError(f"{uri} names no bucket; write s3://bucket/prefix")
    return S3Store(parts.netloc, parts.path, s3_client())


@cache
def s3_client() -> "S3Client":
    """One S3 client per process; boto3 reads region, endpoint and credentials from the environment."""
    import boto3
    from botocore.config import Config

    return boto3.client("s3", config=Config(**_S3_CONFIG))


@cache
def s3_reader() -> "S3Client":
    """The client for what others publish: without credentials it asks anonymously, for public buckets."""
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    session = boto3.Session()
    if session.get_credentials() is not None:
        return s3_client()
    region = session.region_name or "us-east-1"  # Common Crawl's
    return boto3.client("s3", region, config=Config(**_S3_CONFIG, signature_version=UNSIGNED))


_S3_CONFIG: dict[str, Any] = {"retries": {"max_attempts": 5, "mode": "standard"}, "connect_timeout": 10}


def _remove_leftovers(path: Path) -> None:
    """Deletes temporary files of the same name whose writer is dead (its lock is gone)."""
    for leftover in path.parent.glob(f".{path.name}.*{PARTIAL_SUFFIX}"):
        with leftover.open("rb") as raw:
            try:
                fcntl.flock(raw, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # its writer lives
            leftover.unlink(missing_ok=True)


_ADVICE = {
    errno.ENOSPC: "the disk is full; free space or point LAION_ETL_STORE (or TMPDIR) elsewhere",
    errno.EDQUOT: "the disk quota is used up; free space or point LAION_ETL_STORE (or TMPDIR) elsewhere",
    errno.EACCES: "no permission; check the owner of the folder or set LAION_ETL_STORE",
    errno.EROFS: "the file system is read-only; set LAION_ETL_STORE",
    errno.ENOENT: "it does not exist; was the stage before it run?",
}

_NO_FOLDER = "the folder can't be made there; check LAION_ETL_STORE"

_S3_ADVICE = {
    "404": "it does not exist; was the stage before it run?",
    "NoSuchBucket": "no such bucket; create it or check LAION_ETL_STORE",
    "NoSuchKey": "it does not exist; was the stage before it run?",
    "403": "access refused; check the AWS credentials",
    "AccessDenied": "access refused; check the AWS credentials",
}


@contextmanager
def storage_errors(action: str, target: object) -> Iterator[None]:
    """Turns the errors of the file system and of S3 into StorageError."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except OSError as error:
        missing_folder = action == "write" and error.errno == errno.ENOENT
        advice = _NO_FOLDER if missing_folder else _ADVICE.get(error.errno or 0, error.strerror or str(error))
        raise StorageError(f"can't {action} {target}: {advice}") from error
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        raise StorageError(f"can't {action} {target}: {_S3_ADVICE.get(code, str(error))}") from error
    except (BotoCoreError, Boto3Error) as error:
        raise StorageError(
            f"can't {action} {target}: {error}; check AWS_ENDPOINT_URL and the AWS credentials"
        ) from error
