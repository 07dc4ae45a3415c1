"""All stages of a crawl in one Python process: `CrawlRun`."""

import re
from collections.abc import Sequence
from contextlib import ExitStack
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

from laion_etl.core.errors import InputError
from laion_etl.core.stage_stats import StageStats
from laion_etl.crawl import Partition, partitions
from laion_etl.io.storage import Store, open_store
from laion_etl.settings import Settings, load_settings

if TYPE_CHECKING:
    from laion_etl.database.connection import Database

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

        self.store.check()
        self._database: Database = self._stack.enter_context(open_database(self.settings))
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def parse(self) -> list[StageStats]:
        """Parse each partition to `pairs/`. Raises InputError for a file that cannot be read at all."""
        from laion_etl.parse.stage import parse_partition

        return [
            parse_partition(self.crawl, part.number, part.indexed_wat_files, self.settings, self.store)
            for part in self.partitions
        ]

    def load(self) -> list[StageStats]:
        """Load the pairs into Postgres, without those that it has. Raises DatabaseError."""
        from laion_etl.database.load import load_partition

        return [
            load_partition(self.crawl, part.number, self.settings, self.store, self._database)
            for part in self.partitions
        ]

    def plan(self) -> list[StageStats]:
        """Cut the new pairs into batches. Raises DatabaseError."""
        from laion_etl.plan.stage import plan_batches

        return [plan_batches(self.crawl, self.settings, self.store, self._database)]

    def download(self) -> list[StageStats]:
        """Download the batches to `shards/`.

        Raises InputError naming a batch that failed too often, and OutageError if store, database or
        resolver do not work for minutes (LAION_ETL_DOWNLOAD_OUTAGE_S).
        """
        from laion_etl.download.worker import Worker, open_queue

        queue = open_queue(self.crawl, self.settings, self._database)
        return Worker(self.crawl, self.settings, self.store, queue).run()

    def score(self) -> list[StageStats]:
        """Score the shards to `scored/`.

        Raises ModelError for a model that cannot be loaded, and, when all others are scored, IncompleteError
        for shards that are missing or damaged.
        """
        from laion_etl.io.planned import planned_batches
        from laion_etl.score.group import score_group

        batches = planned_batches(self.crawl, self.store)
        done = score_group(self.crawl, batches, self.settings, self.store, "0/1")
        done.check(len(batches), 0.0)
        return done.scored

    def publish(self) -> list[StageStats]:
        """Publish a version of the dataset, or nothing where all pairs were known before.

        Raises IncompleteError if a partition or a batch is missing.
        """
        from laion_etl.database.loaded import loaded_crawl
        from laion_etl.publish.completeness import Expected
        from laion_etl.publish.stage import publish_variants

        loaded = loaded_crawl(self.crawl, self.store, self._database)
        expected = Expected([part.number for part in self.partitions], 0.0, loaded)
        return publish_variants(self.crawl, self.settings, self.store, expected)
