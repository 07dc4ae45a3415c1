"""The peers' ways of reading image links out of a WAT file; benchmarks.parse runs it in their environment.

    python benchmarks/parse_peers.py WHAT FILE

Prints one JSON object: CPU seconds of the best run, the count, and the peak memory. Needs the
packages of benchmarks/peers.txt, and no code of this project.
"""

import hashlib
import io
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urljoin

import simdjson
from fastwarc.stream_io import GzipReader
from fastwarc.warc import ArchiveIterator, WarcRecordType

_RUNS = 3


def gunzip(path: Path) -> int:
    """FastWARC's gzip reader alone: bytes."""
    with path.open("rb") as file:
        reader = GzipReader(file)
        return sum(len(part) for part in iter(lambda: reader.read(1 << 20), b""))


def links(path: Path) -> int:
    """FastWARC and simdjson: image links with a text, unresolved."""
    found = []
    with path.open("rb") as file:
        for record in ArchiveIterator(file, record_types=WarcRecordType.metadata, parse_http=False):
            envelope = simdjson.loads(record.reader.read())["Envelope"]
            html = envelope["Payload-Metadata"].get("HTTP-Response-Metadata", {}).get("HTML-Metadata", {})
            for link in html.get("Links", ()):
                if link.get("path") == "IMG@/src" and link.get("alt"):
                    found.append((link["url"], link["alt"]))
    return len(found)


def pairs(path: Path) -> int:
    """The same with absolute http(s) URLs, an MD5 of each pair, and duplicates left out."""
    seen: set[bytes] = set()
    found = []
    with path.open("rb") as file:
        for record in ArchiveIterator(file, record_types=WarcRecordType.metadata, parse_http=False):
            envelope = simdjson.loads(record.reader.read())["Envelope"]
            html = envelope["Payload-Metadata"].get("HTTP-Response-Metadata", {}).get("HTML-Metadata")
            if not html:
                continue
            page = envelope["WARC-Header-Metadata"]["WARC-Target-URI"]
            base = urljoin(page, html["Head"]["Base"]) if "Base" in html.get("Head", {}) else page
            for link in html.get("Links", ()):
                if link.get("path") != "IMG@/src" or not link.get("alt"):
                    continue
                url, alt = link["url"], link["alt"]
                if not url.startswith(("http://", "https://")):
                    url = urljoin(base, url)
                if not url.startswith(("http://", "https://")):
                    continue
                identity = hashlib.md5((alt + url).encode(), usedforsecurity=False).digest()
                if identity not in seen:
                    seen.add(identity)
                    found.append((identity, url, alt, page))
    return len(found)


def cc2dataset(path: Path) -> int:
    """cc2dataset's own extraction of one WAT file, before it deduplicates."""
    from cc2dataset.main import extract_documents_from_wat
    from loguru import logger

    logger.remove()
    return len(extract_documents_from_wat(io.BytesIO(path.read_bytes()), "image"))


def peak_mb() -> float:
    """Peak memory, MB; ru_maxrss would be that of the process this one was forked from, if larger."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


_WAYS: dict[str, Callable[[Path], int]] = {
    "gunzip": gunzip,
    "links": links,
    "pairs": pairs,
    "cc2dataset": cc2dataset,
}


def main() -> None:
    way, path = _WAYS[sys.argv[1]], Path(sys.argv[2])
    times = []
    for _ in range(_RUNS):
        start = time.process_time()
        count = way(path)
        times.append(time.process_time() - start)
    print(json.dumps({"cpu_s": min(times), "count": count, "peak_mb": peak_mb()}))


if __name__ == "__main__":
    main()
