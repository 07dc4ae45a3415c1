"""Whether files in the store are those that stats describe."""

import hashlib

from laion_etl.core.errors import MissingFileError
from laion_etl.core.stage_stats import StageStats
from laion_etl.io.storage import Store, storage_errors

_HASHED_AT_ONCE = 1 << 20


def has_outputs(stats: StageStats, store: Store) -> bool:
    """Whether all files of a unit are there with the SHA-256 that its stats record; reads them whole.

    They are not when a worker was killed that had only just begun to replace those of a former owner. Stats
    that name no files describe none.
    """
    try:
        return bool(stats.outputs) and all(
            _digest(output.name, store) == output.sha256 for output in stats.outputs
        )
    except MissingFileError:
        return False


def _digest(name: str, store: Store) -> str:
    with store.open(name) as file, storage_errors("read", store.uri(name)):
        sha256 = hashlib.sha256()
        while data := file.read(_HASHED_AT_ONCE):
            sha256.update(data)
        return sha256.hexdigest()
