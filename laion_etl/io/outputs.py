"""Whether files in the store are those that stats describe."""

import hashlib
from io import BufferedReader
from typing import BinaryIO, cast

from laion_etl.core.errors import DamagedFileError, MissingFileError, NewerFormatError
from laion_etl.core.schemas import scored_stem
from laion_etl.core.stage_stats import UNFINISHED, Output, StageStats
from laion_etl.io.storage import Store, storage_errors


def has_outputs(stats: StageStats, store: Store) -> bool:
    """Whether all files of a unit are there with the content that its stats record; reads them whole.

    They are not when a worker was killed that had only just begun to replace those of a former owner. Stats
    that name no files describe none.
    """
    return bool(stats.outputs) and all(_has_output(output, store) for output in stats.outputs)


def has_shard(stats: StageStats, store: Store) -> bool:
    """`has_outputs` of a downloaded shard, or what a scored one needs of it: all but a tar that is gone.

    With LAION_ETL_KEEP_RAW_SHARDS=false the tar is deleted once its scores are there.
    """
    tars = [output for output in stats.outputs if output.name.endswith(".tar")]
    others = [output for output in stats.outputs if output not in tars]
    if not others or not all(_has_output(output, store) for output in others):
        return False
    if any(store.exists(tar.name) for tar in tars):
        return all(_has_output(tar, store) for tar in tars)
    return not tars or _is_scored(stats, store)


def _is_scored(shard: StageStats, store: Store) -> bool:
    try:
        scored = store.read_stats(f"{scored_stem(shard.crawl, int(shard.unit))}_stats.json")
    except (MissingFileError, DamagedFileError, NewerFormatError):
        return False
    return (scored.crawl, scored.unit) == (shard.crawl, shard.unit) and scored.fingerprint != UNFINISHED


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
