"""Parsing a WAT file: gunzip alone, the peers' ways, ours without and with languages; one core.

    python -m benchmarks.parse [--pages N] [--scale N] [--peers PYTHON] [--warc N]

Every way runs in a separate process on the same generated file; CPU seconds are those of the best of three
runs. The peers run in the environment that `make peers` makes; without it they are left out, and a line says
so. `--scale` also parses a file that many times as long: cost per page and memory should stay as they are.
`--warc` compares the sources instead: so many pages in a WAT file and in a WARC file, without languages.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from isal import igzip
from rich.console import Console
from rich.table import Table

from benchmarks.warc_file import write_warc
from benchmarks.wat_file import write_wat
from laion_etl.core.arrow_memory import save_arrow_memory
from laion_etl.core.byte_arena import ByteArena
from laion_etl.core.caption_source import CaptionSource
from laion_etl.io.storage import LocalStore
from laion_etl.parse.file_counts import FileCounts
from laion_etl.parse.gzip_members import read_members
from laion_etl.parse.stage import parse_partition
from laion_etl.parse.wat_workers import FileParser
from laion_etl.settings import Settings

_ROOT = Path(__file__).parents[1]
_PEERS = _ROOT / ".venv-peers" / "bin" / "python"
_RUNS = 3
_GROUP_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Way:
    """One way to read the file."""

    name: str
    title: str
    is_peer: bool = False


_LIMIT = Way("gunzip", "(a) gunzip only: isal, a stream")
_PEER = Way("pairs", "(b) FastWARC + simdjson: absolute URLs, MD5, no duplicates", is_peer=True)
_OURS = Way("without-languages", "(c) ours without languages")
_COMPLETE = Way("complete", "(d) ours complete, with CLD3")
_WRITTEN = Way("stage", "ours complete and written as parquet")
_WAYS = (
    _LIMIT,
    Way("gunzip", "gunzip only: FastWARC", is_peer=True),
    Way("members", "gunzip only: ours, libdeflate by members"),
    Way("links", "FastWARC + simdjson: links with a text as they stand", is_peer=True),
    _PEER,
    Way("cc2dataset", "cc2dataset: its extraction of one file", is_peer=True),
    _OURS,
    _COMPLETE,
    _WRITTEN,
)


def _gunzip(path: Path) -> int:
    with igzip.open(path, "rb") as file:  # type: ignore[no-untyped-call]
        return sum(len(part) for part in iter(lambda: file.read(1 << 20), b""))


def _members(path: Path) -> int:
    arena = ByteArena(_GROUP_BYTES)
    with path.open("rb") as file:
        return sum(arena.size for _ in read_members(file, arena, _GROUP_BYTES))


def _pairs(path: Path, detector: str, **others: Any) -> int:
    settings = Settings()
    chosen = replace(settings.parse, language_detector=detector, **others)
    parser = FileParser(replace(settings, parse=chosen))
    return sum(table.num_rows for table in parser.pairs(0, str(path), FileCounts()))


def _stage(path: Path) -> int:
    settings = replace(Settings(), parse=replace(Settings().parse, jobs=1))
    with tempfile.TemporaryDirectory() as folder:
        return parse_partition("C", 0, [(0, str(path))], settings, LocalStore(Path(folder))).kept


_OWN: dict[str, Callable[[Path], int]] = {
    "gunzip": _gunzip,
    "members": _members,
    "without-languages": lambda path: _pairs(path, "none"),
    "complete": lambda path: _pairs(path, "cld3"),
    "stage": _stage,
    "sources": lambda path: _pairs(path, "none", captions=("alt", "title", "link", "og")),
    "warc": lambda path: _pairs(path, "none", source="warc"),
    "warc-sources": lambda path: _pairs(path, "none", source="warc", captions=tuple(CaptionSource)),
}


def _measure(name: str, path: Path, runs: int) -> None:
    """Runs in a separate process: prints the figures of one of our ways."""
    save_arrow_memory()  # as `laion-etl stage parse` does
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small.gz"
        (write_warc if name.startswith("warc") else write_wat)(small, 20)
        _OWN[name](small)  # compiled code is loaded once per process; the rate excludes that cost
    loaded = time.process_time()
    times = []
    for _ in range(runs):
        start = _cpu_s()
        count = _OWN[name](path)
        times.append(_cpu_s() - start)
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
    print(json.dumps({"cpu_s": min(times), "count": count, "peak_mb": peak, "start_s": loaded}))


def _cpu_s() -> float:
    """CPU seconds of this process, and of its processes that have ended."""
    return sum(os.times()[:4])


def _figures(way: Way, path: Path, peers: Path, runs: int = _RUNS) -> dict[str, Any]:
    if way.is_peer:
        command = [str(peers), str(_ROOT / "benchmarks" / "parse_peers.py"), way.name, str(path)]
    else:
        command = [sys.executable, "-m", "benchmarks.parse", "--measure", way.name, str(path), str(runs)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=_ROOT)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _compare(path: Path, pages: int, peers: Path) -> None:
    ways = [way for way in _WAYS if peers.exists() or not way.is_peer]
    found = {way: _figures(way, path, peers) for way in ways}
    size = path.stat().st_size / 1e6
    table = Table("way", "cpu s", "MB(gz)/s", "pages/s", "of (a)", "of (b)", "peak MB", "counted")
    for way, figures in found.items():
        cpu_s = figures["cpu_s"]
        of_peer = f"{found[_PEER]['cpu_s'] / cpu_s:.2f}" if _PEER in found else "-"
        of_limit = f"{found[_LIMIT]['cpu_s'] / cpu_s:.2f}"
        table.add_row(
            way.title, f"{cpu_s:.2f}", f"{size / cpu_s:.0f}", f"{pages / cpu_s:,.0f}", of_limit, of_peer,
            f"{figures['peak_mb']:.0f}", f"{figures['count']:,}",
        )  # fmt: skip
    console = Console(width=150)
    console.print(f"{pages:,} pages, {size:.1f} MB gzipped")
    console.print(table)
    console.print(f"start of a process, CPU s (imports, compiled code loaded): {found[_OURS]['start_s']:.1f}")
    if _PEER not in found:
        console.print(f"without the peers: {peers} is not there (make peers)")


def _scale(path: Path, pages: int, times: int, peers: Path) -> None:
    """The same ways on `times` such files with other pages behind one another."""
    table = Table("pages", "way", "cpu s", "cpu µs per page", "peak MB")
    longer = path.with_name("longer.warc.wat.gz")
    path.replace(longer)
    with longer.open("ab") as file:
        for seed in range(1, times):
            write_wat(path, pages, seed)
            file.write(path.read_bytes())
    for way in (_LIMIT, _OURS, _COMPLETE, _WRITTEN):
        figures = _figures(way, longer, peers, runs=1)
        per_page = figures["cpu_s"] / (times * pages) * 1e6
        table.add_row(
            f"{times * pages:,}", way.title, f"{figures['cpu_s']:.2f}", f"{per_page:.1f}",
            f"{figures['peak_mb']:.0f}",
        )  # fmt: skip
    Console(width=150).print(table)


def _compare_sources(folder: Path, pages: int) -> None:
    wat, warc = folder / "generated.warc.wat.gz", folder / "generated.warc.gz"
    write_wat(wat, pages)
    write_warc(warc, pages)
    table = Table("source", "captions", "MB(gz)", "cpu s", "cpu µs per page", "pairs")
    for path, name, captions in (
        (wat, "without-languages", "alt"),
        (wat, "sources", "alt, title, link, og"),
        (warc, "warc", "alt"),
        (warc, "warc-sources", "all"),
    ):
        found = _figures(Way(name, ""), path, _PEERS)
        table.add_row(
            "WAT" if path == wat else "WARC", captions, f"{path.stat().st_size / 1e6:.1f}",
            f"{found['cpu_s']:.2f}", f"{found['cpu_s'] / pages * 1e6:.0f}", f"{found['count']:,}",
        )  # fmt: skip
    Console(width=150).print(table)


def main() -> None:
    if sys.argv[1:2] == ["--measure"]:
        _measure(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pages", type=int, default=20_000)
    parser.add_argument("--scale", type=int, default=10)
    parser.add_argument(
        "--peers", type=Path, default=_PEERS, help="Python with benchmarks/peers.txt installed"
    )
    parser.add_argument("--warc", type=int, default=0, help="compare WAT and WARC files of so many pages")
    options = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        if options.warc:
            _compare_sources(Path(folder), options.warc)
            return
        path = Path(folder) / "generated.warc.wat.gz"
        write_wat(path, options.pages)
        _compare(path, options.pages, options.peers)
        if options.scale > 1:
            _scale(path, options.pages, options.scale, options.peers)


if __name__ == "__main__":
    main()
