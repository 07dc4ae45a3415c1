"""One batch through our download stage; benchmarks.download runs it as a process of its own.

    python -m benchmarks.download_ours URLS SETTINGS_AS_JSON

Prints one JSON object.
"""

import json
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from laion_etl.download.stage import download_batch
from laion_etl.records import BATCH_SCHEMA, StageStats, pair_id
from laion_etl.settings import DownloadSettings, Settings
from laion_etl.storage import LocalStore


def main() -> None:
    urls = Path(sys.argv[1]).read_text().split()
    changes = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(sys.argv[2]).items()}
    rows = [
        {
            "pair_id": pair_id(url, "text"),
            "url": url,
            "alt": "text",
            "language": "en",
            "license": "?",
            "page_url": "https://page.example/",
        }
        for url in urls
    ]
    with tempfile.TemporaryDirectory(prefix="laion-bench-") as folder:
        store = LocalStore(Path(folder))
        with store.create("batches/C/000000000.parquet") as file:
            pq.write_table(pa.Table.from_pylist(rows, schema=BATCH_SCHEMA), file)
        plan = StageStats("plan", "C", "batches", "f", len(urls), len(urls), outputs=(file.output,))
        store.write_stats("batches/C/_stats.json", plan)
        stats = download_batch("C", 0, Settings(download=DownloadSettings(**changes)), store)
    print(json.dumps({"kept": stats.kept, "dropped": stats.dropped, **stats.details}))


if __name__ == "__main__":
    main()
