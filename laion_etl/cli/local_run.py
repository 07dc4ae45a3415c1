"""All stages of a crawl on this machine, one after the other, without Airflow."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console

from laion_etl.cli.console import progress, summary
from laion_etl.core.stage_stats import StageStats
from laion_etl.crawl import Partition
from laion_etl.database.connection import open_database
from laion_etl.database.load import load_partition
from laion_etl.database.loaded import loaded_crawl
from laion_etl.download.worker import Worker, open_queue
from laion_etl.io.planned import planned_batches
from laion_etl.io.storage import Store
from laion_etl.parse.stage import parse_partition
from laion_etl.plan.stage import plan_batches
from laion_etl.publish.completeness import Expected
from laion_etl.publish.stage import publish_variants
from laion_etl.score.multi_gpu import score_everywhere
from laion_etl.settings import Settings


@dataclass(frozen=True, slots=True)
class LocalRun:
    """A crawl processed entirely by this process."""

    crawl: str
    settings: Settings
    store: Store
    console: Console

    def all_stages(self, partitions: Sequence[Partition]) -> list[StageStats]:
        """Parses and loads the partitions, then plans, downloads, scores and publishes the crawl.

        Returns the stats of the published variants; empty when the crawl has nothing new.
        """
        with open_database(self.settings) as database:
            for partition in partitions:
                self.parse(partition)
                self._reported(
                    load_partition(self.crawl, partition.number, self.settings, self.store, database)
                )
            self._reported(plan_batches(self.crawl, self.settings, self.store, database))
            queue = open_queue(self.crawl, self.settings, database)
            with progress(self.console, "download") as report:
                worker = Worker(
                    self.crawl, self.settings, self.store, queue, lambda _, done, total: report(done, total)
                )
                for stats in worker.run():
                    self._reported(stats)
            loaded = loaded_crawl(self.crawl, self.store, database)
        batches = planned_batches(self.crawl, self.store)
        score_everywhere(self.crawl, batches, self.settings, self.store, self._report)
        expected = Expected([partition.number for partition in partitions], 0.0, loaded)
        published = publish_variants(self.crawl, self.settings, self.store, expected)
        return [self._reported(stats) for stats in published]

    def parse(self, partition: Partition) -> StageStats:
        """Parses one partition with a progress bar over its WAT files."""
        with progress(self.console, f"parse partition {partition.number}") as report:
            return self._reported(
                parse_partition(
                    self.crawl,
                    partition.number,
                    partition.indexed_wat_files,
                    self.settings,
                    self.store,
                    report,
                )
            )

    def _reported(self, stats: StageStats) -> StageStats:
        self._report(stats)
        return stats

    def _report(self, stats: StageStats) -> None:
        self.console.print(summary(stats), highlight=False)
