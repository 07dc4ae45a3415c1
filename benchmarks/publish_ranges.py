"""Publishing small scored batches at once and in ranges: CPU seconds, peak memory and store requests.

    python -m benchmarks.publish_ranges --batches 600

Two variants of a dataset are published from batches of 200 kept rows, in a folder that counts the requests
which the same calls cost on S3. Every step is a process of its own, as a task is.
"""

import argparse
import json
import math
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pyarrow.parquet as pq

from benchmarks.publish import CRAWL, drawn
from laion_etl.core.ids import batch_name
from laion_etl.core.schemas import plan_stats_name, scored_stem, shard_stem
from laion_etl.core.stage_stats import StageStats
from laion_etl.io.storage import Guard, LocalStore, NewFile
from laion_etl.io.tarshard import finish
from laion_etl.publish.ranges import publish_range
from laion_etl.publish.stage import finish_variants, prepare_variants, publish_variants
from laion_etl.settings import PublishSettings, Settings

ROWS_PER_BATCH = 200
BATCHES_PER_RANGE = 20
VARIANTS = ("research", "research-safe")
_NAMES_PER_LISTING = 1_000  # of S3


class Counted(LocalStore):
    """A folder that counts what the calls would cost on S3: `open` asks for the size first."""

    requests = 0

    def _count(self, requests: int) -> None:
        Counted.requests += requests

    def open(self, name: str) -> BinaryIO:
        self._count(2)
        return super().open(name)

    def read(self, name: str) -> bytes:
        self._count(-1)  # S3 needs one request for it
        return super().read(name)

    def read_with_etag(self, name: str) -> tuple[bytes, str] | None:
        self._count(-1)  # it looks the file up first, and S3 needs one request
        return super().read_with_etag(name)

    def exists(self, name: str) -> bool:
        self._count(1)
        return super().exists(name)

    def list(self, prefix: str) -> list[str]:
        found = super().list(prefix)
        self._count(max(1, math.ceil(len(found) / _NAMES_PER_LISTING)))
        return found

    @contextmanager
    def create(self, name: str, guard: Guard | None = None) -> Iterator[NewFile]:
        self._count(1)
        with super().create(name, guard) as file:
            yield file


def write_crawl(batches: int, store: LocalStore) -> None:
    """Scored batches without images, their shards' stats and the plan."""
    for batch in range(batches):
        table = drawn(batch, ROWS_PER_BATCH)
        scored, shard, rows = scored_stem(CRAWL, batch), shard_stem(CRAWL, batch), table.num_rows
        for stem in (scored, shard):
            with store.create(f"{stem}.tar") as file:
                finish(file)
        with store.create(f"{scored}.parquet") as file:
            pq.write_table(table, file, compression="zstd")
        name, dropped = batch_name(batch), {"low_similarity": rows - ROWS_PER_BATCH}
        done = StageStats("score", CRAWL, name, "x", rows, ROWS_PER_BATCH, dropped, (file.output,))
        store.write_stats(f"{scored}_stats.json", done)
        loaded = StageStats("download", CRAWL, name, "x", 2 * rows, rows, {"timeout": rows})
        store.write_stats(f"{shard}_stats.json", loaded)
    planned = StageStats("plan", CRAWL, "batches", "x", 0, 0, details={"batches": list(range(batches))})
    store.write_stats(plan_stats_name(CRAWL), planned)


def run_step(step: str, folder: Path) -> None:
    """In the process of a step."""
    store, began = Counted(folder), time.process_time()
    size = 10**6 if step == "at once" else BATCHES_PER_RANGE
    settings = Settings(publish=PublishSettings(variants=VARIANTS, batches_per_range=size))
    if step == "at once":
        publish_variants(CRAWL, settings, store)
    elif step == "prepare":
        prepare_variants(CRAWL, settings, store)
    elif step == "finish":
        finish_variants(CRAWL, settings, store)
    else:
        number, total = map(int, step.split("/"))
        publish_range(CRAWL, number, total, settings, store, VARIANTS)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"cpu": time.process_time() - began, "mib": memory, "requests": Counted.requests}))


def measure(step: str, folder: Path) -> Counter[str]:
    """Run a step in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.publish_ranges", "--step", step, "--folder", str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return Counter(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Measure all steps and print a line for each kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=60)
    parser.add_argument("--step", default="")
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    if given.step:
        run_step(given.step, given.folder)
        return
    if given.batches <= BATCHES_PER_RANGE:
        parser.error(f"expected more than {BATCHES_PER_RANGE} batches, which are one range")
    folder = Path(tempfile.mkdtemp())
    try:
        write_crawl(given.batches, LocalStore(folder))
        ranges = math.ceil(given.batches / BATCHES_PER_RANGE)
        steps = ["at once", "prepare", *(f"{n}/{ranges}" for n in range(1, ranges + 1)), "finish"]
        for step in steps:
            found = measure(step, folder)
            print(f"{step:>8}: {found['cpu']:.2f} CPU s, {found['mib']} MiB, {found['requests']} requests")
            if step == "at once":
                shutil.rmtree(folder / "dataset")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
