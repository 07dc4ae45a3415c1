"""Links through our download stage; benchmarks.download runs it in a separate process.

    python -m benchmarks.download_ours URLS SETTINGS_AS_JSON [BATCHES]

Every batch has the same links. Prints one JSON object about the last one.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from laion_etl.core.arrow_memory import save_arrow_memory
from laion_etl.core.schemas import BATCH_SCHEMA, batch_file_name, pair_id
from laion_etl.core.stage_stats import StageStats
from laion_etl.download.stage import download_batch
from laion_etl.io.storage import LocalStore
from laion_etl.settings import DownloadSettings, Settings


def main() -> None:
    save_arrow_memory()  # as `laion-etl stage download` does
    urls = Path(sys.argv[1]).read_text().split()
    changes: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(sys.argv[2]).items()
    }
    batches = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    rows = [
        {
            "pair_id": pair_id(url, "text"),
            "url": url,
            "caption": "text",
            "language": "en",
            "license": "?",
            "page_url": "https://page.example/",
        }
        for url in urls
    ]
    with tempfile.TemporaryDirectory(prefix="laion-bench-") as folder:
        store = LocalStore(Path(folder))
        outputs = []
        for batch in range(batches):
            with store.create(batch_file_name("C", batch)) as file:
                pq.write_table(pa.Table.from_pylist(rows, schema=BATCH_SCHEMA), file)
            outputs.append(file.output)
        count = batches * len(urls)
        store.write_stats(
            "batches/C/_stats.json",
            StageStats("plan", "C", "batches", "f", count, count, outputs=tuple(outputs)),
        )
        del rows
        worker_mb = []
        for batch in range(batches):
            stats = download_batch("C", batch, Settings(download=DownloadSettings(**changes)), store)
            worker_mb.append(round(psutil.Process().memory_info().rss / 1e6))
    figures = {"kept": stats.kept, "dropped": stats.dropped, **stats.details, "worker_mb": worker_mb}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
