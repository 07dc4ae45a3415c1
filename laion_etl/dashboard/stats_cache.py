"""Cache of a crawl's stats files: each is read once; later calls list the store and read only changes.

A crawl has up to twenty thousand of them. Only the details that pages show are kept, a kilobyte each.
"""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from laion_etl.core.errors import InputError, StorageError
from laion_etl.core.stage_stats import StageStats
from laion_etl.dataset.funnel_report import STATS_FILES
from laion_etl.io.storage import Store

_READERS = 8
_KEPT_DETAILS = ("records", "batches")


@dataclass(slots=True)
class StatsCache:
    """For one crawl and one thread; other threads may read `read` and `of`, the progress."""

    crawl: str
    read: int = 0
    of: int = 0
    broken: tuple[str, ...] = ()
    _kept: dict[str, tuple[str, StageStats]] = field(default_factory=dict)

    def stats(self, store: Store) -> dict[str, list[StageStats]]:
        """Return the current stats of finished units of all stages except publish. Raises StorageError.

        Files that are not valid stats are left out and listed in `broken`.
        """
        stages: dict[str, list[str]] = {}
        etags: dict[str, str] = {}
        for stage, place, pattern in STATS_FILES:
            folder = place.format(crawl=self.crawl)
            found = store.etags(folder, ".json")
            names = [name for name in sorted(found) if pattern.match(name.removeprefix(f"{folder}/"))]
            stages[stage] = names
            etags |= {name: found[name] for name in names}
        self._update(etags, store)
        return {stage: self._get(names) for stage, names in stages.items()}

    def _get(self, names: Iterable[str]) -> list[StageStats]:
        return [self._kept[name][1] for name in names if name in self._kept]

    def _update(self, etags: Mapping[str, str], store: Store) -> None:
        wanted = [name for name, etag in etags.items() if self._kept.get(name, ("",))[0] != etag]
        for name in self._kept.keys() - etags.keys():
            del self._kept[name]
        self.read, self.of = 0, len(wanted)
        broken = []
        with ThreadPoolExecutor(_READERS) as pool:
            for name, found in zip(wanted, pool.map(lambda name: _read(name, store), wanted), strict=True):
                self.read += 1
                if isinstance(found, StageStats):
                    self._kept[name] = (etags[name], found)
                else:
                    self._kept.pop(name, None)
                    broken.append(found)
        self.broken = tuple(broken)


def _read(name: str, store: Store) -> StageStats | str:
    """Return the stats, or the error message."""
    try:
        stats = store.read_stats(name)
    except (StorageError, InputError) as error:  # InputError: a newer laion-etl wrote it
        return str(error)
    details = {key: stats.details[key] for key in _KEPT_DETAILS if key in stats.details}
    return replace(stats, outputs=(), details=details)
