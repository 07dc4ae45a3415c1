"""All stages of a crawl on this machine, without Airflow.

They run one after the other, except that a second process scores batches as soon as they are downloaded.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console

from laion_etl.cli.console import progress, summary
from laion_etl.core.stage_stats import StageStats
from laion_etl.crawl import Partition
from laion_etl.database.connection import open_database
from laion_etl.io.storage import Store
from laion_etl.pipeline import Pipeline
from laion_etl.settings import Settings


@dataclass(frozen=True, slots=True)
class LocalRun:
    """A crawl processed entirely on this machine."""

    crawl: str
    settings: Settings
    store: Store
    console: Console

    def all_stages(self, partitions: Sequence[Partition]) -> list[StageStats]:
        """Parses and loads the partitions, then plans, downloads, scores and publishes the crawl.

        Returns the stats of the published variants; empty when the crawl has nothing new.
        """
        with open_database(self.settings) as database:
            pipeline = Pipeline(self.crawl, partitions, self.settings, self.store, database)
            for partition in partitions:
                with progress(self.console, f"parse partition {partition.number}") as report:
                    self._report(pipeline.parse(partition, report))
                self._report(pipeline.load(partition))
            self._report(pipeline.plan())
            with pipeline.scoring(self._report):
                with progress(self.console, "download") as report:
                    downloaded = pipeline.download(lambda _, done, total: report(done, total))
                self._report(*downloaded)
            expected = pipeline.expected()
        published = pipeline.publish(expected)
        self._report(*published)
        return published

    def _report(self, *found: StageStats) -> None:
        for stats in found:
            self.console.print(summary(stats), highlight=False)
