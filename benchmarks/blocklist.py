"""Blocklists of tens of millions of entries: time to compile and to open, look-ups per second, memory.

    python -m benchmarks.blocklist [--entries N] [--patterns N]

Random entries are compiled as they are generated, so their text is not stored; each list is then opened
by a new process, which looks up links that are listed and links that are not. The temporary folder (TMPDIR)
needs room for 16 bytes per entry.
"""

import argparse
import io
import multiprocessing
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from laion_etl.blocklists import Blocklists
from laion_etl.blocklists.compiled import map_hashes, sort_hashes, write_hashes
from laion_etl.blocklists.patterns import UrlPatterns
from laion_etl.blocklists.syntax import ListKind, TextReader
from laion_etl.core.kernels import Bytes

_CHUNK = 250_000
_LOOKUPS = 1_000_000
_BATCH = 16_384
_PATHS_PER_HOST = 3
_DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)


def hexadecimal(values: np.ndarray) -> Bytes:
    """Rows of 16 digits."""
    data = values.astype(">u8").view(np.uint8).reshape(-1, 8)
    return _DIGITS[np.stack([data >> 4, data & 15], axis=2).reshape(-1, 16)]


def scrambled(numbers: np.ndarray) -> np.ndarray:
    """Distinct numbers that look random (the finaliser of SplitMix64)."""
    mixed = numbers.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ mixed >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ mixed >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return mixed ^ mixed >> np.uint64(31)


def rows(*columns: Bytes | bytes) -> bytes:
    """Lines of one length from columns of one width, or the same text on each line."""
    count = max(len(column) for column in columns if not isinstance(column, bytes))
    parts = [
        np.tile(np.frombuffer(column, np.uint8), (count, 1)) if isinstance(column, bytes) else column
        for column in columns
    ]
    return np.concatenate(parts, axis=1).tobytes()


def domain_lines(numbers: np.ndarray) -> bytes:
    return rows(hexadecimal(scrambled(numbers))[:, :12], b".example\n")


def url_lines(numbers: np.ndarray) -> bytes:
    """Three paths on each host."""
    hosts = hexadecimal(scrambled(numbers // _PATHS_PER_HOST))[:, :12]
    return rows(hosts, b".example/photos/", hexadecimal(scrambled(numbers))[:, :10], b".jpg\n")


def pair_lines(numbers: np.ndarray) -> bytes:
    return rows(hexadecimal(scrambled(numbers)), hexadecimal(scrambled(~numbers)), b"\n")


LINES: dict[ListKind, Callable[[np.ndarray], bytes]] = {
    ListKind.DOMAINS: domain_lines,
    ListKind.URLS: url_lines,
    ListKind.PAIRS: pair_lines,
}


class Generated(io.RawIOBase):
    """The text of a list, made while it is read; knows how long that took."""

    def __init__(self, kind: ListKind, count: int) -> None:
        self._lines = LINES[kind]
        self._count = count
        self._next = 0
        self._ready = memoryview(b"")
        self.seconds = 0.0
        self.bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        if not self._ready and self._next < self._count:
            started = time.perf_counter()
            stop = min(self._next + _CHUNK, self._count)
            self._ready = memoryview(self._lines(np.arange(self._next, stop)))
            self._next = stop
            self.seconds += time.perf_counter() - started
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        size = min(len(view), len(self._ready))
        view[:size], self._ready = self._ready[:size], self._ready[size:]
        self.bytes += size
        return size


def memory_mib() -> tuple[float, float]:
    """Resident memory of this process: its own, and pages of mapped files, which processes share."""
    return _status_mib("RssAnon"), _status_mib("RssFile")


def peak_mib() -> float:
    return _status_mib("VmHWM")


def _status_mib(name: str) -> float:
    return int(Path("/proc/self/status").read_text().partition(f"{name}:")[2].split()[0]) / 1024


def compile_list(kind: ListKind, count: int, path: Path) -> dict[str, float]:
    """Runs in a separate process."""
    warm_up(kind, path)
    source = Generated(kind, count)
    before = memory_mib()[0]
    started = time.perf_counter()
    write_hashes(kind, TextReader(io.BufferedReader(source, 1 << 22), "generated"), path)
    hashed = time.perf_counter()
    sort_hashes(path)
    return {
        "text_mb": source.bytes / 1e6,
        "hash_s": hashed - started - source.seconds,
        "sort_s": time.perf_counter() - hashed,
        "compile_own_mib": memory_mib()[0] - before,
        "compile_peak_mib": peak_mib(),
        "file_mb": path.stat().st_size / 1e6,
    }


def warm_up(kind: ListKind, path: Path) -> None:
    """Compiles the kernels."""
    write_hashes(kind, TextReader(io.BufferedReader(Generated(kind, 10)), "generated"), path)
    sort_hashes(path)


def look_up(kind: ListKind, count: int, path: Path) -> dict[str, float]:
    """Runs in a separate process, as a worker of the parse stage would."""
    listed, others = (_links(kind, first, count) for first in (0, count))
    answer(kind, _of(kind, np.zeros(1, np.uint64)), others[:10])  # compiles the kernels
    before = memory_mib()
    started = time.perf_counter()
    lists = _of(kind, map_hashes(path))
    opened = time.perf_counter()
    answer(kind, lists, others[:_LOOKUPS])
    first = time.perf_counter()
    found = answer(kind, lists, others[:_LOOKUPS])
    missed = time.perf_counter()
    hits = answer(kind, lists, listed[:_LOOKUPS])
    done = time.perf_counter()
    assert (found, hits) == (0, _LOOKUPS)
    after = memory_mib()
    return {
        "open_ms": 1e3 * (opened - started),
        "first_per_s": _LOOKUPS / (first - opened),
        "others_per_s": _LOOKUPS / (missed - first),
        "listed_per_s": _LOOKUPS / (done - missed),
        "own_mib": after[0] - before[0],
        "mapped_mib": after[1] - before[1],
    }


def _of(kind: ListKind, hashes: Any) -> Blocklists:
    lists: dict[str, Any] = {str(kind): [hashes]}
    return Blocklists(**lists)


def _links(kind: ListKind, first: int, count: int) -> "pa.StringArray | np.ndarray":
    """A million links whose entries are among those from `first` on."""
    numbers = first + np.random.default_rng(1).integers(0, count, _LOOKUPS)
    if kind is ListKind.PAIRS:
        return scrambled(numbers)
    lines = LINES[kind](numbers).decode().splitlines()
    if kind is ListKind.DOMAINS:
        return pa.array([f"www.{line}" for line in lines])
    return pa.array([f"https://{line}?w=300" for line in lines])


def answer(kind: ListKind, lists: Blocklists, links: "pa.StringArray | np.ndarray") -> int:
    """How many are blocked, asked in the batches of the parse stage."""
    if kind is ListKind.DOMAINS:
        return sum(map(lists.domain_blocked, pa.array(links).to_pylist()))
    ask = lists.urls_blocked if kind is ListKind.URLS else lists.pairs_blocked
    return sum(int(ask(links[first : first + _BATCH]).sum()) for first in range(0, len(links), _BATCH))


def patterns_per_s(count: int) -> float:
    """URLs per second against `count` patterns."""
    words = [f"{number:x}" for number in random.Random(1).sample(range(10**6, 10**9), count)]
    patterns = UrlPatterns([f"^https?://[^/]*{word}[0-9]*/" for word in words])
    urls = _links(ListKind.URLS, 0, 10**6)[:_BATCH]
    patterns.matches(urls[:10])
    started = time.perf_counter()
    patterns.matches(urls)
    return _BATCH / (time.perf_counter() - started)


COLUMNS = {
    "text MB": "text_mb",
    "hash s": "hash_s",
    "sort s": "sort_s",
    "peak MiB": "compile_peak_mib",
    "file MB": "file_mb",
    "open ms": "open_ms",
    "first look-ups/s": "first_per_s",
    "others/s": "others_per_s",
    "listed/s": "listed_per_s",
    "own MiB": "own_mib",
    "mapped MiB": "mapped_mib",
}


def measure(kind: ListKind, count: int) -> dict[str, float]:
    context = multiprocessing.get_context("spawn")
    measured: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="laion_etl-blocklist-") as folder:
        for step in (compile_list, look_up):
            with context.Pool(1) as pool:
                measured |= pool.apply(step, (kind, count, Path(folder) / "list.u64"))
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--entries", type=int, default=50_000_000)
    parser.add_argument("--patterns", type=int, default=1000)
    options = parser.parse_args()
    table = Table("list", *COLUMNS, title=f"{options.entries:,} entries of each kind")
    console = Console(width=150)
    for kind in LINES:
        measured = measure(kind, options.entries)
        values = [measured[name] for name in COLUMNS.values()]
        table.add_row(str(kind), *(f"{value:,.0f}" if value >= 20 else f"{value:.1f}" for value in values))
    console.print(table)
    for count in (10, 100, options.patterns):
        console.print(f"{count:,} patterns: {patterns_per_s(count):,.0f} URLs/s")


if __name__ == "__main__":
    main()
