"""Publishing synthetic scored rows: rows a second, peak memory, and the extrapolated cost of 100 million.

    python -m benchmarks.publish --rows 10000000

Rows are drawn as numbers and short texts, a batch of 10,000 at a time, and written as the score stage writes
them, without images. Then publish and verify, each in a separate process whose peak memory is measured.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from laion_etl.core.ids import batch_name
from laion_etl.core.schemas import SCORED_SCHEMA, pair_id, plan_stats_name, scored_stem, shard_stem
from laion_etl.core.stage_stats import StageStats
from laion_etl.io.storage import LocalStore
from laion_etl.io.tarshard import finish
from laion_etl.publish.stage import publish_dataset
from laion_etl.publish.verify import verify_version
from laion_etl.settings import PublishSettings, Settings

CRAWL = "CC-MAIN-2026-43"
ROWS_PER_BATCH = 10_000
ON_PAPER = 100_000_000
SETTINGS = Settings(
    publish=PublishSettings(subsets=(("large-cats", "TEXT ILIKE '%cat%' AND WIDTH * HEIGHT > 1000000"),))
)
_WORDS = np.asarray(["red", "cat", "house", "Haus", "sea", "old", "photo", "of", "in", "the", "rue", "42"])


def write_scored(rows: int, store: LocalStore) -> None:
    """Scored batches with `rows` kept rows, and a tenth more rejected ones."""
    batches = -(-rows // ROWS_PER_BATCH)
    left = rows
    for batch in range(batches):
        kept = min(left, ROWS_PER_BATCH)
        left -= kept
        table = drawn(batch, kept)
        name = scored_stem(CRAWL, batch)
        for tar in (f"{name}.tar", f"{shard_stem(CRAWL, batch)}.tar"):
            with store.create(tar) as file:
                finish(file)  # the report finds no images
        with store.create(f"{name}.parquet") as file:
            pq.write_table(table, file, compression="zstd")
        dropped = {"low_similarity": table.num_rows - kept}
        stats = StageStats(
            "score", CRAWL, batch_name(batch), "x", table.num_rows, kept, dropped, (file.output,)
        )
        store.write_stats(f"{name}_stats.json", stats)
    planned = StageStats("plan", CRAWL, "batches", "x", 0, 0, details={"batches": list(range(batches))})
    store.write_stats(plan_stats_name(CRAWL), planned)


def drawn(batch: int, kept: int) -> pa.Table:
    """Rows of a batch; every eleventh is rejected."""
    rng = np.random.default_rng(batch)
    count = kept + kept // 10
    keys = [f"{batch:09d}{index:05d}" for index in range(count)]
    rejected = np.zeros(count, np.bool_)
    rejected[rng.choice(count, count - kept, replace=False)] = True
    words = _WORDS[rng.integers(0, len(_WORDS), (count, 8))]
    hosts = rng.zipf(1.4, count) % 200_000
    digests = rng.integers(0, 256, (count, 64), np.uint8).tobytes().hex()
    urls = [f"https://img{h}.example/{k}.jpg" for h, k in zip(hosts.tolist(), keys, strict=True)]
    captions = [" ".join(line) for line in words.tolist()]
    languages = rng.choice(["en", "en", "de", "fr", "es", ""], count)
    thresholds = np.where(languages == "en", np.float32(0.28), np.float32(0.26))  # as verify expects
    columns = {
        "key": keys,
        "pair_id": [pair_id(url, caption) for url, caption in zip(urls, captions, strict=True)],
        "url": urls,
        "caption": captions,
        "language": languages,
        "license": rng.choice(["?", "?", "?", "https://creativecommons.org/licenses/by/4.0/"], count),
        "page_url": [f"https://www{h}.example/page" for h in hosts.tolist()],
        "status": pa.repeat("success", count),
        "sha256": [digests[i * 128 : i * 128 + 64] for i in range(count)],
        "pdq": [digests[i * 128 + 64 : i * 128 + 128] for i in range(count)],
        "original_width": rng.integers(200, 3000, count),
        "original_height": rng.integers(200, 3000, count),
        "bytes": rng.integers(5_000, 900_000, count),
        "similarity": thresholds + rng.uniform(0, 0.2, count).astype(np.float32),
        "threshold": thresholds,
        "nsfw_tag": rng.choice(["UNLIKELY"] * 18 + ["UNSURE", "NSFW"], count),
        "punsafe": rng.random(count, np.float32),
        "aesthetic": rng.uniform(3, 7, count).astype(np.float32),
        "reason": pa.array(["low_similarity"] * count, pa.string(), mask=~rejected),
    }
    arrays = [
        pa.array(columns[field.name]).cast(field.type)
        if field.name in columns
        else pa.nulls(count, field.type)
        for field in SCORED_SCHEMA
    ]
    return pa.table(arrays, schema=SCORED_SCHEMA)


def measure(step: str, folder: Path) -> dict[str, float]:
    """Runs a step in a separate process: wall and CPU seconds, peak MiB, rows."""
    command = [sys.executable, "-m", "benchmarks.publish", "--step", step, "--folder", str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def run_step(step: str, folder: Path) -> None:
    """In that process."""
    store = LocalStore(folder)
    began = time.perf_counter()
    if step == "publish":
        rows = publish_dataset(CRAWL, SETTINGS, store).kept
    else:
        verdict = verify_version("laion", "", store)
        assert not verdict.problems, verdict.problems
        rows = verdict.rows
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(
        json.dumps(
            {
                "rows": rows,
                "wall_s": time.perf_counter() - began,
                "cpu_s": usage.ru_utime + usage.ru_stime,
                "peak_mib": usage.ru_maxrss / 1024,
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Publish synthetic scored rows and verify them.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="Where to work; left out: a temporary folder.")
    parser.add_argument("--step", choices=("publish", "verify"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        run_step(arguments.step, arguments.folder)
        return
    folder = Path(tempfile.mkdtemp(prefix="laion-publish-", dir=arguments.folder))
    try:
        write_scored(arguments.rows, LocalStore(folder))
        table = Table("step", "rows", "wall s", "cpu s", "rows / wall s", "peak MiB", "100 million, hours")
        for step in ("publish", "verify"):
            found = measure(step, folder)
            table.add_row(
                step,
                f"{found['rows']:,}",
                f"{found['wall_s']:.1f}",
                f"{found['cpu_s']:.1f}",
                f"{found['rows'] / found['wall_s']:,.0f}",
                f"{found['peak_mib']:,.0f}",
                f"{found['wall_s'] / found['rows'] * ON_PAPER / 3600:.2f}",
            )
        size = sum(path.stat().st_size for path in (folder / "dataset").rglob("*") if path.is_file())
        console = Console(width=110)
        console.print(table)
        console.print(
            f"dataset: {size / 1e6:,.0f} MB, {size / arguments.rows:.0f} bytes a row", highlight=False
        )
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
