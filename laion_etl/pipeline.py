"""The stages of a crawl in one process, in their order: parse, load, plan, download, score, publish.

Beneath the command `laion-etl run` and the class `CrawlRun` of the library, which differ in what they show.
Airflow starts a command for each unit instead.
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from laion_etl.core.stage_stats import StageStats
from laion_etl.core.stopping import Stop
from laion_etl.core.usage import recorded_apart
from laion_etl.crawl import Partition
from laion_etl.database.connection import Database
from laion_etl.database.load import load_partition
from laion_etl.database.loaded import loaded_crawl
from laion_etl.dataset.missing_batches import check_scored
from laion_etl.download.shared_hosts import SharedHosts
from laion_etl.download.worker import Progress, Worker, open_queue
from laion_etl.io.storage import Store
from laion_etl.io.usage_records import usage_recorded
from laion_etl.parse.stage import parse_partition
from laion_etl.plan.stage import plan_batches
from laion_etl.publish.completeness import Expected
from laion_etl.publish.stage import publish_variants
from laion_etl.settings import Settings, as_environment


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The stages of one crawl. Each returns the stats of its units, also of those that were finished before.

    `database` is used up to `expected`; publishing works on the store alone.
    """

    crawl: str
    partitions: Sequence[Partition]
    settings: Settings
    store: Store
    database: Database

    def parse(self, partition: Partition, on_file: Callable[[int, int], None] | None = None) -> StageStats:
        """Parse a partition. Raises InputError for a file that cannot be read at all."""
        files = partition.indexed_wat_files
        with usage_recorded(self.crawl, "parse", str(partition.number), self.store):
            return parse_partition(self.crawl, partition.number, files, self.settings, self.store, on_file)

    def load(self, partition: Partition) -> StageStats:
        """Load the pairs of a partition, without those that the database has. Raises DatabaseError."""
        with usage_recorded(self.crawl, "load", str(partition.number), self.store):
            return load_partition(self.crawl, partition.number, self.settings, self.store, self.database)

    def plan(self) -> StageStats:
        """Cut the new pairs into batches. Raises DatabaseError."""
        with usage_recorded(self.crawl, "plan", "whole", self.store):
            return plan_batches(self.crawl, self.settings, self.store, self.database)

    def download(self, on_progress: Progress | None = None) -> list[StageStats]:
        """Download the batches. Raises InputError if some are parked, OutageError after minutes of one."""
        queue = open_queue(self.crawl, self.settings, self.database)
        hosts = SharedHosts(self.database, self.settings.download)
        with usage_recorded(self.crawl, "download", "worker", self.store):
            return Worker(self.crawl, self.settings, self.store, queue, on_progress, hosts=hosts).run()

    def score(self, on_done: Callable[[StageStats], None] | None = None) -> list[StageStats]:
        """Score what is downloaded, and wait for what is being downloaded by other processes.

        Raises ModelError, or IncompleteError for shards that are missing or damaged.
        """
        from laion_etl.score.devices import scoring_recorded
        from laion_etl.score.group import score_queue  # the extra `score`

        never = Stop(math.inf)
        with scoring_recorded(self.crawl, "worker", self.settings.clip, self.store):
            done = score_queue(
                self.crawl, self.settings, self.store, self.database, never, on_done, again=True
            )
        done.check(done.total, 0.0)
        return done.scored

    @contextmanager
    def scoring(self, on_done: Callable[[StageStats], None]) -> Iterator[None]:
        """Score in another process while the block downloads; at its end, wait until all is scored.

        That process records what it uses, and the time of the machine, which it needs longer than downloads.

        `on_done` gets the counts of each shard, in another thread. Raises like `score`.
        """
        from laion_etl.score.multi_gpu import AGAIN, ScoreProcess, failure  # the extra `score`

        environment = {**os.environ, **as_environment(self.settings), "LAION_ETL_STORE": self.store.uri()}

        def scored(counts: dict[str, Any]) -> None:
            on_done(StageStats("score", self.crawl, **counts))

        with ScoreProcess(self.crawl, None, environment, scored, [AGAIN]) as process:
            with recorded_apart(process.usage):
                yield
            if code := process.wait():
                raise failure([("this machine", code, process.error)])
            missing = process.missing()
        check_scored(self.crawl, missing, process.total)

    def expected(self) -> Expected:
        """Return what must be there to publish: all partitions and batches, as the database has them."""
        loaded = loaded_crawl(self.crawl, self.store, self.database)
        return Expected([partition.number for partition in self.partitions], 0.0, loaded)

    def publish(self, expected: Expected) -> list[StageStats]:
        """Publish all variants; nothing where all pairs were known before. Raises IncompleteError."""
        with usage_recorded(self.crawl, "publish", "whole", self.store):
            return publish_variants(self.crawl, self.settings, self.store, expected)
