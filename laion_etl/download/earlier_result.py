"""The result of a batch that is downloaded again: what becomes of it if nothing can be fetched now."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from laion_etl.core.errors import DamagedFileError, InputError, MissingFileError
from laion_etl.core.funnel import OPT_OUTS, DownloadStatus
from laion_etl.core.quantities import quantity
from laion_etl.core.schemas import shard_stem
from laion_etl.core.stage_stats import StageStats
from laion_etl.io.storage import Store

_log = logging.getLogger(__name__)

# Drop reasons of images that must not be kept.
_UNWANTED = (*OPT_OUTS, DownloadStatus.BLOCKED_HASH)


class EmptyResultError(InputError):
    """Nothing of a batch could be fetched whose shard has samples."""


@dataclass(frozen=True, slots=True)
class Earlier:
    """The result of a batch that is asked for again. `may_be_emptied`: one without samples replaces it."""

    stats: StageStats
    may_be_emptied: bool

    def warn(self) -> None:
        """Log that the batch is downloaded again, before anything is fetched."""
        _log.warning(
            "batch %s of %s has a shard with %s, made with other settings or rules or no longer whole: it is "
            "downloaded again, which replaces it",
            self.stats.unit,
            self.stats.crawl,
            quantity(self.stats.kept, "sample"),
        )

    def check(self, kept: int, dropped: Mapping[str, int]) -> None:
        """Raise EmptyResultError if a result without samples would replace one with some.

        Not if all links were opted out, blocked or removed meanwhile: these images must go.
        """
        unwanted = sum(dropped.get(reason.value, 0) for reason in _UNWANTED)
        if kept or self.may_be_emptied or unwanted == sum(dropped.values()):
            return
        reason = max(dropped, key=lambda one: dropped[one], default="")
        often = f", most often because of {reason}" if reason else ""
        raise EmptyResultError(
            f"cannot replace the shard of batch {self.stats.unit} of {self.stats.crawl}: it has "
            f"{quantity(self.stats.kept, 'sample')}, and no link could be fetched now{often}; try again "
            "later, or replace it with --allow-empty"
        )


def earlier_result(crawl: str, batch: int, store: Store) -> StageStats | None:
    """Return the stats of a batch that was downloaded before, if its shard had samples."""
    try:
        stats = store.read_stats(f"{shard_stem(crawl, batch)}_stats.json")
    except (MissingFileError, DamagedFileError):
        return None
    return stats if stats.kept else None
