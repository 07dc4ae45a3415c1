"""Reading a WAT file: gunzip alone, warcio with whole JSON, ours, and ours with texts, URLs and language.

    python -m benchmarks.parse [PAGES]

One core, the same generated file, CPU seconds of the best of three runs. The peers' way (FastWARC with
simdjson, cc2dataset) is not here yet.
"""

import io
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import orjson
from isal import igzip
from rich.console import Console
from rich.table import Table
from warcio.archiveiterator import ArchiveIterator

from benchmarks.wat_file import write_wat
from laion_etl.parse.stage import PartitionParser
from laion_etl.parse.wat import Page, read_pages
from laion_etl.settings import ParseSettings

_RUNS = 3


def gunzip(data: bytes) -> int:
    with igzip.open(io.BytesIO(data)) as file:
        return sum(len(part) for part in iter(lambda: file.read(1 << 20), b""))


def warcio_whole_json(data: bytes) -> int:
    images = 0
    for record in ArchiveIterator(io.BytesIO(data)):
        if record.rec_type != "metadata":
            continue
        payload = orjson.loads(record.raw_stream.read())["Envelope"]["Payload-Metadata"]
        html = payload.get("HTTP-Response-Metadata", {}).get("HTML-Metadata", {})
        images += sum(link.get("path") == "IMG@/src" for link in html.get("Links", ()))
    return images


def ours_reading(data: bytes) -> int:
    pages = read_pages(io.BytesIO(data), "generated")
    return sum(len(page.images) for page in pages if isinstance(page, Page))


def best_cpu_s(work: Callable[[], object]) -> float:
    times = []
    for _ in range(_RUNS):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    pages = int(sys.argv[1]) if len(sys.argv) > 1 else 5_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "generated.warc.wat.gz"
        write_wat(path, pages)
        data = path.read_bytes()
        if ours_reading(data) != warcio_whole_json(data):
            raise SystemExit(json.dumps({"images": [ours_reading(data), warcio_whole_json(data)]}))
        seconds = {
            "gunzip (isal), the limit": best_cpu_s(lambda: gunzip(data)),
            "warcio, whole JSON": best_cpu_s(lambda: warcio_whole_json(data)),
            "ours: pages and image links": best_cpu_s(lambda: ours_reading(data)),
            "ours: pairs, complete": best_cpu_s(
                lambda: sum(1 for _ in PartitionParser(ParseSettings()).pairs(0, str(path)))
            ),
        }
    limit = seconds["gunzip (isal), the limit"]
    table = Table("what", "cpu s", "MB(gz)/s", "of gunzip's speed")
    for what, cpu_s in seconds.items():
        table.add_row(what, f"{cpu_s:.2f}", f"{len(data) / 1e6 / cpu_s:.0f}", f"{limit / cpu_s:.2f}")
    Console(width=90).print(table)


if __name__ == "__main__":
    main()
