"""Whether files in the store are those that stats describe."""

import hashlib
from dataclasses import replace
from io import BufferedReader
from typing import Any, BinaryIO, cast

from laion_etl.core.errors import DamagedFileError, MissingFileError, NewerFormatError
from laion_etl.core.schemas import scored_stem
from laion_etl.core.stage_stats import UNFINISHED, Output, StageStats
from laion_etl.io.storage import Store, storage_errors

_REWRITTEN = "rewritten"  # the details of a file that was written anew, when its unit stays what it was


def rewritten(stats: StageStats, output: Output) -> StageStats:
    """Return the stats of a unit whose only file is written anew by a removal.

    Its outputs stay: by them the unit is known where its rows are already.
    """
    size_and_digest = {"bytes": output.bytes, "sha256": output.sha256}
    return replace(stats, details={**stats.details, _REWRITTEN: size_and_digest})


def rewritten_as(stats: StageStats) -> dict[str, Any] | None:
    """Return size and SHA-256 of a unit's file as a removal left it; None if none has rewritten it."""
    return stats.details.get(_REWRITTEN)


def only_output(stats: StageStats, uri: str) -> Output:
    """Return the file of a unit that has one, as a removal left it. Raises DamagedFileError."""
    try:
        (output,) = stats.outputs
        return replace(output, **stats.details.get(_REWRITTEN, {}))
    except (TypeError, ValueError) as error:
        raise DamagedFileError(
            f"cannot use the stats of {uri}: they do not describe it; delete both, and run the stage again"
        ) from error


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
