"""Compiles the kernels once, in a process of their own, so that no parser pays for it in memory.

    python -m laion_etl.parse.compile

Compiling takes some fifteen seconds and a hundred megabytes more than running what was compiled. `make setup`
and the image do it ahead; a parser whose kernels were changed since, or that runs on another kind of CPU, has
it done first.
"""

import json
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from laion_etl.compiled import compiled_marker

_LINKS = [
    {"path": "IMG@/src", "url": "a/b.jpg?w=1", "alt": "A red house", "title": "The house"},
    {"path": "IMG@/src", "url": "https://img.example/c.jpg", "alt": "“Quoted\\u00e9” text 12 March"},
    {"path": "IMG@/src", "url": "//img.example/d.jpg", "alt": "Красный дом на холме"},
    {"path": "IMG@/src", "url": "/IMG_1.JPG", "alt": "IMG_1.JPG"},
]


def ensure_compiled() -> None:
    """Has the kernels compiled unless that was done before for this version and CPU."""
    if not compiled_marker().exists():
        # Should it fail, the parser compiles for itself what it needs, or fails with the same cause.
        subprocess.run([sys.executable, "-m", "laion_etl.parse.compile"], check=False)


def _record(head: dict[str, str]) -> bytes:
    """A gzip member with the metadata record of a page."""
    html = {"Head": head, "Links": _LINKS}
    envelope = {
        "WARC-Header-Metadata": {"WARC-Target-URI": "https://www.example/x/"},
        "Payload-Metadata": {"HTTP-Response-Metadata": {"HTML-Metadata": html}},
    }
    payload = json.dumps({"Envelope": envelope}, separators=(",", ":"), ensure_ascii=False).encode()
    warc = "WARC/1.0\r\nWARC-Type: metadata\r\nWARC-Target-URI: https://www.example/x/\r\n"
    data = f"{warc}Content-Length: {len(payload)}\r\n\r\n".encode() + payload + b"\r\n\r\n"
    return zlib.compress(data, wbits=31)


def _sample() -> Iterator[bytes]:
    yield _record({})
    yield _record({"Base": "/base/"})
    yield _record({"Title": "the same again"})


def _listed(folder: Path, name: str, entries: str) -> tuple[str]:
    """A blocklist of some entries, as settings name it."""
    path = folder / f"{name}.txt"
    path.write_text(entries)
    return (str(path),)


def main() -> None:
    """Parses a few made-up records, which takes every kernel once."""
    from laion_etl.parse.files import FileCounts, FileParser
    from laion_etl.settings import CoreSettings, ParseSettings, Settings

    print("compiling the parser (once, some seconds) ...", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sample.warc.wat.gz"
        path.write_bytes(b"".join(_sample()))
        rules = ParseSettings(
            language_detector="none",
            blocked_domains=_listed(Path(folder), "domains", "blocked.example\nbücher.example"),
            blocked_urls=_listed(Path(folder), "urls", "www.example/blocked/\nhttps://www.example/b.jpg?w"),
            blocked_pairs=_listed(Path(folder), "pairs", "00112233445566778899aabbccddeeff"),
        )
        parser = FileParser(Settings(core=CoreSettings(data_dir=folder), parse=rules))
        for _ in parser.pairs(0, str(path), FileCounts()):
            pass
    compiled_marker().touch()


if __name__ == "__main__":
    main()
