"""A soak: the mini crawl over and over in the same processes, while services fail; is memory flat?

    python -m benchmarks.soak [--minutes 20] [--folder FOLDER]      (make soak MINUTES=20)

Two download workers, a score worker, a process that parses, loads, plans, publishes and forgets, the
dashboard and the search page run all the time; the store is S3 on disk. Meanwhile a share of the requests to
the store and of those for WAT files fails, Postgres is killed with all its processes, and the second download
worker is frozen for longer than its lease and then killed. Every few seconds this process adds up memory,
open files and threads of each process with its children (decoders, preparers), its temporary files, and all
connections to Postgres.

After a quarter of the time (models are loaded and functions compiled by then) medians of the next and of the
last fifth of the samples are compared. Exit code 1: one of them has grown by more than `_ALLOWED`, a process
has ended, or one has printed a traceback.
"""

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg
from rich.console import Console
from rich.table import Table

from benchmarks.anonymous_memory import anonymous_bytes
from benchmarks.crawl_rig import BUCKET
from benchmarks.soak_work import KEPT, OBJECTS
from laion_etl.database.embedded import running_server
from laion_etl.demo.airflow import reserved_port
from laion_etl.minicrawl.build import CRAWL, build_minicrawl
from laion_etl.minicrawl.web import MiniWeb
from tests.flaky_s3 import Fault, FlakyS3, serving

_SAMPLE_S, _POLL_S, _FAULT_S = 5.0, 1.0, 45.0
_LEASE_S, _START_S = 10, 60.0
_SPOILED = {"store": 0.03, "source": 0.2}
_WARM_UP, _WINDOW = 0.25, 0.2  # of all samples
# What a value may grow by between the two windows, and the share of it that it may grow by if that is more.
_ALLOWED = {
    "memory MiB": (24.0, 0.08),
    "open files": (6.0, 0.1),
    "threads": (4.0, 0.1),
    "temporary files": (4.0, 0.1),
    "connections": (2.0, 0.0),
}
_WATCHED = ("download", "score", "rounds", "dashboard", "search")
_PAGES = {
    "dashboard": ("/", "/api/overview", f"/api/crawl/{CRAWL}", f"/api/crawl/{CRAWL}/samples"),
    "search": ("/", "/api/facts", "/api/search?q=a+red+circle", "/api/search?q=dog&min_similarity=0.1"),
}
_SETTINGS = {
    "LAION_ETL_STORE": f"s3://{BUCKET}/soak",
    "LAION_ETL_WAT_FILES_PER_PARTITION": "2",
    "LAION_ETL_PARSE_JOBS": "1",
    "LAION_ETL_PLAN_BATCH_SIZE": "150",
    "LAION_ETL_DOWNLOAD_CONNECT_TIMEOUT_S": "2",
    "LAION_ETL_DOWNLOAD_TIMEOUT_S": "2",
    "LAION_ETL_DOWNLOAD_LEASE_S": str(_LEASE_S),
    "LAION_ETL_DOWNLOAD_MAX_ATTEMPTS": "20",
    "LAION_ETL_DOWNLOAD_DECODERS": "1",
    "LAION_ETL_CLIP_MODEL": "laion-etl-tiny",
    "LAION_ETL_CLIP_PRETRAINED": "scenes",
    "LAION_ETL_CLIP_PREPARERS": "1",
    "LAION_ETL_PUBLISH_NAME": "soak",
    "OMP_NUM_THREADS": "1",
}


@dataclass
class Soak:
    """The processes of a soak, and what was seen of them."""

    folder: Path
    environment: dict[str, str]
    processes: dict[str, psutil.Popen] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    samples: dict[str, list[tuple[float, dict[str, float]]]] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)

    def start(self, name: str, *arguments: str, **more: str) -> None:
        """Start a process with a log and a folder for temporary files of its own."""
        temporary = self.folder / "tmp" / name
        temporary.mkdir(parents=True, exist_ok=True)
        environment = {**self.environment, **more, "TMPDIR": str(temporary)}
        with self.log(name).open("ab") as log:
            self.processes[name] = psutil.Popen(
                [sys.executable, "-m", *arguments], env=environment, stdout=log, stderr=subprocess.STDOUT
            )

    def log(self, name: str) -> Path:
        return self.folder / "logs" / name

    def address(self, name: str) -> str | None:
        """The address with its token that a server has printed; None until then."""
        found = re.search(r"http://127\S+", self.log(name).read_text()) if self.log(name).exists() else None
        return found[0] if found else None

    def counted(self, what: str) -> int:
        """The sum of the lines `what N` in all logs."""
        text = "\n".join(path.read_text() for path in (self.folder / "logs").iterdir())
        return sum(map(int, re.findall(rf"^{what} (\d+)$", text, re.M)))

    def sample(self) -> None:
        """Measure all watched processes, and the connections to Postgres."""
        found = {
            name: _usage(self.processes[name]) | {"temporary files": _files(self.folder / "tmp" / name)}
            for name in _WATCHED
            if name in self.processes
        }
        if (connections := self._connections()) is not None:
            found["postgres"] = {"connections": connections}
        for name, values in found.items():
            self.samples.setdefault(name, []).append((time.monotonic() - self.began, values))

    def _connections(self) -> float | None:
        """How many connections the others have; None while Postgres does not answer."""
        counted = "select count(*) from pg_stat_activity where datname = 'laion' and pid <> pg_backend_pid()"
        with (
            suppress(psycopg.Error),
            psycopg.connect(self.environment["LAION_ETL_DATABASE_URL"]) as connection,
        ):
            row = connection.execute(counted).fetchone()
            return float(row[0]) if row else None
        return None


def _usage(process: psutil.Process) -> dict[str, float]:
    """Memory, open files and threads of a process with its children."""
    found: dict[str, float] = defaultdict(float)
    with suppress(psutil.NoSuchProcess):
        for one in [process, *process.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess, OSError):
                found["memory MiB"] += anonymous_bytes(one.pid) / 2**20
                found["open files"] += one.num_fds()
                found["threads"] += one.num_threads()
    return {kind: float(found[kind]) for kind in ("memory MiB", "open files", "threads")}


def _files(folder: Path) -> float:
    """How many files a folder has."""
    return float(sum(len(files) for _, _, files in os.walk(folder)))


def _poll(soak: Soak, ended: threading.Event) -> None:
    """Open pages of dashboard and search, after the address with the token, which leaves a cookie."""
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    visited = set()
    while not ended.wait(_POLL_S):
        for name, pages in _PAGES.items():
            if name in soak.processes and (address := soak.address(name)):
                if name not in visited and _status(browser, address) == "200":
                    visited.add(name)
                for page in pages:
                    url = address.partition("/?")[0] + page
                    soak.answers[f"{name} {_status(browser, url)}"] += 1


def _status(browser: urllib.request.OpenerDirector, url: str) -> str:
    try:
        with browser.open(url, timeout=30) as answer:
            answer.read()
            return str(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return str(error.code)
    except OSError as error:
        return type(error).__name__


def _disturb(soak: Soak, ended: threading.Event) -> None:
    """Kill Postgres, freeze the second download worker, kill it: one after the other."""
    while True:
        for fault in (_kill_postgres, _freeze_worker, _kill_worker):
            if ended.wait(_FAULT_S):
                return
            fault(soak, ended)
            soak.faults[fault.__name__.strip("_")] += 1


def _kill_postgres(soak: Soak, _: threading.Event) -> None:
    """As when its machine loses power; then it starts again."""
    pid = int((soak.folder / "postgres" / "postmaster.pid").read_text().split()[0])
    server = psutil.Process(pid)
    killed = [server, *server.children()]
    for one in killed:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(killed, _START_S)
    with running_server(soak.folder):
        pass  # the main thread uses it, too: it goes on


def _freeze_worker(soak: Soak, ended: threading.Event) -> None:
    worker = soak.processes["second"]
    with suppress(psutil.NoSuchProcess):
        worker.suspend()
        ended.wait(_LEASE_S * 1.5)
        worker.resume()


def _kill_worker(soak: Soak, _: threading.Event) -> None:
    soak.processes["second"].kill()
    soak.processes["second"].wait()
    soak.start("second", "benchmarks.soak_work", "download")


@contextmanager
def _services(folder: Path) -> Iterator[tuple[Soak, dict[str, FlakyS3]]]:
    """Postgres, S3 and the mini web, and an empty soak."""
    folder.chmod(0o755)  # as root, Postgres runs as another user
    (folder / "objects" / BUCKET).mkdir(parents=True)
    (folder / "logs").mkdir()
    crawl = build_minicrawl(folder / "minicrawl")
    with ExitStack() as stack:
        port = stack.enter_context(reserved_port())
        web = stack.enter_context(MiniWeb(crawl))
        server = stack.enter_context(running_server(folder))
        store = stack.enter_context(
            serving(FlakyS3(f"http://127.0.0.1:{port}", _SPOILED["store"], 1, _STORE_FAULTS))
        )
        source = stack.enter_context(serving(FlakyS3(web.url, _SPOILED["source"], 2, [Fault.SLOW_DOWN])))
        plain = {key: value for key, value in os.environ.items() if not key.startswith("LAION_ETL_")}
        soak = Soak(folder, plain | crawl.environment(web.port) | _SETTINGS)
        soak.environment |= {
            "AWS_ENDPOINT_URL": store.endpoint,
            "AWS_ACCESS_KEY_ID": "benchmark",
            "AWS_SECRET_ACCESS_KEY": "benchmark",
            "AWS_DEFAULT_REGION": "us-east-1",
            "LAION_ETL_DATA_DIR": str(folder / "data"),
            "LAION_ETL_DATABASE_URL": server.url("laion"),
            "LAION_ETL_CRAWL_SOURCE": source.endpoint,
            OBJECTS: str(folder / "objects"),
            KEPT: str(folder / "kept"),
        }
        s3 = ("--folder", str(folder / "objects"), "--port", str(port), "--delay-ms", "0", "5")
        soak.start("s3", "benchmarks.disk_s3", *s3)
        try:
            yield soak, {"store": store, "source": source}
        finally:
            _end(soak)


_STORE_FAULTS = (Fault.INTERNAL_ERROR, Fault.SLOW_DOWN, Fault.RESET, Fault.LOST_ANSWER, Fault.CUT_BODY)


def _end(soak: Soak) -> None:
    for process in soak.processes.values():
        with suppress(psutil.NoSuchProcess):
            process.resume()
            process.send_signal(signal.SIGTERM)
    for process in soak.processes.values():
        try:
            process.wait(_START_S)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait()


def _run(soak: Soak, minutes: float) -> None:
    """Let everything work for that long."""
    for name, work in {
        "download": "download",
        "second": "download",
        "score": "score",
        "rounds": "rounds",
    }.items():
        soak.start(name, "benchmarks.soak_work", work)
    soak.start("dashboard", "laion_etl", "dashboard", "--port", "0")
    ended = threading.Event()
    threads = [threading.Thread(target=work, args=(soak, ended)) for work in (_poll, _disturb)]
    for thread in threads:
        thread.start()
    try:
        while time.monotonic() < soak.began + minutes * 60:
            time.sleep(_SAMPLE_S)
            if (soak.folder / "kept").exists() and "search" not in soak.processes:
                _start_search(soak)
            soak.sample()
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def _start_search(soak: Soak) -> None:
    """Index what the first round has published, and serve it, from a folder."""
    kept = {"LAION_ETL_STORE": str(soak.folder / "kept")}
    indexing = [sys.executable, "-m", "laion_etl", "search", "index"]
    subprocess.run(indexing, env=soak.environment | kept, check=True, capture_output=True)
    soak.start("search", "laion_etl", "search", "serve", **kept)


def _compared(samples: list[tuple[float, dict[str, float]]], kind: str) -> tuple[float, float, float, float]:
    """Medians after the warm-up and at the end, the most, and the slope for an hour (least squares)."""
    found = [(at / 3600, values[kind]) for at, values in samples]
    found = found[int(len(found) * _WARM_UP) :]
    if len(found) < 2:
        raise SystemExit("cannot compare: too few samples; give --minutes more")
    width = max(1, int(len(found) * _WINDOW))
    values = [value for _, value in found]
    slope = statistics.linear_regression(*zip(*found, strict=True)).slope
    return statistics.median(values[:width]), statistics.median(values[-width:]), max(values), slope


def _report(soak: Soak, console: Console) -> list[str]:
    """Print the table; return what is wrong."""
    wrong = []
    table = Table("process", "value", "after warm-up", "end", "most", "slope per hour")
    for name, samples in soak.samples.items():
        for kind in samples[0][1]:
            first, last, most, slope = _compared(samples, kind)
            table.add_row(name, kind, *(f"{value:.1f}" for value in (first, last, most)), f"{slope:+.1f}")
            least, share = _ALLOWED[kind]
            if last > first + max(least, share * first):
                wrong.append(f"{name}: {kind} has grown from {first:.1f} to {last:.1f}")
    console.print(table)
    return wrong


def _problems(soak: Soak) -> list[str]:
    """Return what has ended or printed a traceback."""
    ended = [f"{name} has ended" for name, one in soak.processes.items() if one.poll() is not None]
    logs = {path.name: path.read_text() for path in (soak.folder / "logs").iterdir()}
    return ended + [f"{name} has printed a traceback" for name, text in logs.items() if "Traceback" in text]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--folder", type=Path, help="Keeps files and logs there; default: a temporary one.")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # and with it all it has started
    with ExitStack() as stack:
        folder = arguments.folder or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="laion-soak-", dir="/tmp"))
        )
        folder.mkdir(parents=True, exist_ok=True)
        console = Console(width=110, highlight=False)
        with _services(folder) as (soak, flaky):
            _run(soak, arguments.minutes)
            (folder / "samples.json").write_text(json.dumps(soak.samples))
            problems = _problems(soak)
        problems += _report(soak, console)
        console.print(f"load of the machine: {os.getloadavg()[2]:.1f}; minutes: {arguments.minutes:g}")
        console.print(
            f"rounds: {soak.counted('rounds')}, batches downloaded or scored: {soak.counted('batches')}"
        )
        console.print(f"faults: {dict(soak.faults)}")
        console.print({name: dict(one.spoiled.items()) for name, one in flaky.items()})
        console.print(f"answers: {dict(sorted(soak.answers.items()))}")
        for problem in problems:
            console.print(f"[red]{problem}[/red]")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
