"""Stats files of the partitions of a crawl: listed, and read once; later only those that have changed.

A crawl has at most as many partitions as Airflow maps tasks, a thousand: listing them is a request or two,
and what is kept of each is a kilobyte.
"""

import re
from collections.abc import Container
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from laion_etl.core.errors import InputError, StorageError
from laion_etl.core.stage_stats import StageStats
from laion_etl.io.storage import Store

_READERS = 32
_NAME = re.compile(r"part-(\d+)\.json\Z")


@dataclass(slots=True)
class PartitionStats:
    """The files `part-NNNNN.json` of a folder. For one thread; others may read `read` and `of`, the
    progress."""

    folder: str
    read: int = 0
    of: int = 0
    broken: tuple[str, ...] = ()
    _kept: dict[int, tuple[str, StageStats]] = field(default_factory=dict)

    def numbers_and_stats(
        self, store: Store, known: Container[int] = ()
    ) -> tuple[list[int], dict[int, StageStats]]:
        """Return the numbers of all partitions that have a file, and the stats of those that are not `known`.

        Files that are not valid stats are left out and listed in `broken`. Raises StorageError.
        """
        etags: dict[int, str] = {}
        names: dict[int, str] = {}
        for name, etag in store.etags(self.folder, ".json").items():
            if match := _NAME.fullmatch(name.removeprefix(f"{self.folder}/")):
                names[int(match[1])], etags[int(match[1])] = name, etag
        wanted = [n for n in sorted(etags) if n not in known and self._kept.get(n, ("",))[0] != etags[n]]
        for number in self._kept.keys() - {n for n in etags if n not in known}:
            del self._kept[number]
        self._read([(number, names[number], etags[number]) for number in wanted], store)
        broken = set(etags) - {n for n in etags if n in known} - self._kept.keys()
        return sorted(set(etags) - broken), {n: stats for n, (_, stats) in sorted(self._kept.items())}

    def _read(self, wanted: list[tuple[int, str, str]], store: Store) -> None:
        self.read, self.of = 0, len(wanted)
        broken = []
        with ThreadPoolExecutor(_READERS) as pool:
            found = pool.map(lambda one: _read(one[1], store), wanted)
            for (number, _, etag), stats in zip(wanted, found, strict=True):
                self.read += 1
                if isinstance(stats, StageStats):
                    self._kept[number] = (etag, stats)
                else:
                    self._kept.pop(number, None)
                    broken.append(stats)
        self.broken = tuple(broken)


def _read(name: str, store: Store) -> StageStats | str:
    """Return the stats without what progress does not need, or the error message."""
    try:
        stats = store.read_stats(name)
    except (StorageError, InputError) as error:  # InputError: a newer laion-etl wrote it
        return str(error)
    records = {key: stats.details[key] for key in ("records",) if key in stats.details}
    return replace(stats, outputs=(), details=records)
