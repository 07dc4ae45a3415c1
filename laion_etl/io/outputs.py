"""Whether files in the store are those that stats describe."""

import hashlib
from io import BufferedReader
from typing import BinaryIO, cast

from laion_etl.core.errors import MissingFileError
from laion_etl.core.stage_stats import Output, StageStats
from laion_etl.io.storage import Store, storage_errors


def has_outputs(stats: StageStats, store: Store) -> bool:
    """Whether all files of a unit are there with the content that its stats record; reads them whole.

    They are not when a worker was killed that had only just begun to replace those of a former owner. Stats
    that name no files describe none.
    """
    return bool(stats.outputs) and all(_has_output(output, store) for output in stats.outputs)


def _has_output(output: Output, store: Store) -> bool:
    try:
        with store.open(output.name) as file:
            return is_output(file, output, store)
    except MissingFileError:
        return False


def is_output(file: BinaryIO, expected: Output, store: Store) -> bool:
    """Whether a file of the store, just opened, has the recorded size and SHA-256; leaves it at its start."""
    with storage_errors("read", store.uri(expected.name)):
        digest = hashlib.file_digest(cast(BufferedReader, file), "sha256").hexdigest()
        size = file.tell()
        file.seek(0)
    return (size, digest) == (expected.bytes, expected.sha256)
