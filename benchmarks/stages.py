"""Every stage over the mini crawl, one after the other in this process: where the time goes.

Neither a comparison with peers nor a measure of a cluster: it shows which stage to optimise, and how the
shares change between versions. `make bench` prints the table for benchmarks/RESULTS.md.
"""

import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from laion_etl.core.stage_stats import StageStats
from laion_etl.crawl import partitions
from laion_etl.database.connection import open_database
from laion_etl.database.load import load_partition
from laion_etl.download.stage import download_batch
from laion_etl.io.storage import LocalStore
from laion_etl.minicrawl.build import build_minicrawl
from laion_etl.minicrawl.web import MiniWeb
from laion_etl.parse.stage import parse_partition
from laion_etl.plan.stage import plan_batches
from laion_etl.publish.stage import publish_dataset
from laion_etl.score.stage import score_shards
from laion_etl.settings import ClipSettings, CoreSettings, DownloadSettings, Settings


@dataclass(frozen=True, slots=True)
class Timed:
    """A stage's stats, its wall time, and its processor time including finished child processes."""

    stats: StageStats
    wall_s: float
    cpu_s: float


def timed(stage: Callable[[], StageStats]) -> Timed:
    wall, cpu = time.perf_counter(), cpu_seconds()
    stats = stage()
    return Timed(stats, time.perf_counter() - wall, cpu_seconds() - cpu)


def cpu_seconds() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def run_stages(folder: Path) -> list[Timed]:
    crawl = build_minicrawl(folder / "crawl")
    with MiniWeb(crawl) as web:
        settings = Settings(
            core=CoreSettings(data_dir=str(folder), crawl_source=web.url),
            download=DownloadSettings(connect_to=web.connect_to, connect_timeout_s=3, timeout_s=3),
            clip=ClipSettings(model="laion-etl-tiny", pretrained="scenes"),
        )
        store = LocalStore(folder / "store")
        [partition] = partitions(crawl.crawl, settings)
        files = partition.indexed_wat_files
        with open_database(settings) as database:
            done = [
                timed(lambda: parse_partition(crawl.crawl, 0, files, settings, store)),
                timed(lambda: load_partition(crawl.crawl, 0, settings, store, database)),
                timed(lambda: plan_batches(crawl.crawl, settings, store, database)),
            ]
        batches = [name for name in store.list(f"batches/{crawl.crawl}") if name.endswith(".parquet")]
        [batch] = [int(Path(name).stem) for name in batches]
        done.append(timed(lambda: download_batch(crawl.crawl, batch, settings, store)))
        done.append(timed(lambda: score_shards(crawl.crawl, [batch], settings, store)[0]))
        done.append(timed(lambda: publish_dataset(crawl.crawl, settings, store)))
    return done


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="laion-bench-") as folder:
        done = run_stages(Path(folder))
    total = sum(one.wall_s for one in done)
    table = Table("stage", "records in", "wall s", "share", "cpu s", "records / wall s")
    for one in done:
        table.add_row(
            one.stats.stage,
            f"{one.stats.input:,}",
            f"{one.wall_s:.2f}",
            f"{one.wall_s / total:.0%}",
            f"{one.cpu_s:.2f}",
            f"{one.stats.input / one.wall_s:,.0f}",
        )
    console = Console(width=100)
    console.print(table)
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    console.print(f"peak memory of the largest process: {peak / 1024:.0f} MiB", highlight=False)


if __name__ == "__main__":
    main()
