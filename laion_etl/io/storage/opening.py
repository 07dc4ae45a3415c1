"""From a place to its store."""

from pathlib import Path
from urllib.parse import urlsplit

from laion_etl.core.errors import StorageError
from laion_etl.core.stage_stats import Output
from laion_etl.io.storage.errors import storage_errors
from laion_etl.io.storage.local import LocalStore
from laion_etl.io.storage.s3 import S3Store, s3_client
from laion_etl.io.storage.store import Store

_COPIED_AT_ONCE = 1 << 22


def open_store(uri: str) -> Store:
    """The store at a folder path or s3://bucket/prefix; raises StorageError for half an S3 access."""
    if not uri.startswith("s3://"):
        return LocalStore(Path(uri.removeprefix("file://")).expanduser().absolute())
    parts = urlsplit(uri)
    if not parts.netloc:
        raise StorageError(f"{uri} names no bucket; write s3://bucket/prefix")
    with storage_errors("reach", uri):
        return S3Store(parts.netloc, parts.path, s3_client())


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
