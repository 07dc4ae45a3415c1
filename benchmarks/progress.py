"""What progress costs: commands, pages of the dashboard and the digest, with many batches in ten crawls.

    python -m benchmarks.progress --batches 300000 --batches 3000000

Rows are generated, with stats as a real batch has them; nine crawls are done but for some parked batches, the
tenth is half done. The store has what these programs read: the stats of 900 partitions, the records of 64
score groups. `--files N` adds the stats files of the first N batches, which versions before the counters
read, too.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import urllib3

from laion_etl.alerts import Alert, Kind, RunEnd, deliver, run_digest
from laion_etl.core.ids import batch_name
from laion_etl.core.schemas import SHARD_SCHEMA, partition_name, scored_stem, shard_stem
from laion_etl.core.stage_stats import StageStats
from laion_etl.database.connection import open_database
from laion_etl.database.embedded import running_server
from laion_etl.io.storage import LocalStore
from laion_etl.settings import CoreSettings, Settings, load_settings

CRAWLS = [f"CC-MAIN-2024-{week}" for week in range(10, 20)]
SHOWN = CRAWLS[-1]
PARTITIONS, GROUPS, RUN = 900, 64, "manual__1"
LEASED, PARKED = 300, 200
HOSTS = 6_000  # of the links of a batch
DROPPED = {
    "dns_failed": 1_100, "connect_failed": 420, "connect_timeout": 610, "tls_failed": 130, "timeout": 350,
    "http_error": 1_900, "opted_out_robots_tag": 90, "opted_out_tdm": 25, "not_an_image": 310,
    "too_few_bytes": 260, "too_many_bytes": 4, "animated": 3, "decode_failed": 41, "blocked_hash": 2,
}  # fmt: skip
NETWORK = {
    "seconds": 812.4, "links_per_s": 12.3, "bytes": 912_345_678, "hosts": 6_121, "connections": 8_123,
    "reused": 712, "retries": 93, "most_in_flight": 256, "diagnosis": "the web: most links wait for servers",
    "latency_s": {"resolve": [0.01, 0.2, 4.0], "connect": [0.1, 0.3, 9.0], "response": [0.2, 0.6, 9.0]},
}  # fmt: skip
KEPT = 10_000 - sum(DROPPED.values())

ROWS = """
insert into batch (batch, crawl_no, pairs, file, state, attempts, lease_owner, lease_expires, stats, error,
                   updated_at, claimed_at, downloaded_at, download_ms)
select batch, %(crawl_no)s, 10000, %(file)s::jsonb, state::batch_state, 1,
       case state when 'downloading' then format('pod-%%s:1:0123abcd', batch) end, now() + interval '1 day',
       case state when 'downloaded' then %(stats)s::jsonb end,
       case state when 'parked' then format('cannot read s3://bucket/batches/C/%%s.parquet: %%s; plan again',
           batch, (array['it is damaged', 'it does not exist'])[1 + batch %% 2]) end,
       ended, ended - interval '13 minutes',
       case state when 'downloaded' then ended end, case state when 'downloaded' then 780000 end
from (select batch, case when batch %% %(step)s = 7 then 'parked' when batch < %(done_to)s then 'downloaded'
                         when batch < %(done_to)s + %(leased)s then 'downloading' else 'ready' end as state,
             now() - (%(done_to)s - batch) * interval '2 seconds' as ended
      from generate_series(%(first)s::bigint, %(last)s::bigint) as batch) as batches
"""
PARTITION_ROWS = """
insert into partition (crawl_no, partition, fingerprint, planned, stats)
select %s, number, 'f', true, '{"input": 3500000, "kept": 3300000, "dropped": {"duplicate_in_crawl": 200000}}'
from generate_series(0, %s) as number
"""


def generate(settings: Settings, batches: int) -> dict[str, range]:
    """Write the rows; return the numbers of each crawl's batches."""
    each = batches // len(CRAWLS)
    numbers = {}
    with open_database(settings) as database:
        connection = database.connection
        connection.execute("alter table batch disable trigger user")  # as rows that an earlier version left
        for place, crawl in enumerate(CRAWLS):
            added = connection.execute("insert into crawl (crawl) values (%s) returning crawl_no", [crawl])
            crawl_no = (added.fetchone() or (0,))[0]
            first = (202_410 + place) * 1_000_000
            numbers[crawl] = range(first, first + each)
            shown = crawl == SHOWN
            done_to = first + each // 2 if shown else first + each
            file = {"name": f"batches/{crawl}/{first}.parquet", "bytes": 19_000_000, "sha256": 64 * "0"}
            stats = {
                "format": 2, "stage": "download", "crawl": crawl, "unit": str(first), "fingerprint": 16 * "f",
                "input": 10_000, "kept": KEPT, "dropped": DROPPED, "details": {"network": NETWORK},
                "outputs": [file | {"name": f"shards/{crawl}/{first}{end}"} for end in (".tar", ".parquet")],
            }  # fmt: skip
            for start in range(first, first + each, 30_000):
                keys = {
                    "crawl_no": crawl_no, "file": json.dumps(file),
                    "stats": json.dumps(stats), "step": max(1, each // PARKED),
                    "done_to": done_to, "leased": LEASED if shown else 0,
                    "first": start, "last": min(start + 30_000, first + each) - 1,
                }  # fmt: skip
                connection.execute(ROWS, keys)
            connection.execute(PARTITION_ROWS, [crawl_no, PARTITIONS - 1])
        connection.execute("alter table batch enable trigger user")
        connection.execute("vacuum (analyze) batch")
    return numbers


def write_store(store: LocalStore, numbers: range, files: int) -> None:
    """Write the files of the crawl that is shown."""
    dropped = {"not_a_page": 4_999_000, "broken_json": 1_000}
    records = {"input": 9_000_000, "kept": 4_000_000, "dropped": dropped}
    for number in range(PARTITIONS):
        unit = partition_name(number)
        store.write_stats(f"pairs/{SHOWN}/{unit}.json", StageStats(
            "parse", SHOWN, unit, "f", 40_000_000, 3_500_000, {"no_alt": 36_000_000, "tracker": 500_000},
            details={"records": records}))  # fmt: skip
        store.write_stats(f"load/{SHOWN}/{unit}.json", StageStats(
            "load", SHOWN, unit, "f", 3_500_000, 3_300_000, {"duplicate_in_crawl": 200_000}))  # fmt: skip
    scored = list(numbers[: len(numbers) // 3])
    groups = {"format": 1, "crawl": SHOWN, "groups": GROUPS}
    store.write(f"score/{SHOWN}/groups.json", json.dumps(groups).encode())
    for group in range(GROUPS):
        mine = scored[group::GROUPS]
        samples = {"input": KEPT * len(mine), "kept": 2_000 * len(mine),
                   "dropped": {"low_similarity": (KEPT - 2_000) * len(mine)}}  # fmt: skip
        details = {"samples": samples, "missing": [], "of": len(numbers[group::GROUPS]), "running": True,
                   "batches": [[mine[0], GROUPS, len(mine)]] if mine else []}  # fmt: skip
        counts = (len(mine), len(mine))
        record = StageStats("score group", SHOWN, f"{group}/{GROUPS}", "f", *counts, details=details)
        store.write_stats(f"score/{SHOWN}/group-{group}-of-{GROUPS}.json", record)
    plan = StageStats("plan", SHOWN, "batches", "f", 10_000 * len(numbers), 10_000 * len(numbers),
                      details={"batches": list(numbers) if files else []})  # fmt: skip
    store.write_stats(f"batches/{SHOWN}/_stats.json", plan)
    for number in numbers[:files]:
        unit = batch_name(number)
        done = StageStats("download", SHOWN, unit, "f", 10_000, KEPT, DROPPED, details={"network": NETWORK})
        name = f"{shard_stem(SHOWN, number)}_stats.json"
        (store.root / name).parent.mkdir(parents=True, exist_ok=True)
        (store.root / name).write_bytes(done.to_json())  # not synced: there are many
        scored_stats = StageStats("score", SHOWN, unit, "f", KEPT, 2_000, {"low_similarity": KEPT - 2_000})
        name = f"{scored_stem(SHOWN, number)}_stats.json"
        (store.root / name).parent.mkdir(parents=True, exist_ok=True)
        (store.root / name).write_bytes(scored_stats.to_json())


def write_links(store: LocalStore, numbers: range) -> None:
    """Write the links of the first batch of each thousand: one file under many names."""
    statuses = [status for status, count in {"success": KEPT, **DROPPED}.items() for _ in range(count)]
    rows: list[dict[str, object]] = [
        {name: "" for name in SHARD_SCHEMA.names if pa.types.is_string(SHARD_SCHEMA.field(name).type)}
        | {
            "pair_id": number.to_bytes(16, "big"),
            "url": f"https://host{number % HOSTS}.example/images/{number:040d}.jpg",
            "caption": f"a caption of usual length for image number {number}, which takes some room",
            "status": status,
            "error_message": "404" if status == "http_error" else None,
        }
        for number, status in enumerate(statuses)
    ]
    first = store.root / f"{shard_stem(SHOWN, numbers[0])}.parquet"
    first.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=SHARD_SCHEMA), first, compression="zstd")
    for number in numbers[1_000::1_000]:
        os.link(first, store.root / f"{shard_stem(SHOWN, number)}.parquet")


def write_alerts(settings: Settings) -> None:
    """Write 300 failures of one run, whose digest is measured."""
    alert = Alert(Kind.FAILED, SHOWN, RUN, "parse", "", "cannot read it: denied", 4)
    for number in range(300):
        unit = {"unit": f"partition {number}", "task": f"partition.parse_{number}"}
        deliver(Alert(**{**alert.to_plain(), **unit, "kind": Kind.FAILED, "details": ()}), settings)


def digest() -> None:
    """Build the digest of a run of 900 partitions, 300 workers and 64 groups."""
    states = {f"partition.{stage}_{n}": "success" for stage in ("parse", "load") for n in range(PARTITIONS)}
    states |= {f"partition.parse_{number}": "failed" for number in range(300)}
    states |= {f"download_{number}": "success" for number in range(300)}
    states |= {f"score_{number}": "success" for number in range(GROUPS)}
    print(run_digest(RunEnd(SHOWN, RUN, states), load_settings()).text, file=sys.stderr)


@dataclass(frozen=True, slots=True)
class Server:
    """The Postgres server of a folder: what its processes that have ended took of a core, in seconds."""

    folder: Path

    def cpu_s(self) -> float:
        pid = (self.folder / "postgres" / "postmaster.pid").read_text().split()[0]
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")  # cutime, cstime


def timed(name: str, command: list[str], environment: dict[str, str], server: Server) -> None:
    """Run a command; print its wall time, its most memory, and processor time, with the start of Python."""
    began, before = time.perf_counter(), server.cpu_s()
    nothing, pipe = subprocess.DEVNULL, subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=nothing, stderr=pipe) as process:
        error = process.stderr.read() if process.stderr else b""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} failed: {error.decode()}")
    seconds = time.perf_counter() - began
    time.sleep(0.2)  # the server waits for its process
    report(name, seconds, usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime, server.cpu_s() - before)


def report(name: str, seconds: float, mebibytes: float, cpu_s: float = 0.0, server_s: float = 0.0) -> None:
    cores = f"  {cpu_s:6.2f} s of a core, and {server_s:5.2f} s in Postgres" if cpu_s else ""
    print(f"  {name:36} {seconds:7.2f} s  {mebibytes:7,.0f} MiB{cores}", flush=True)


def pages(environment: dict[str, str], server: Server) -> None:
    """Start the dashboard as a process of its own, and ask for its documents until they are there."""
    command = [sys.executable, "-m", "laion_etl", "dashboard", "--port", "0"]
    with served(command, environment) as (process, site):
        report("dashboard, before a page is open", 0, memory(process.pid))
        paths = {"overview": "api/overview", "crawl page": f"api/crawl/{SHOWN}"}
        paths |= {f"crawl page of {crawl}": f"api/crawl/{crawl}" for crawl in CRAWLS[:3]}
        for name, path in paths.items():
            began, before, server_before = time.perf_counter(), cpu_of(process.pid), server.cpu_s()
            while site.status(path) == 202:
                time.sleep(0.1)
            seconds = time.perf_counter() - began
            time.sleep(0.2)
            taken = (cpu_of(process.pid) - before, server.cpu_s() - server_before)
            report(name, seconds, memory(process.pid), *taken)
        for crawl in CRAWLS:
            while site.status(f"api/crawl/{crawl}") == 202:
                time.sleep(0.1)
        report("all ten crawl pages open", 0, memory(process.pid))


def cpu_of(pid: int) -> float:
    """What a process has taken of a core, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime, stime


@dataclass(frozen=True, slots=True)
class Site:
    """A dashboard that is asked as its user."""

    url: str
    headers: dict[str, str]

    def status(self, path: str) -> int:
        return urllib3.request("GET", self.url + path, headers=self.headers, timeout=600).status


@contextmanager
def served(command: list[str], environment: dict[str, str]) -> "Iterator[tuple[subprocess.Popen[str], Site]]":
    """Serve until the block ends. What the dashboard says on its end is shown unless it was asked to end."""
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        try:
            assert process.stdout
            address = process.stdout.readline().split()[-1]
            tries = urllib3.Retry(connect=100, redirect=False, backoff_factor=0.05)
            answer = urllib3.request("GET", address, timeout=60, retries=tries)
            cookie = answer.headers["Set-Cookie"].split(";")[0]  # made from the token of the address
            yield process, Site(urljoin(address, "/"), {"Cookie": cookie})
        finally:
            if process.poll() is not None:
                errors.seek(0)
                print(errors.read(), file=sys.stderr)
            process.terminate()


def memory(pid: int) -> float:
    """The most memory that a process has had, in MiB."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith("VmHWM"))) / 1024


def measure(folder: Path, batches: int, files: int, version: str) -> None:
    settings = Settings(core=CoreSettings(data_dir=str(folder)))
    with running_server(folder) as server:
        url = server.url("laion")
        core = CoreSettings(store=str(folder / "store"), data_dir=str(folder), database_url=url)
        settings = Settings(core=core)
        began = time.perf_counter()
        numbers = generate(settings, batches)
        write_store(LocalStore(folder / "store"), numbers[SHOWN], files)
        write_links(LocalStore(folder / "store"), numbers[SHOWN])
        write_alerts(settings)
        seconds = time.perf_counter() - began
        print(f"{version}{batches:,} batches in {len(CRAWLS)} crawls (made in {seconds:.0f} s)", flush=True)
        postgres = Server(folder)
        recount(url, postgres)
        environment = {
            **os.environ,
            "LAION_ETL_DATA_DIR": str(folder),
            "LAION_ETL_STORE": settings.core.store,
            "LAION_ETL_DATABASE_URL": url,
        }
        program = [sys.executable, "-m", "laion_etl"]
        timed("--help: the start of Python", [*program, "--help"], environment, postgres)
        timed("status", [*program, "status"], environment, postgres)
        timed("status --json", [*program, "status", "--json"], environment, postgres)
        timed("status --crawl C", [*program, "status", "--crawl", SHOWN], environment, postgres)
        timed(
            "status --crawl C --json", [*program, "status", "--crawl", SHOWN, "--json"], environment, postgres
        )
        timed("diagnose --crawl C", [*program, "diagnose", "--crawl", SHOWN], environment, postgres)
        timed("digest", [sys.executable, "-m", "benchmarks.progress", "--digest"], environment, postgres)
        pages(environment, postgres)


def recount(url: str, server: Server) -> None:
    """Count all batches once, as the migration does, in versions that have the counters."""
    before = server.cpu_s()
    with psycopg.connect(url, autocommit=True) as connection:
        if connection.execute("select to_regproc('recount_batches') is null").fetchone() == (True,):
            return
        began = time.perf_counter()
        connection.execute("select recount_batches()")
        seconds = time.perf_counter() - began
    time.sleep(0.2)
    report("counting all batches, at an upgrade", seconds, 0, 0.001, server.cpu_s() - before)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batches", type=int, action="append", help="rows; may be given several times")
    parser.add_argument("--files", type=int, default=0, help="batches of the crawl shown with stats files")
    parser.add_argument("--version", default="", help="printed before the figures")
    parser.add_argument("--digest", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.digest:
        digest()
        return
    for batches in arguments.batches or [300_000]:
        with tempfile.TemporaryDirectory(prefix="laion-bench-", dir="/tmp") as folder:
            measure(Path(folder), batches, arguments.files, arguments.version)


if __name__ == "__main__":
    main()
