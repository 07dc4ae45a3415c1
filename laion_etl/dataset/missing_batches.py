"""Batches that the score stage could not score, each with its cause, and how many of them a run may have.

A group of the score stage keeps `score/<crawl>/group-<i>-of-<g>.json` (score_progress.py): its input are
batches, not samples. Status and publish name causes from there. Whether a batch is scored is decided by the
stats of its scored shard alone, so a file that an earlier division into groups left does no harm.
"""

import logging
import re
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from laion_etl.core.errors import DamagedFileError, IncompleteError, MissingFileError, NewerFormatError
from laion_etl.core.ids import batch_name
from laion_etl.core.plain_json import NOT_AS_EXPECTED
from laion_etl.core.quantities import first_items
from laion_etl.core.schemas import scored_stem, shard_stem
from laion_etl.core.stage_stats import StageStats
from laion_etl.crawl import written_numbers
from laion_etl.dataset.number_runs import read_runs
from laion_etl.io.storage import Store

_log = logging.getLogger(__name__)
_GROUP_STATS = re.compile(r"group-(\d+)-of-(\d+)\.json\Z")
_READERS = 8
_NAMED = 3  # causes in an error message


class Fault(StrEnum):
    """Why the shard of a batch cannot be scored."""

    NOT_DOWNLOADED = "not_downloaded"  # there are no stats of the shard
    FILE_MISSING = "file_missing"  # the stats name a tar or a parquet file that is not in the store
    IMAGES_DELETED = "images_deleted"  # the tar is gone, and there are scores of another model, which stay
    DAMAGED = "damaged"  # a file is cut off, unreadable or not the one its stats describe


@dataclass(frozen=True, slots=True)
class MissingBatch:
    """A batch that was not scored; `error` names the file and what is wrong with it."""

    batch: int
    cause: Fault
    error: str

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "MissingBatch":
        """Read plain JSON values. Raises KeyError, TypeError or ValueError."""
        return cls(int(plain["batch"]), Fault(plain["cause"]), str(plain["error"]))

    def to_plain(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def share_allowed(missing: int, total: int, allowed: float) -> bool:
    """Whether no more than a share of `total` is missing; a share that is not a number allows nothing."""
    return missing <= allowed * total


def check_share(
    action: str, what: str, missing: Sequence[int], total: int, allowed: float, cause: str, advice: str
) -> None:
    """Raise IncompleteError if more than a share of `total` is missing."""
    if not share_allowed(len(missing), total, allowed):
        raise IncompleteError(
            f"cannot {action}: {len(missing):,} of {total:,} {what} are missing "
            f"({written_numbers(missing)[:200]}: {cause}), and at most {allowed:.1%} may be; "
            f"{advice}, or allow more (--allow-missing, in Airflow the parameter allow_missing_percent)"
        )


def check_scored(crawl: str, missing: Sequence[MissingBatch], total: int, allowed: float = 0.0) -> None:
    """Raise IncompleteError, which names the first missing batches, if more than a share is not scored."""
    if not missing:
        return
    first = missing[0].batch
    check_share(
        f"score all of {crawl}", "batches", [one.batch for one in missing], total, allowed, causes(missing),
        f"all others are scored; download the batch again (`laion-etl stage download --crawl {crawl} "
        f"--batch {first}`) and score again",
    )  # fmt: skip


def causes(missing: Sequence[MissingBatch]) -> str:
    """Return the causes of the first missing batches in one line."""
    named = [f"batch {one.batch} {one.cause}, {one.error}" for one in missing]
    return " | ".join(first_items(named, _NAMED))


def group_file(crawl: str, group: str) -> str:
    """Return the name of the record of a group, `I/G`."""
    index, _, groups = group.partition("/")
    return f"score/{crawl}/group-{index}-of-{groups}.json"


def unconfirmed_batches(crawl: str, store: Store, scored: Collection[int]) -> list[int]:
    """Return scored batches whose shard a group could not find or read, and of which that is still so.

    Their scores are older: whether they are those of the images that the shard would have now is not known.
    Where the record of a group does not name all that it could not score, because the group was killed, has
    more than a record names, or the record is damaged, each batch that no group has counted is looked at.
    """
    records = _records(crawl, store)
    named = {
        number
        for number, missing in _named(records).items()
        if number in scored and missing.cause not in {Fault.FILE_MISSING, Fault.IMAGES_DELETED}
    }
    wanted = sorted(named | _not_counted(records, scored))

    def is_readable(number: int) -> bool:
        try:
            stats = store.read_stats(f"{shard_stem(crawl, number)}_stats.json")
        except (MissingFileError, DamagedFileError, NewerFormatError):
            return False
        return (stats.crawl, stats.unit) == (crawl, batch_name(number))

    with ThreadPoolExecutor(_READERS) as pool:
        readable = zip(wanted, pool.map(is_readable, wanted), strict=True)
        return sorted(number for number, is_ in readable if not is_)


def missing_batches(crawl: str, store: Store, numbers: Iterable[int] | None = None) -> list[MissingBatch]:
    """Return what is known of batches that are not scored; without `numbers`, of all that groups named.

    A batch that was scored since is left out. Raises StorageError.
    """
    known = _named(_records(crawl, store))
    wanted = set(known if numbers is None else numbers)
    if numbers is None:
        with ThreadPoolExecutor(_READERS) as pool:
            scored = pool.map(lambda n: store.exists(f"{scored_stem(crawl, n)}_stats.json"), known)
            wanted -= {number for number, exists in zip(known, scored, strict=True) if exists}
    return [known[number] for number in sorted(wanted & set(known))]


def _named(records: Iterable[StageStats]) -> dict[int, MissingBatch]:
    """Return all batches that the records of groups name."""
    found = (MissingBatch.from_plain(plain) for stats in records for plain in stats.details["missing"])
    return {one.batch: one for one in found}


def _not_counted(records: Sequence[StageStats], scored: Collection[int]) -> set[int]:
    """Return the scored batches that no group has counted, if a group names not all that it misses."""
    found: set[int] = set()
    for groups in {_groups(stats) for stats in records if _is_partial(stats)}:
        counted = {
            number
            for stats in records
            if _groups(stats) == groups
            for first, step, count in read_runs(stats.details.get("batches", ()))
            for number in range(first, first + step * count, step)
        }
        found.update(number for number in scored if number not in counted)
    return found


def _groups(stats: StageStats) -> str:
    return stats.unit.partition("/")[2]


def _is_partial(stats: StageStats) -> bool:
    """Whether a record may not name all batches that its group could not score."""
    return bool(stats.details.get("running")) or stats.input - stats.kept > len(stats.details["missing"])


def _records(crawl: str, store: Store) -> list[StageStats]:
    """Return the records of all groups. A damaged one is taken for one that does not name all."""
    folder = f"score/{crawl}"

    def read(name: str) -> StageStats:
        try:
            stats = store.read_stats(name)
            _named([stats])
            read_runs(stats.details.get("batches", ()))
        except (DamagedFileError, NewerFormatError, *NOT_AS_EXPECTED) as error:
            _log.warning("cannot read the causes in %s: %s; score the group again", store.uri(name), error)
            group = "/".join(_GROUP_STATS.findall(name)[0])
            partial = {"missing": [], "running": True}
            return StageStats("score group", crawl, group, "", 0, 0, details=partial)
        return stats

    names = [name for name in store.list(folder) if _GROUP_STATS.match(name.removeprefix(f"{folder}/"))]
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(read, names))
