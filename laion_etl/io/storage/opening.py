"""Opens the store of a path or URI, and copies its files to local disk."""

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
    """Returns the store at a folder path or s3://bucket/prefix.

    Raises StorageError for an incomplete S3 URI or incomplete credentials.
    """
    if not uri.startswith("s3://"):
        try:
            return LocalStore(Path(uri.removeprefix("file://")).expanduser().absolute())
        except RuntimeError as error:  # no folder of this name is made where the command happens to run
            raise StorageError(f"cannot open {uri}: there is no such user; write the whole path") from error
    parts = urlsplit(uri)
    if not parts.netloc:
        raise StorageError(f"cannot open {uri}: it names no bucket; write s3://bucket/prefix")
    with storage_errors("reach", uri):
        return S3Store(parts.netloc, parts.path, s3_client())


def local_copy(store: Store, output: Output, folder: Path) -> Path:
    """Returns the local path of a file: that of a local store, else a copy fetched once into `folder`.

    Raises StorageError when the copy has a different SHA-256, MissingFileError when there is no such file.
    """
    if isinstance(store, LocalStore):
        with store.open(output.name):  # which refuses names and links out of the store, and FIFOs
            return store.root / output.name
    cache = LocalStore(folder)
    name = f"{output.sha256}{Path(output.name).suffix}"
    if not cache.exists(name):
        with cache.create(name) as copy, store.open(output.name) as file:
            while data := file.read(_COPIED_AT_ONCE):
                copy.write(data)
            if copy.output.sha256 != output.sha256:
                raise StorageError(
                    f"cannot use {store.uri(output.name)}: its SHA-256 is not the one in its stats; run the "
                    "stage that wrote it again"
                )
    return folder / name
