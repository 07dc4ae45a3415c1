"""Postgres compared with its own limit and with the plain way: load, duplicates, growth, and the batch queue.

    python -m benchmarks.database [--millions 21] [--curve docs/images/load-curve.svg]

Everything runs on one embedded server, on synthetic pairs from `pairs_file` (a million a partition). Per
million pairs: (a) raw COPY of whole pairs into an unlogged table without index, the limit; (b) the plain
way: COPY into a staging table, then INSERT .. ON CONFLICT DO NOTHING into a hash-partitioned table that
holds everything; (c) ours into an empty table; (d) ours into a table that grows, each load followed by one
into an empty table next to it, because the speed of a server drifts; (e) ours when all pairs are
known already. Then (f) four partitions by 1, 2 and 4 loaders at once, each a process, and by raw COPY over as
many connections. Both connect for each partition, and COPY reads its rows from a file: that is a quarter of
its time with 300,000 rows. So (f) gives a higher ratio to COPY than (c) to (a), which use open connections
and rows in memory. Then 64 workers claim and complete batches: alone, beside a planner at work and a loader
that waits, and beside a process that only keeps a core busy, in turn. Figures go to RESULTS.md by hand.
"""

import argparse
import hashlib
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from psycopg.types.json import Jsonb

from laion_etl.cli import warm_kernels
from laion_etl.core.numba_cache import ensure_compiled
from laion_etl.core.schemas import PAIR_SCHEMA, partition_name
from laion_etl.core.stage_stats import StageStats
from laion_etl.database.connection import Database, open_database
from laion_etl.database.embedded import running_server
from laion_etl.database.load import crawl_number, load_partition
from laion_etl.database.queries import query
from laion_etl.database.queue import BatchQueue
from laion_etl.database.range_locks import take_ranges
from laion_etl.io.storage import LocalStore, Store
from laion_etl.settings import CoreSettings, Settings

CRAWL = "BENCH"
ROWS = 1_000_000
_CLAIMS_A_SECOND = 1_500  # more than there are
_DONE_BEFORE = 40_000  # batches done since the others began, which takes a large crawl a day
_WORDS = [
    word
    for word in (Path(__file__).parent / "words.txt").read_text().lower().split()
    if word.isascii() and word.isalpha()
]
_PARTITIONS = 4
_LOADERS = (1, 2, 4)
_WARM_UP = -1
_COLUMNS = ["pair_id", "url", "caption", "language", "license", "page_url"]


def pairs_file(store: Store, partition: int, rows: int, crawl: str = CRAWL) -> float:
    """A parsed partition as a crawl has it, some seven pairs a page; returns bytes of text per pair."""
    rng = np.random.default_rng(partition)
    number = pa.array(np.arange(rows)).cast(pa.string())
    page_of = np.repeat(np.arange(rows), np.minimum(rng.exponential(6, rows).astype(int) + 1, rows))[:rows]
    host_of = np.minimum(rng.exponential(8000, rows).astype(int), 49_999)[page_of]
    host = _joined(".", _joined("-", *_words(np.random.default_rng(0), 2, 50_000)), "example.org").take(
        pa.array(host_of)
    )
    path = _joined("-", *_words(rng, 5, rows), number).take(pa.array(page_of))
    page = _joined("", "https://www.", host, "/", path, ".html")
    year = pa.array(2000 + np.arange(rows) % 20).cast(pa.string())
    name = _joined("-", *_words(rng, 4, rows), f"{partition}x", number)
    url = _joined("", "https://cdn.", host, "/wp-content/uploads/", year, "/", name, ".jpg")
    lengths = np.minimum(rng.exponential(7, rows).astype(int) + 2, 60)
    ends = np.cumsum(lengths).astype(np.int32)
    texts = pa.ListArray.from_arrays(
        np.concatenate(([0], ends)).astype(np.int32), *_words(rng, 1, int(ends[-1]))
    )
    caption = pc.binary_join(texts, " ")
    pairs = zip(url.to_pylist(), caption.to_pylist(), strict=True)
    identity = [hashlib.md5((u + a).encode(), usedforsecurity=False).digest() for u, a in pairs]
    language = pa.array(["en", "en", "de", "", "fr", "ja"]).take(pa.array(rng.integers(0, 6, rows)))
    nothing, unknown = pa.array([""] * rows), pa.array(["?"] * rows)
    numbers = (
        pa.array(np.full(rows, 0.9, np.float32)),
        pa.array(np.full(rows, partition)),
        pa.array(np.arange(rows)),
    )
    sources = (pa.repeat("alt", rows), nothing)
    columns = (
        identity,
        url,
        caption,
        nothing,
        language,
        numbers[0],
        unknown,
        page,
        host,
        *numbers[1:],
        *sources,
    )
    arrays = [
        (c if isinstance(c, pa.Array) else pa.array(c)).cast(f.type)
        for c, f in zip(columns, PAIR_SCHEMA, strict=True)
    ]
    unit = partition_name(partition)
    with store.create(f"pairs/{crawl}/{unit}.parquet") as file:
        pq.write_table(pa.Table.from_arrays(arrays, schema=PAIR_SCHEMA), file, compression="zstd")
    stats = StageStats("parse", crawl, unit, f"bench-{partition}", rows, rows, outputs=(file.output,))
    store.write_stats(f"pairs/{crawl}/{unit}.json", stats)
    lengths_of = [
        pc.sum(pc.binary_length(column)).as_py() for column in (url, caption, language, unknown, page)
    ]
    return float(sum(lengths_of) / rows)


def _words(rng: np.random.Generator, columns: int, rows: int) -> list[pa.StringArray]:
    words = pa.array(_WORDS)
    return [words.take(pa.array(rng.integers(0, len(words), rows))) for _ in range(columns)]


def _joined(separator: str, *parts: pa.StringArray | str) -> pa.StringArray:
    return pc.binary_join_element_wise(*parts, separator)


def copy_rows(store: Store, partition: int) -> bytes:
    """The partition in the format of COPY, whole pairs, as a client would send it."""
    with store.open(f"pairs/{CRAWL}/{partition_name(partition)}.parquet") as file:
        table = pq.read_table(file, columns=_COLUMNS)
    out = [b"PGCOPY\n\xff\r\n\0", bytes(8)]
    columns = [table.column(name).to_pylist() for name in _COLUMNS]
    for row in zip(*columns, strict=True):
        out.append((6).to_bytes(2))
        for value in row:
            field = value if isinstance(value, bytes) else value.encode()
            out += [len(field).to_bytes(4), field]
    out.append(b"\xff\xff")
    return b"".join(out)


def send(connection: psycopg.Connection, statement: str, data: bytes) -> None:
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for start in range(0, len(data), 1 << 18):
            copy.write(data[start : start + (1 << 18)])


_WHOLE = "pair_id uuid, url text, caption text, language text, license text, page_url text"


def raw_copy(connection: psycopg.Connection, data: bytes) -> float:
    connection.execute(f"drop table if exists raw; create unlogged table raw ({_WHOLE})")
    return timed(lambda: send(connection, "copy raw from stdin (format binary)", data))


def plain_way(connection: psycopg.Connection, data: bytes) -> float:
    """Staging table and ON CONFLICT, into a table with whole pairs."""
    connection.execute(
        f"drop table if exists plain; create table plain ({_WHOLE}, crawl_no smallint, "
        "partition integer, primary key (pair_id)) partition by hash (pair_id)"
    )
    for remainder in range(16):
        connection.execute(
            f"create table plain_{remainder} partition of plain for values with "
            f"(modulus 16, remainder {remainder})"
        )

    def load() -> None:
        with connection.transaction():
            connection.execute(f"create unlogged table staging ({_WHOLE})")
            send(connection, "copy staging from stdin (format binary)", data)
            connection.execute(
                "insert into plain select *, 1, 1 from staging order by pair_id "
                "on conflict (pair_id) do nothing"
            )
            connection.execute("drop table staging")

    seconds = timed(load)
    connection.execute("drop table plain")
    return seconds


def timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def load_seconds(partition: int, settings: Settings, store: Store, database: Database) -> float:
    return timed(lambda: load_partition(CRAWL, partition, settings, store, database))


def clear(connection: psycopg.Connection) -> None:
    connection.execute("truncate pair, page, batch, partition, crawl cascade")
    connection.execute("checkpoint")


def disk_bytes(connection: psycopg.Connection) -> int:
    row = connection.execute(
        "select sum(pg_total_relation_size(relid)) from (select relid from pg_partition_tree('pair') "
        "union all select relid from pg_partition_tree('page')) as tables"
    ).fetchone()
    return int(row[0]) if row else 0


@dataclass(frozen=True)
class Point:
    """A load of a million pairs into a table of `before` rows, and one into an empty table right after it."""

    before: int
    seconds: float
    empty_seconds: float
    bytes_per_pair: float


def loads(settings: Settings, empty: Settings, store: Store, rows: int, millions: int) -> list[Point]:
    """Prints (a) to (e); returns (d).

    CPU seconds of (a) to (c) include making or emptying the table. They can be compared on a busy machine,
    where the times cannot.
    """
    folder = Path(settings.core.data_dir)
    text = pairs_file(store, 0, rows)
    data = copy_rows(store, 0)
    curve = []
    with open_database(settings) as database, open_database(empty) as other:
        load_seconds(0, settings, store, database)  # compiles
        ways: dict[str, Callable[[], float]] = {
            "(a) raw COPY": lambda: raw_copy(other.connection, data),
            "(b) staging, ON CONFLICT": lambda: plain_way(other.connection, data),
            "(c) ours, empty": lambda: empty_seconds(0, empty, store, other),
        }
        costs: dict[str, list[tuple[float, float, float]]] = {label: [] for label in ways}
        for _ in range(3):
            for label, way in ways.items():
                client, server = time.process_time(), server_cpu_seconds(folder)
                seconds = way()
                client, server = time.process_time() - client, server_cpu_seconds(folder) - server
                costs[label].append((seconds, client, server))
        other.connection.execute("drop table raw")
        print(f"text per pair: {text:.0f} bytes; {rows:,} pairs a load", flush=True)
        a = statistics.median(seconds for seconds, _, _ in costs["(a) raw COPY"])
        for label, measured in costs.items():
            seconds, client, server = (
                statistics.median(one[place] for one in measured) for place in range(3)
            )
            print(
                f"{label:26} {seconds / rows * 1e6:6.2f} s  {rows / seconds:9,.0f}/s  "
                f"{a / seconds:.2f} of (a); CPU s: client {client:.2f}, server {server:.2f}"
            )
        for number in range(1, millions + 1):
            pairs_file(store, number, rows)
            before = number * rows
            seconds = load_seconds(number, settings, store, database)
            empty_now = empty_seconds(number, empty, store, other)
            size = disk_bytes(database.connection) / (before + rows)
            curve.append(Point(before, seconds, empty_now, size))
            print(
                f"(d) with {before / 1e6:4.1f} M rows: {rows / seconds:9,.0f}/s, "
                f"{empty_now / seconds:.2f} of the {rows / empty_now:,.0f}/s of an empty table; "
                f"{size:.0f} bytes a pair, "
                f"{size / text:.2f} of the text",
                flush=True,
            )
            if number * rows in (5e6, 10e6, 20e6):
                known_already(number, settings, store, database, empty_now)
            store.delete(f"pairs/{CRAWL}/{partition_name(number)}.parquet")
    for millions_before in (5, 10, 20):
        near = [p.empty_seconds / p.seconds for p in curve if abs(p.before - millions_before * 1e6) <= 1e6]
        if near:
            ratio = statistics.median(near)
            print(f"(d) at {millions_before} M rows: {ratio:.2f} of an empty table, median of {len(near)}")
    return curve


def loaders(settings: Settings, folder: Path, store: Store, rows: int, rounds: int) -> None:
    """Loads four partitions into an empty table by 1, 2 and 4 processes at once; raw COPY by as many."""
    for number in range(_PARTITIONS):
        pairs_file(store, number, rows)
        (folder / f"{number}.copy").write_bytes(copy_rows(store, number))
    seconds: dict[tuple[str, int], list[float]] = {}
    with open_database(settings) as database:
        for count in _LOADERS * rounds:
            for name, way in (("copy", copy_one), ("load", load_one)):
                clear(database.connection)
                database.connection.execute(f"drop table if exists raw; create unlogged table raw ({_WHOLE})")
                with ProcessPoolExecutor(count, multiprocessing.get_context("spawn")) as pool:
                    list(pool.map(partial(way, settings, folder), [_WARM_UP] * count))
                    began, server = time.perf_counter(), server_cpu_seconds(folder)
                    client = sum(pool.map(partial(way, settings, folder), range(_PARTITIONS)))
                    took, server = time.perf_counter() - began, server_cpu_seconds(folder) - server
                seconds.setdefault((name, count), []).append(took)
                print(
                    f"   {name} by {count}: {took:.2f} s; CPU s: clients {client:.2f}, server {server:.2f}",
                    flush=True,
                )
    total = rows * _PARTITIONS
    alone = statistics.median(seconds["load", 1])
    for count in _LOADERS:
        copy, load = (statistics.median(seconds[way, count]) for way in ("copy", "load"))
        print(
            f"(f) {count} loaders: {total / load:9,.0f} pairs/s, {alone / load:.2f} of one, "
            f"{copy / load:.2f} of raw COPY by as many connections ({total / copy:,.0f}/s), medians"
        )


def server_cpu_seconds(folder: Path) -> float:
    """CPU seconds of all processes of the embedded server since it started."""
    postmaster = int((folder / "postgres" / "postmaster.pid").read_text().split()[0])
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    ticks = 0
    for pid in (postmaster, *map(int, children)):
        try:
            values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except FileNotFoundError:  # it has just ended: count again, with what the postmaster knows of it
            return server_cpu_seconds(folder)
        ticks += sum(map(int, values[11:15] if pid == postmaster else values[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def copy_one(settings: Settings, folder: Path, partition: int) -> float:
    """Sends a partition by raw COPY; returns CPU seconds of this process."""
    if partition == _WARM_UP:
        return 0.0
    data = (folder / f"{partition}.copy").read_bytes()
    began = time.process_time()
    with open_database(settings) as database:
        send(database.connection, "copy raw from stdin (format binary)", data)
    return time.process_time() - began


def load_one(settings: Settings, folder: Path, partition: int) -> float:
    """Loads a partition; returns CPU seconds of this process."""
    began = time.process_time()
    if partition == _WARM_UP:
        ensure_compiled()
        warm_kernels.main()
        return 0.0
    with open_database(settings) as database:
        load_partition(CRAWL, partition, settings, LocalStore(folder / "store"), database)
    return time.process_time() - began


def empty_seconds(partition: int, settings: Settings, store: Store, database: Database) -> float:
    """A load into an empty table, without a checkpoint that would favour it."""
    database.connection.execute("truncate pair, page, batch, partition, crawl cascade")
    return load_seconds(partition, settings, store, database)


def curve_svg(curve: list[Point], rows: int) -> str:
    """Pairs a second over million rows in the table, compared with the same load into an empty table."""
    width, height, left, bottom = 720, 300, 60, 40
    fastest = max(rows / min(p.seconds, p.empty_seconds) for p in curve)
    last = max(p.before for p in curve)

    def at(before: float, rate: float) -> str:
        x = left + (width - left - 10) * before / last
        return f"{x:.1f},{(height - bottom) * (1 - rate / fastest / 1.1):.1f}"

    lines = [
        (name, color, [at(p.before, rows / getattr(p, field)) for p in curve])
        for name, color, field in (
            ("into the table", "#1f6f8b", "seconds"),
            ("into an empty table", "#999", "empty_seconds"),
        )
    ]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        'font-size="12"><rect width="100%" height="100%" fill="white"/>'
    ]
    for rate in range(0, int(fastest * 1.1), 100_000):
        _, y = at(0, rate).split(",")
        parts.append(f'<line x1="{left}" x2="{width - 10}" y1="{y}" y2="{y}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 6}" y="{y}" text-anchor="end" dy="4">{rate // 1000:,} k/s</text>')
    for before in range(0, last + 1, 5_000_000):
        x, y = at(before, 0).split(",")
        parts.append(
            f'<text x="{x}" y="{y}" text-anchor="middle" dy="18">{before // 1_000_000} M rows</text>'
        )
    for place, (name, color, points) in enumerate(lines):
        parts.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts.append(f'<text x="{left + 12 + 140 * place}" y="{height - 6}" fill="{color}">{name}</text>')
    return "\n".join([*parts, "</svg>\n"])


def known_already(number: int, settings: Settings, store: Store, database: Database, empty: float) -> None:
    """The same pairs again, as those of another crawl: nothing is new."""
    unit = partition_name(number)
    with (
        store.open(f"pairs/{CRAWL}/{unit}.parquet") as source,
        store.create(f"pairs/AGAIN/{unit}.parquet") as copy,
    ):
        copy.write(source.read())
    parsed = store.read_stats(f"pairs/{CRAWL}/{unit}.json")
    store.write_stats(f"pairs/AGAIN/{unit}.json", replace(parsed, crawl="AGAIN", outputs=(copy.output,)))
    seconds = timed(lambda: load_partition("AGAIN", number, settings, store, database))
    stats = store.read_stats(f"load/AGAIN/{unit}.json")
    if stats.kept:
        raise SystemExit(f"{stats.kept} of known pairs were loaded")
    print(f"   (e) all known: {stats.input / seconds:9,.0f}/s, {empty / seconds:.2f} of (c)", flush=True)


def queue(settings: Settings, store: Store, workers: int, seconds: float) -> None:
    """Claims and completions per second, and double claims: alone, then beside others."""
    pairs_file(store, 0, 4 * (_DONE_BEFORE + int(_CLAIMS_A_SECOND * seconds)))
    with open_database(settings) as database:
        clear(database.connection)
        load_partition(CRAWL, 0, settings, store, database)
        database.run(make_batches)
        crawl_no = crawl_number(database.connection, CRAWL)
    seen: set[int] = set()
    rates: list[float] = []
    for name, start in (
        ("alone", no_one),
        ("beside a planner and a loader that waits", planner_and_loader),
        ("alone", no_one),
        ("beside a busy core", busy_core),
    ):
        with start(settings, store):
            with open_database(settings) as database:
                hours_of_claims(database.connection)
            numbers = claims(settings, workers, crawl_no, seconds)
        if len(seen | set(numbers)) != len(seen) + len(numbers):
            raise SystemExit("a batch was claimed twice")
        seen |= set(numbers)
        rates.append(len(numbers) / seconds)
        print(f"{workers} workers {name}: {rates[-1]:,.0f} claims with completion a second", flush=True)
    alone = (rates[0] + rates[2]) / 2
    print(f"planner and loader {rates[1] / alone:.2f} of alone, busy core {rates[3] / alone:.2f}; none twice")


def hours_of_claims(connection: psycopg.Connection) -> None:
    """What the queue looks like when many batches have been done since the programs next to it began."""
    for state in ("downloading", "downloaded"):
        connection.execute(
            "update batch set state = %s where batch in (select batch from batch where state = 'ready' "
            "or state = 'downloading' and claimed_at is null order by batch limit %s)",
            [state, _DONE_BEFORE],
        )
    connection.execute("vacuum batch")


def claims(settings: Settings, workers: int, crawl_no: int, seconds: float) -> list[int]:
    """Worker threads with a connection each claim and complete batches for so long; returns these."""
    taken: list[list[int]] = [[] for _ in range(workers)]
    ready = threading.Barrier(workers)

    def work(mine: list[int]) -> None:
        with open_database(settings) as database:
            batch_queue = BatchQueue(database, crawl_no, lease_s=120, max_attempts=3)
            ready.wait()
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                if (claim := batch_queue.claim()) is None:
                    raise SystemExit("there are too few batches: raise _CLAIMS_A_SECOND")
                stats = StageStats("download", CRAWL, str(claim.batch), "bench", 0, 0)
                if not batch_queue.complete(claim, stats):
                    raise SystemExit(f"batch {claim.batch} was lost")
                mine.append(claim.batch)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, taken))
    return [number for mine in taken for number in mine]


@contextmanager
def no_one(_settings: Settings, _store: Store) -> Iterator[None]:
    yield


@contextmanager
def busy_core(_settings: Settings, _store: Store) -> Iterator[None]:
    """What a program costs that does not touch the database."""
    with ended(subprocess.Popen([sys.executable, "-c", "while True: pass"])):
        yield


@contextmanager
def planner_and_loader(settings: Settings, store: Store) -> Iterator[None]:
    """A planner of another crawl at work, and a loader that waits for another one to end."""
    with open_database(settings) as database:
        if not store.exists("pairs/OTHER/part-00000.json"):
            for partition, rows in ((0, ROWS), (1, 1_000)):
                pairs_file(store, partition, rows, "OTHER")
            load_partition("OTHER", 0, settings, store, database)
        with database.connection.transaction():
            if len(take_ranges(database.connection, range(64), 64, "another loader")) < 64:
                raise SystemExit("another program holds key ranges")
            database.connection.execute(query("locks.drop_snapshot"))
            commands = (["plan"], ["load", "--partition", "1"])
            with ExitStack() as stack:
                for command in commands:
                    line = [sys.executable, "-m", "laion_etl", "stage", *command, "--crawl", "OTHER"]
                    environment = {
                        **os.environ,
                        "LAION_ETL_STORE": store.uri(""),
                        "LAION_ETL_DATA_DIR": settings.core.data_dir,
                    }
                    stack.enter_context(ended(subprocess.Popen(line, env=environment)))
                time.sleep(3)  # they have started
                yield


@contextmanager
def ended(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """Kills a process after the block, at the end of which it must still be at work."""
    try:
        yield
        if process.poll() is not None:
            raise SystemExit(f"{process.args!r} ended too early: give it more to do")
    finally:
        process.kill()
        process.wait()


def make_batches(connection: psycopg.Connection) -> None:
    """A batch for each pair: files are not measured."""
    connection.execute(
        "insert into batch (batch, crawl_no, pairs, file) "
        "select row_number() over () - 1, crawl_no, 1, %s from pair join partition using (partition_no)",
        [Jsonb({"name": "no file", "bytes": 0, "sha256": ""})],
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--millions", type=int, default=21, help="partitions to load one after the other")
    parser.add_argument("--rows", type=int, default=ROWS, help="pairs of a partition")
    parser.add_argument("--seconds", type=float, default=6, help="how long batches are claimed in each turn")
    parser.add_argument("--only", choices=("loads", "loaders", "queue"))
    parser.add_argument("--rounds", type=int, default=3, help="how often each number of loaders is measured")
    parser.add_argument("--curve", type=Path, help="an SVG file to draw (d) into")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="laion-bench-", dir="/tmp") as folder:
        settings = Settings(core=CoreSettings(data_dir=folder))
        store = LocalStore(Path(folder) / "store")
        with running_server(Path(folder)):
            pass  # its settings take effect at the next start
        with running_server(Path(folder)) as server:
            if arguments.only in {None, "loaders"}:
                loaders(settings, Path(folder), store, arguments.rows, arguments.rounds)
            if arguments.only in {None, "loads"}:
                empty = Settings(core=CoreSettings(data_dir=folder, database_url=server.url("beside")))
                curve = loads(settings, empty, store, arguments.rows, arguments.millions)
                if arguments.curve:
                    arguments.curve.write_text(curve_svg(curve, arguments.rows))
            if arguments.only in {None, "queue"}:
                queue(settings, store, 64, arguments.seconds)


if __name__ == "__main__":
    main()
