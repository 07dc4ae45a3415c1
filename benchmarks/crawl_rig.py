"""The services of a simulated crawl (embedded Postgres, an S3 server on disk) and what commands cost on them.

A command is a process of its own, as in a pod. Measured are its seconds, CPU seconds and memory (usage.py),
the requests and bytes that the S3 server counts, and rows, bytes and CPU seconds of Postgres.
"""

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg

from laion_etl.database.embedded import running_server

BUCKET = "crawl"
_S3_START_S = 60.0
_POSTGRES = """
select tup_inserted + tup_updated + tup_deleted, tup_fetched, xact_commit,
    (select wal_bytes from pg_stat_wal), pg_database_size(current_database())
from pg_stat_database where datname = current_database()
"""


@dataclass(frozen=True, slots=True)
class Process:
    """A finished process."""

    seconds: float
    cpu_s: float
    rss_bytes: int
    result: dict[str, Any]  # its JSON, if it printed any


@dataclass(frozen=True, slots=True)
class Cost:
    """What a step cost; `longest_s` is its longest process, `process_s` the sum over them."""

    seconds: float
    processes: int
    process_s: float
    longest_s: float
    cpu_s: float
    rss_bytes: int
    requests: int
    s3_in_bytes: int
    s3_out_bytes: int
    pg_cpu_s: float
    pg_written: int
    pg_read: int
    pg_commits: int
    pg_wal_bytes: int
    pg_grown_bytes: int


class Rig:
    """Running services; `folder` holds everything, `store` the objects as files."""

    def __init__(self, folder: Path, url: str, port: int, postmaster: psutil.Process) -> None:
        self.folder = folder
        self.url = url
        self.store = folder / "objects" / BUCKET / "store"
        self._port = port
        self._postmaster = postmaster
        self.env = {
            **os.environ,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "benchmark",
            "AWS_SECRET_ACCESS_KEY": "benchmark",
            "AWS_DEFAULT_REGION": "us-east-1",
            "LAION_ETL_STORE": f"s3://{BUCKET}/store",
            "LAION_ETL_DATABASE_URL": url,
            "LAION_ETL_DATA_DIR": str(folder),
        }

    def scan(self) -> None:
        """Let the S3 server see files that were written into its folder."""
        self._ask("_scan")

    def _ask(self, path: str) -> dict[str, int]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/{path}") as answer:
            counts: dict[str, int] = json.load(answer)
        return counts

    def _counts(self) -> dict[str, float]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            row = connection.execute(_POSTGRES).fetchone()
        assert row is not None
        s3 = self._ask("_counts")
        postgres = dict(zip(("written", "read", "commits", "wal", "size"), map(float, row), strict=True))
        return {
            **postgres,
            "pg_cpu": _cpu_s(self._postmaster),
            "in": s3.pop("bytes in", 0),
            "out": s3.pop("bytes out", 0),
            "requests": sum(s3.values()),
        }

    def measured(self, work: Callable[[], list[Process]]) -> tuple[Cost, list[Process]]:
        """Do some work, and return what it cost."""
        before, began = self._counts(), time.perf_counter()
        done = work()
        seconds, after = time.perf_counter() - began, self._counts()
        spent = {name: after[name] - before[name] for name in after}
        cost = Cost(
            seconds,
            len(done),
            sum(one.seconds for one in done),
            max(one.seconds for one in done),
            sum(one.cpu_s for one in done),
            max(one.rss_bytes for one in done),
            int(spent["requests"]),
            int(spent["in"]),
            int(spent["out"]),
            spent["pg_cpu"],
            int(spent["written"]),
            int(spent["read"]),
            int(spent["commits"]),
            int(spent["wal"]),
            int(spent["size"]),
        )
        return cost, done

    def run(self, commands: Sequence[Sequence[str]], at_once: int) -> list[Process]:
        """Run laion-etl with each list of arguments. Raises SystemExit with its output when one fails."""
        with ThreadPoolExecutor(max(1, min(at_once, len(commands)))) as pool:
            return list(pool.map(self.one, commands))

    def one(self, arguments: Sequence[str]) -> Process:
        """Run laion-etl to its end."""
        return self.start(arguments).end()

    def start(self, arguments: Sequence[str]) -> "Running":
        """Start laion-etl."""
        log = self.folder / "logs" / f"{threading.get_ident()}-{time.monotonic_ns()}"
        log.parent.mkdir(exist_ok=True)
        usage = [sys.executable, "-I", "-S", str(Path(__file__).with_name("usage.py")), str(log)]
        command = [*usage, sys.executable, "-m", "laion_etl", *arguments]
        with log.with_suffix(".out").open("wb") as out, log.with_suffix(".err").open("wb") as errors:
            process = subprocess.Popen(command, stdout=out, stderr=errors, env=self.env)
        return Running(" ".join(arguments), process, log)


@dataclass(frozen=True, slots=True)
class Running:
    """A started process."""

    name: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def printed(self) -> str:
        """Return what it has printed so far."""
        return self.log.with_suffix(".out").read_text(errors="replace")

    def end(self, expected: Sequence[int] = (0,)) -> Process:
        """Wait for its end. Raises SystemExit for an exit code that is not expected."""
        if (code := self.process.wait()) not in expected:
            errors = self.log.with_suffix(".err").read_text(errors="replace")
            raise SystemExit(f"laion-etl {self.name} ended with {code}:\n{errors[-2_000:]}")
        return Process(**json.loads(self.log.read_text()), result=_json(self.printed()))


def _json(printed: str) -> dict[str, Any]:
    lines = printed.strip().splitlines()
    found: dict[str, Any] = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
    return found


def _cpu_s(parent: psutil.Process) -> float:
    """CPU seconds of a process and of all it has started, also of those that have ended."""
    total = 0.0
    for process in [parent, *parent.children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:  # ended meanwhile: its parent has counted it
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


@contextmanager
def rig(folder: Path, delay_ms: Sequence[float]) -> Iterator[Rig]:
    """Start the services in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)  # as root, Postgres runs as another user
    (folder / "objects" / BUCKET).mkdir(parents=True, exist_ok=True)
    with running_server(folder / "data") as server, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        url = server.url("laion")
        pid = int((folder / "data" / "postgres" / "postmaster.pid").read_text().split()[0])
        command = [sys.executable, "-m", "benchmarks.disk_s3", "--folder", str(folder / "objects")]
        delays = ["--delay-ms", *map(str, delay_ms)]
        with subprocess.Popen([*command, "--port", str(port), *delays]) as s3:
            try:
                _wait_for(port)
                yield Rig(folder, url, port, psutil.Process(pid))
            finally:
                s3.terminate()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + _S3_START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise SystemExit("the S3 server did not start") from None
            time.sleep(0.1)
        else:
            return
