"""What shared knowledge of hosts saves, and what it costs.

    python -m benchmarks.shared_hosts [--workers 50] [--rounds 3] [--links 200]

Simulated workers in one process, each with its own connection to a real Postgres, download batches from hosts
on loopback addresses; links per host follow Zipf's law, one host in ten is dead. Each mode has its own
database: no sharing, sharing on one machine, and sharing between machines, where a second address has to
confirm facts. Then one host that all workers know, and the time of the statements while others claim batches.
Prints tables for RESULTS.md.
"""

import argparse
import asyncio
import io
import json
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import ClassVar
from urllib.request import urlopen
from uuid import uuid4

import psutil
from PIL import Image
from psycopg.conninfo import make_conninfo
from rich.console import Console
from rich.table import Table

from laion_etl.core.schemas import pair_id
from laion_etl.database.connection import Database, open_database
from laion_etl.database.embedded import EmbeddedServer, running_server
from laion_etl.database.queue import BatchQueue
from laion_etl.download.batch_downloader import BatchDownloader, Hooks
from laion_etl.download.host_facts import FactKind, HostFact
from laion_etl.download.shards import shard_writer
from laion_etl.download.shared_hosts import SharedHosts
from laion_etl.download.stage import download_pairs
from laion_etl.settings import CoreSettings, DatabaseSettings, DownloadSettings, Settings

_HOSTS, _EXPONENT, _DEAD_EVERY = 20_000, 0.75, 10
_ADDRESS_OF_URL = (
    "create or replace function host_witness(worker text, kind smallint) returns uuid language sql stable "
    "return md5(current_setting('bench.address') || case when kind = 1 then '' else '/' || worker end)::uuid"
)
_FACT = HostFact(FactKind.RULES, b"x" * 120)
_WINDOW_S = 10
_EVERY_S = 4.8  # two of these are what 300 workers do
_console = Console(width=110)


# The web: a process of its own.


def _within(seconds: Counter[tuple[str, int]], host: str, first: int) -> int:
    return sum(seconds[host, second] for second in range(first, first + _WINDOW_S))


class _Web(asyncio.Protocol):
    """Answers pipelined GETs; counts them by kind, and those of a host within a second."""

    kinds: ClassVar[Counter[str]] = Counter()
    seconds: ClassVar[Counter[tuple[str, int]]] = Counter()
    image: ClassVar[bytes] = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while b"\r\n\r\n" in self.buffer:
            head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            path = lines[0].split(" ")[1]
            host = next(line[6:] for line in lines if line.startswith("Host: ")).partition(":")[0]
            status, body = self.answer(host, path)
            head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            self.transport.write(head + body)  # type: ignore[attr-defined]

    def answer(self, host: str, path: str) -> tuple[int, bytes]:
        if path == "/counts":
            busiest = max(_Web.seconds.values(), default=0)
            long = max((_within(_Web.seconds, host, second) for host, second in _Web.seconds), default=0)
            counts = json.dumps({**_Web.kinds, "busiest": busiest, "long": long / _WINDOW_S}).encode()
            _Web.kinds.clear()
            _Web.seconds.clear()
            return 200, counts
        kind = {"/robots.txt": "robots", "/.well-known/tdmrep.json": "tdmrep"}.get(path, "image")
        _Web.kinds[kind] += 1
        number = int(host.rpartition(".")[2])
        if kind == "image":
            _Web.seconds[host, int(time.monotonic())] += 1
            return 200, _Web.image
        if kind == "robots" and number % 20 == 1:
            return 503, b""
        if kind == "robots" and number % 3 == 0:
            return 200, b"User-agent: *\nDisallow: /wp-admin/\nAllow: /wp-admin/admin-ajax.php\n" + b"#" * 200
        return 404, b""


def serve() -> None:
    """Serves on all loopback addresses; prints its port."""
    file = io.BytesIO()
    Image.effect_noise((96, 96), 90).convert("RGB").save(file, "JPEG", quality=90)
    _Web.image = file.getvalue()

    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(_Web, "0.0.0.0", 0, backlog=4_096)  # noqa: S104
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.to_thread(sys.stdin.read)

    asyncio.run(run())


@contextmanager
def web() -> Iterator[int]:
    command = [sys.executable, "-m", "benchmarks.shared_hosts", "--serve"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdin is not None
    yield int(process.stdout.readline())
    process.stdin.close()
    process.wait()


def counts(port: int) -> Counter[str]:
    with urlopen(f"http://127.0.0.1:{port}/counts") as answer:
        return Counter(json.load(answer))


# The workers.


@dataclass(slots=True)
class Fleet:
    """Workers of one database; `between_machines`: each has an address of its own."""

    settings: Settings
    workers: int
    shares: bool
    between_machines: bool = False

    def download(self, batches: Sequence[Sequence[str]]) -> list[BatchDownloader]:
        """Downloads a batch with each worker, all at the same time."""
        with ThreadPoolExecutor(self.workers) as pool:
            return list(pool.map(self._one, range(self.workers), batches))

    def _one(self, number: int, urls: Sequence[str]) -> BatchDownloader:
        url = self.settings.core.database_url
        if self.between_machines:
            url = make_conninfo(url, options=f"-c bench.address=10.0.0.{number}")
        database = Database(url, DatabaseSettings())
        hosts = SharedHosts(database, self.settings.download) if self.shares else None
        stop = threading.Event()
        beats = threading.Thread(target=_beat, args=(hosts, url, stop))
        pairs = [
            {
                "pair_id": pair_id(one, "c"),
                "url": one,
                "caption": "c",
                "language": "en",
                "license": "?",
                "page_url": "",
            }
            for one in urls
        ]
        beats.start()
        try:
            with shard_writer(1, pairs) as shard:
                return download_pairs(pairs, self.settings.download, shard, Hooks(hosts=hosts))
        finally:
            stop.set()
            beats.join()
            if hosts is not None:
                hosts.leave()
            database.close()


def _beat(hosts: SharedHosts | None, url: str, stop: threading.Event) -> None:
    while not stop.wait(1.0):
        if hosts is not None:
            database = Database(url, DatabaseSettings())
            hosts.beat(database)
            database.close()


def settings_of(server: EmbeddedServer, port: int, dead: int, **changes: object) -> Settings:
    download = DownloadSettings(
        allow_networks=("127.0.0.0/8",),
        ports=(port, dead),
        connections=16,
        resize_mode="no",
        perceptual_hashes=False,
        opt_out=False,
        min_bytes=100,
        retries=0,
    )
    core = CoreSettings(database_url=server.url(f"b_{uuid4().hex}"))
    return Settings(core=core, download=replace(download, **changes))  # type: ignore[arg-type]


def requests_by_round(arguments: argparse.Namespace, server: EmbeddedServer, port: int, dead: int) -> None:
    table = Table("way", "round", "robots.txt", "tdmrep.json", "connections to dead hosts", "all but images")
    weights = list(accumulate(1 / (n + 1) ** _EXPONENT for n in range(_HOSTS)))
    chosen = random.Random(7)
    rounds = [
        [_links(chosen, weights, arguments.links, port, dead) for _ in range(arguments.workers)]
        for _ in range(arguments.rounds)
    ]
    per_10_000 = 10_000 / (arguments.workers * arguments.links)
    hosts = statistics.mean(len({url.split("/")[2] for url in batch}) for batch in rounds[0])
    _console.print(f"{hosts:.0f} hosts in a batch of {arguments.links} links; requests per 10,000 links:")
    outcomes = []
    for name, shares, apart in (("alone", False, False), ("one machine", True, False), ("many", True, True)):
        settings = settings_of(server, port, dead)
        with open_database(settings) as database:
            if apart:
                database.connection.execute(_ADDRESS_OF_URL)
        fleet = Fleet(settings, arguments.workers, shares, apart)
        ended: Counter[str] = Counter()
        for number, batches in enumerate(rounds):
            began = time.monotonic()
            done = fleet.download(batches)
            counted = counts(port)
            tried = sum(_dead_tried(one, batch, dead) for one, batch in zip(done, batches, strict=True))
            figures = [counted["robots"], counted["tdmrep"], tried]
            shown = [f"{figure * per_10_000:,.0f}" for figure in (*figures, sum(figures))]
            table.add_row(name, f"{number + 1} ({time.monotonic() - began:.0f} s)", *shown)
            for one in done:
                ended.update({"kept": one.outcomes.kept, **one.outcomes.dropped})
        outcomes.append(dict(sorted(ended.items())))
    _console.print(table)
    _console.print(
        "outcomes:", outcomes[0], "the same" if outcomes[0] == outcomes[1] == outcomes[2] else outcomes
    )


def _links(chosen: random.Random, weights: list[float], links: int, port: int, dead: int) -> list[str]:
    hosts = chosen.choices(range(_HOSTS), cum_weights=weights, k=links)
    return [
        f"http://127.{1 + (host >> 16)}.{host >> 8 & 255}.{host & 255}:{_port(host, port, dead)}/{n}.jpg"
        for n, host in enumerate(hosts)
    ]


def _port(host: int, port: int, dead: int) -> int:
    return dead if host % _DEAD_EVERY == 0 else port


def _dead_tried(downloader: BatchDownloader, batch: Sequence[str], dead: int) -> int:
    """Dead hosts of the batch that the worker tried to reach itself."""
    hosts = {url.split("/")[2] for url in batch if f":{dead}/" in url}
    known = downloader._client.hosts._known_failures
    return len(hosts) - sum(1 for _, host, port in known if f"{host}:{port}" in hosts)


def one_host(arguments: argparse.Namespace, server: EmbeddedServer, port: int, dead: int) -> None:
    """All workers know one host; limits a fifth of the defaults, because this machine reaches no 1,000/s."""
    table = Table("way", "limits", "most in a second", "a second, most over 10 s", "seconds")
    batches = [[f"http://127.1.1.2:{port}/{n}.jpg" for n in range(12)] for _ in range(arguments.workers)]
    for name, shares in (("each for itself", False), ("divided", True)):
        settings = settings_of(
            server,
            port,
            dead,
            requests_per_host_s=4.0,
            requests_per_domain_s=10.0,
            fleet_requests_per_host_s=20.0,
            fleet_requests_per_domain_s=50.0,
        )
        with open_database(settings):
            counts(port)
        began = time.monotonic()
        Fleet(settings, arguments.workers, shares).download(batches)
        taken_s = time.monotonic() - began
        counted = counts(port)
        limits = "4/s each, 20/s together" if shares else "4/s each"
        table.add_row(name, limits, str(counted["busiest"]), f"{counted['long']:.1f}", f"{taken_s:.1f}")
    _console.print(table)


def statements(server: EmbeddedServer) -> None:
    """One batch's statements at full size, and claims of the queue without and with them."""
    settings = settings_of(server, 80, 81)
    with open_database(settings) as database:
        database.connection.execute("insert into crawl (crawl) values ('C')")
        database.connection.execute(
            "insert into batch (batch, crawl_no, pairs, file) select n, 1, 1, "
            """'{"name": "f", "bytes": 1, "sha256": "0"}' from generate_series(1, 200000) n"""
        )
        database.connection.execute("analyze")
    spent: dict[str, list[float]] = {name: [] for name in ("read", "write", "server")}
    stop = threading.Event()

    def batches(number: int) -> None:
        database = Database(settings.core.database_url, DatabaseSettings())
        hosts = SharedHosts(database, settings.download)
        server_s = psutil.Process(database.connection.info.backend_pid).cpu_times
        chosen = random.Random(number)
        while not stop.wait(_EVERY_S):
            origins = [("http", f"{chosen.randrange(2_000_000)}.example", 80) for _ in range(8_000)]
            both = [
                (scheme, host, port)
                for _, host, _ in origins
                for scheme, port in (("http", 80), ("https", 443))
            ]
            before = sum(server_s()[:2])
            began = time.thread_time()
            known = hosts.read(both)
            spent["read"].append(time.thread_time() - began)
            new = {origin: _FACT for origin in origins if origin not in known}
            began = time.thread_time()
            hosts.write(new)
            spent["write"].append(time.thread_time() - began)
            spent["server"].append(sum(server_s()[:2]) - before)
        database.close()

    table = Table("batches exchanged", "claims/s", *(f"{name}, CPU ms" for name in spent))
    for exchanging in (0, 2, 0, 2):
        stop.clear()
        threads = [
            threading.Thread(target=batches, args=(number + len(spent["read"]),))
            for number in range(exchanging)
        ]
        for thread in threads:
            thread.start()
        done = len(spent["read"])
        claims = _claims_per_s(settings)
        stop.set()
        for thread in threads:
            thread.join()
        shown = [f"{1_000 * statistics.median(spent[name]):.0f}" if exchanging else "" for name in spent]
        table.add_row(f"{len(spent['read']) - done}", f"{claims:.0f}", *shown)
    _console.print(table)
    with open_database(settings) as database:
        size = "select pg_total_relation_size('host_fact') / count(*), count(*) from host_fact"
        _console.print("bytes a host, hosts:", database.connection.execute(size).fetchone())


def _claims_per_s(settings: Settings, seconds: float = 20.0, workers: int = 4) -> float:
    def claim(_: int) -> int:
        database = Database(settings.core.database_url, DatabaseSettings())
        queue = BatchQueue(database, 1, lease_s=120, max_attempts=3)
        end, done = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            assert queue.claim() is not None
            done += 1
        database.close()
        return done

    with ThreadPoolExecutor(workers) as pool:
        return sum(pool.map(claim, range(workers))) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--workers", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["web", "host", "statements"])
    parser.add_argument("--links", type=int, default=200)
    arguments = parser.parse_args()
    if arguments.serve:
        serve()
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server(Path(folder) / "pg") as server,
        web() as port,
        socket.socket() as dead,
    ):
        Path(folder).chmod(0o755)
        dead.bind(("0.0.0.0", 0))  # noqa: S104 - bound, but not listening
        closed = dead.getsockname()[1]
        steps: dict[str, Callable[[], None]] = {
            "web": lambda: requests_by_round(arguments, server, port, closed),
            "host": lambda: one_host(arguments, server, port, closed),
            "statements": lambda: statements(server),
        }
        for name, step in steps.items():
            if arguments.only in (None, name):
                step()


if __name__ == "__main__":
    main()
