"""Memory of a process that scores one small crawl after the other, each with a model of its own.

    python -m benchmarks.score_memory [--crawls 60] [--kept]

Each crawl is two shards of drawn scenes, scored with the model of the demo. `--kept` leaves out what returns
freed memory (core/freed_memory.py), to compare. Prints the resident MiB of this process, without those it
shares with files.
"""

import argparse
import os
import random
import shutil
import tempfile
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

from benchmarks.anonymous_memory import anonymous_bytes
from laion_etl.core.stage_stats import StageStats
from laion_etl.io.storage import LocalStore
from laion_etl.minicrawl.scenes import Scene, caption
from laion_etl.score.stage import Tools, score_shards
from tests.score.conftest import CRAWL, TINY_SETTINGS, TOOLS, Entry, jpeg, write_shard

_SHARDS, _IMAGES = 2, 150
_SCENES = (Scene("red", "star", "beach", "two"), Scene("blue", "heart", "bricks", "single"))


def _entry(number: int) -> Entry:
    scene, seed = _SCENES[number % 2], number % 8
    return Entry(jpeg(scene, seed), caption(scene, "en", random.Random(seed)).encode())


def _score(store: LocalStore) -> list[StageStats]:
    # The processes that prepare samples are those of the crawl before: they are not what is measured.
    own = Tools(preparers=TOOLS.preparers)
    return score_shards(CRAWL, range(_SHARDS), TINY_SETTINGS, store, tools=own)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--crawls", type=int, default=60)
    parser.add_argument("--kept", action="store_true")
    arguments = parser.parse_args()
    keeping = patch("laion_etl.score.stage.return_freed_memory", lambda: None)
    with tempfile.TemporaryDirectory() as folder, keeping if arguments.kept else nullcontext():
        store = LocalStore(Path(folder))
        for batch in range(_SHARDS):
            write_shard(store, [_entry(number) for number in range(_IMAGES)], batch)
        for number in range(1, arguments.crawls + 1):
            _score(store)
            shutil.rmtree(Path(folder, "scored"))
            if number == 1 or number % 10 == 0:
                mib, load = anonymous_bytes(os.getpid()) >> 20, os.getloadavg()[0]
                print(f"{number} crawls: {mib} MiB; load {load:.0f}", flush=True)


if __name__ == "__main__":
    main()
