"""All access to data files: a local folder or s3://bucket/prefix behind the same small interface.

Names inside a store are relative and use '/'. A file becomes visible only when it is complete: a local file
is written under a temporary name in the same folder, synced and renamed; a file for S3 is spooled to local
disk and sent in one upload (multipart when large), which S3 makes visible only when it is finished.
"""

from laion_etl.io.storage.errors import closed, storage_errors
from laion_etl.io.storage.local import PARTIAL_SUFFIX, LocalStore
from laion_etl.io.storage.opening import local_copy, open_store
from laion_etl.io.storage.s3 import S3Store, s3_client, s3_reader
from laion_etl.io.storage.store import Guard, ListedFile, NewFile, Store, Watcher

__all__ = [
    "PARTIAL_SUFFIX",
    "Guard",
    "ListedFile",
    "LocalStore",
    "NewFile",
    "S3Store",
    "Store",
    "Watcher",
    "closed",
    "local_copy",
    "open_store",
    "s3_client",
    "s3_reader",
    "storage_errors",
]
