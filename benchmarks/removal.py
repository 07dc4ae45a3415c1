"""What a removal costs by locator: requests to the store, seconds and memory, by size of crawl and request.

    python -m benchmarks.removal [--batches 60 600] [--rows 1000] [--requests 1 100 1000]

Makes crawls of synthetic batches without images (batch, shard and scored parquet, a partition of pairs per
ten batches), locates them, and searches them for URLs of which nine in ten are not there. Requests to the
store are counted as S3 would be asked: one per file or range read, one per thousand names listed.
"""

import argparse
import json
import random
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from laion_etl.core.schemas import BATCH_SCHEMA, PAIR_SCHEMA, SCORED_SCHEMA, SHARD_SCHEMA, pair_id
from laion_etl.dataset.locator.build import locate
from laion_etl.io.storage import ListedFile, LocalStore, Store
from laion_etl.removal.lists import read_list
from laion_etl.removal.search import Failures, Search
from laion_etl.settings import Settings

CRAWL = "CC-MAIN-2026-43"
_BATCHES_PER_PARTITION = 10
_HOSTS = 200_000
_FOLDERS = ("uploads", "images", "media", "products", "files", "2019", "2021", "07", "11", "thumbs")


class Counting(LocalStore):
    """Counts requests and bytes read, as S3 would."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.requests: Counter[str] = Counter()

    def open(self, name: str) -> BinaryIO:
        file = super().open(name)
        self.requests["files"] += 1
        self.requests["bytes"] += (self.root / name).stat().st_size
        return file

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        self.requests["ranges"] += 1
        self.requests["bytes"] += size
        with super().open(name) as file:
            file.seek(offset)
            return file.read(size)

    def files(self, folder: str, first: str = "", last: str = "") -> Iterator[ListedFile]:
        for number, file in enumerate(super().files(folder, first, last)):
            self.requests["lists"] += number % 1_000 == 0
            yield file


def rows_of(batch: int, count: int) -> dict[str, list[Any]]:
    """Return the columns of a batch: hosts by a Zipf law, two to five folders, six in ten downloaded."""
    rng = random.Random(batch)
    urls = []
    for index in range(count):
        host = int(_HOSTS ** rng.random())
        prefix = rng.choice(("www.", "cdn.", "img.", "static.images.", ""))
        folders = "/".join(rng.choice(_FOLDERS) for _ in range(rng.randint(2, 5)))
        urls.append(f"https://{prefix}host{host}.example/{folders}/{batch}-{index}.jpg")
    captions = [f"caption {batch} {index} {rng.random()}" for index in range(count)]
    digests = [rng.randbytes(32).hex() if rng.random() < 0.6 else None for _ in range(count)]
    return {
        "key": [f"{batch:09d}{index:05d}" for index in range(count)],
        "pair_id": [pair_id(*texts) for texts in zip(urls, captions, strict=True)],
        "url": urls,
        "caption": captions,
        "sha256": digests,
        "md5": [one and one[:32] for one in digests],
        "pdq": [one and one[::-1] for one in digests],
    }


def write_crawl(batches: int, rows: int, store: Store) -> None:
    for first in range(0, batches, _BATCHES_PER_PARTITION):
        group = [rows_of(batch, rows) for batch in range(first, min(first + _BATCHES_PER_PARTITION, batches))]
        for place, columns in enumerate(group):
            name = f"{CRAWL}/{first + place:09d}.parquet"
            _write(f"batches/{name}", columns, BATCH_SCHEMA, store)
            _write(f"shards/{name}", columns, SHARD_SCHEMA, store)
            found = [row for row, digest in enumerate(columns["sha256"]) if digest]
            kept = {key: [values[row] for row in found] for key, values in columns.items()}
            _write(f"scored/{name}", kept, SCORED_SCHEMA, store)
        pairs = {key: [one for columns in group for one in columns[key]] for key in group[0]}
        number = first // _BATCHES_PER_PARTITION
        _write(f"pairs/{CRAWL}/part-{number:05d}.parquet", pairs, PAIR_SCHEMA, store)


def _write(name: str, columns: dict[str, list[Any]], schema: pa.Schema, store: Store) -> None:
    count = len(columns["url"])
    arrays = [
        pa.array(columns[field.name], field.type)
        if field.name in columns
        else pa.array([0] * count if pa.types.is_integer(field.type) else [""] * count).cast(field.type)
        if not field.nullable and not pa.types.is_floating(field.type)
        else pa.array([0.0] * count, field.type)
        if not field.nullable
        else pa.nulls(count, field.type)
        for field in schema
    ]
    with store.create(name) as file:
        pq.write_table(pa.table(arrays, schema=schema), file, compression="zstd")


def measure(batches: int, rows: int, requests: list[int]) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        store = Counting(Path(folder))
        write_crawl(batches, rows, store)
        data = sum((store.root / name).stat().st_size for name in store.list("") if name.endswith(".parquet"))
        yield {
            "what": "locate",
            "batches": batches,
            "data_bytes": data,
            **_timed(store, lambda: locate(CRAWL, store)),
        }
        located = sum((store.root / name).stat().st_size for name in store.list("locator"))
        entries = sum(
            json.loads(store.read(name))["details"]["entries"]
            for name in store.list("locator")
            if name.endswith(".json")
        )
        yield {
            "what": "size",
            "bytes": located,
            "entries": entries,
            "entries_per_row": entries / batches / rows,
        }
        for count in requests:
            named = [
                f"https://nowhere{number}.example/{number}.jpg"
                for number in range(count - max(count // 10, 1))
            ]
            rng = np.random.default_rng(count)
            for batch in rng.integers(0, batches, max(count // 10, 1)).tolist():
                named.append(rows_of(batch, rows)["url"][int(rng.integers(rows))])
            request = read_list("\n".join(named).encode(), "list")
            found = _timed(store, Search(request, Settings(), store, Failures()).run)
            yield {"what": "search", "batches": batches, "requests": count, **found}


def _timed(store: Counting, action: Any) -> dict[str, Any]:
    store.requests.clear()
    wall, cpu = time.perf_counter(), time.process_time()
    action()
    return {
        "wall_s": round(time.perf_counter() - wall, 2),
        "cpu_s": round(time.process_time() - cpu, 2),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        **store.requests,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=[60, 600])
    parser.add_argument("--rows", type=int, default=1_000)
    parser.add_argument("--requests", type=int, nargs="+", default=[1, 100, 1_000])
    chosen = parser.parse_args()
    for batches in chosen.batches:
        for line in measure(batches, chosen.rows, chosen.requests):
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
