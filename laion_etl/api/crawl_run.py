"""All stages of a crawl in one Python process: `CrawlRun`."""

import re
from collections.abc import Sequence
from contextlib import ExitStack
from os import PathLike, fspath
from typing import Any

from laion_etl.core.errors import InputError
from laion_etl.core.stage_stats import StageStats
from laion_etl.crawl import Partition, partitions
from laion_etl.io.storage import Store, open_store
from laion_etl.settings import Settings, load_settings

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")


class CrawlRun:
    """A crawl on this machine, stage after stage, in a `with` block that keeps the database open.

    Each stage is a method that returns the stats of its units: `input`, `kept` and `dropped` by reason.
    Finished units are not done again, so a script that was killed is simply run again. For a large crawl use
    Airflow.
    """

    def __init__(
        self,
        crawl: str,
        files: Sequence[str | PathLike[str]] | None = None,
        settings: Settings | None = None,
    ) -> None:
        """Choose the files of a crawl.

        Args:
            crawl: Its name, which becomes a folder.
            files: Paths or URLs; without them the files that the crawl source lists for this crawl.
            settings: Those to use; without them those of the environment and of laion_etl.toml.

        Raises:
            InputError: The name cannot be that of a folder.
            CrawlError: The crawl source does not have the crawl.
        """
        if not _NAME.match(crawl):
            raise InputError(f"cannot run {crawl!r}: use only letters, digits, '.', '_' and '-' for its name")
        self.crawl = crawl
        self.settings = settings or load_settings()
        self.store: Store = open_store(self.settings.store_uri)
        self.partitions = partitions(crawl, self.settings) if files is None else self._cut(files)
        self._stack = ExitStack()

    def _cut(self, files: Sequence[str | PathLike[str]]) -> list[Partition]:
        uris, size = tuple(fspath(file) for file in files), self.settings.core.wat_files_per_partition
        firsts = range(0, len(uris), size)
        return [Partition(self.crawl, first // size, first, uris[first : first + size]) for first in firsts]

    def __enter__(self) -> "CrawlRun":
        """Open the database; without a setting, an embedded server. Raises DatabaseError, StorageError."""
        from laion_etl.database.connection import open_database
        from laion_etl.pipeline import Pipeline

        self.store.check()
        database = self._stack.enter_context(open_database(self.settings))
        self._pipeline = Pipeline(self.crawl, self.partitions, self.settings, self.store, database)
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def parse(self) -> list[StageStats]:
        """Parse each partition to `pairs/`. Raises InputError for a file that cannot be read at all."""
        return [self._pipeline.parse(partition) for partition in self.partitions]

    def load(self) -> list[StageStats]:
        """Load the pairs into Postgres, without those that it has. Raises DatabaseError."""
        return [self._pipeline.load(partition) for partition in self.partitions]

    def plan(self) -> list[StageStats]:
        """Cut the new pairs into batches. Raises DatabaseError."""
        return [self._pipeline.plan()]

    def download(self) -> list[StageStats]:
        """Download the batches to `shards/`.

        Raises InputError naming a batch that failed too often, and OutageError if store, database or
        resolver do not work for minutes (LAION_ETL_DOWNLOAD_OUTAGE_S).
        """
        return self._pipeline.download()

    def score(self) -> list[StageStats]:
        """Score the shards to `scored/`.

        Raises ModelError for a model that cannot be loaded, and, when all others are scored, IncompleteError
        for shards that are missing or damaged.
        """
        return self._pipeline.score()

    def publish(self) -> list[StageStats]:
        """Publish a version of the dataset, or nothing where all pairs were known before.

        Raises IncompleteError if a partition or a batch is missing.
        """
        return self._pipeline.publish(self._pipeline.expected())
