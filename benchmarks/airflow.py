"""What orchestration costs: a mapped task, the time to the first useful work, the scheduler, parsing the
DAGs.

    python -m benchmarks.airflow                    a real Airflow on loopback, about four minutes
    python -m benchmarks.airflow --mapped 1000      the scheduler with the mapped tasks of a full crawl

From these it derives what Airflow costs for a full crawl of 90,000 WAT files, compared with parsing alone,
the cheapest stage; downloading and scoring take many times as much.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from laion_etl.database.embedded import running_server
from laion_etl.demo.airflow import COMPONENTS, AirflowApi, environment, reserved_port
from laion_etl.demo.login import new_login
from laion_etl.demo.services import Service, Services
from laion_etl.minicrawl.build import MiniCrawl, build_minicrawl
from laion_etl.minicrawl.web import MiniWeb
from tests.airflow.conftest import write_catalogue

_ROOT = Path(__file__).parents[1]
_CRAWLS = 150
_POLL_S = 0.5
_START_S = 180.0
_END_S = 3_600.0

# A full crawl, and what parsing a WAT file takes (benchmarks/RESULTS.md: 171 us a page, 40,000 pages a file).
_WAT_FILES = 90_000
_PARSE_CPU_S = 171e-6 * 40_000
_WORKERS = _GROUPS = 300
_OTHER_TASKS = 8

_READ_DAGS = """
import sys, time
start = time.process_time()
import airflow.dag_processing.manager, airflow.dag_processing.processor
imported = time.process_time()
import importlib.util
spec = importlib.util.spec_from_file_location("crawl", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
read = time.process_time()
dags = sum(name.startswith("crawl_CC") for name in vars(module))
print(imported - start, read - imported, dags)
"""


@dataclass(frozen=True, slots=True)
class Rig:
    """A running Airflow; `parts` are its processes."""

    crawl: MiniCrawl
    airflow: AirflowApi
    parts: dict[str, Service]

    def cpu_s(self, part: str) -> float:
        """Processor time of a part and all it has started, seconds."""
        process = psutil.Process(self.parts[part].process.pid)
        return sum(map(_cpu_s, [process, *process.children(recursive=True)]))

    def own_cpu_s(self, part: str) -> float:
        """Processor time of the part's first process alone."""
        times = psutil.Process(self.parts[part].process.pid).cpu_times()
        return float(times.user + times.system)


def _cpu_s(process: psutil.Process) -> float:
    """Of a process and of its children that have ended."""
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:  # ended meanwhile: now included in the sum of its parent
        return 0.0
    return float(times.user + times.system + times.children_user + times.children_system)


@contextmanager
def rig(folder: Path) -> Iterator[Rig]:
    """Airflow with the project's DAGs and the mapped one, over the mini crawl, one WAT file a partition."""
    sources = folder / "sources"
    shutil.copytree(_ROOT / "dags", sources / "dags")
    shutil.copytree(_ROOT / "plugins", sources / "plugins")
    shutil.copy(_ROOT / "benchmarks" / "airflow_dags" / "mapped.py", sources / "dags")
    with ExitStack() as stack:
        crawl = build_minicrawl(folder / "minicrawl")
        web = stack.enter_context(MiniWeb(crawl))
        server = stack.enter_context(running_server(folder))
        port, home = stack.enter_context(reserved_port()), folder / "airflow"
        home.mkdir()
        login = new_login(home)
        variables = environment(home, server.url("airflow", "psycopg2"), port, sources, login)
        settings = crawl.environment(web.port) | {
            "LAION_ETL_WAT_FILES_PER_PARTITION": "1",
            "LAION_ETL_STORE": str(folder / "store"),
            "LAION_ETL_DATA_DIR": str(folder),
            "LAION_ETL_DATABASE_URL": server.url("laion"),
        }
        children = {**os.environ, **variables, **settings}
        services = stack.enter_context(Services(children, folder, home / "logs", "AIRFLOW_HOME"))
        services.run("db-migrate", _airflow("db", "migrate"), _START_S)
        parts = {name: services.start(name, _airflow(*args)) for name, args in COMPONENTS.items()}
        airflow = AirflowApi(f"http://127.0.0.1:{port}", login, services.check)
        airflow.wait_until_healthy(_START_S)
        yield Rig(crawl, airflow, parts)


def _airflow(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "airflow", *arguments]


def mapped_tasks(rig: Rig, tasks: int) -> dict[str, float]:
    """A run of the mapped DAG: seconds and processor seconds a task."""
    rig.airflow.wait_for_dag("mapped", _START_S)
    scheduler = rig.own_cpu_s("scheduler")
    everything = {part: rig.cpu_s(part) for part in rig.parts}
    started = time.monotonic()
    run = rig.airflow.trigger("mapped", None, {"tasks": tasks})
    _wait(rig, "mapped", run)
    wall = time.monotonic() - started
    spent = {part: rig.cpu_s(part) - before for part, before in everything.items()}
    return {
        "tasks a second": tasks / wall,
        "scheduler loop, CPU s a task": (rig.own_cpu_s("scheduler") - scheduler) / tasks,
        **{f"{part} and its children, CPU s a task": seconds / tasks for part, seconds in spent.items()},
        "all of Airflow, CPU s a task": sum(spent.values()) / tasks,
    }


def crawl_run(rig: Rig) -> dict[str, float]:
    """A run of the mini crawl up to its first partitions: seconds from the trigger to useful work."""
    dag = f"crawl_{rig.crawl.crawl}"
    rig.airflow.wait_for_dag(dag, _START_S)
    began = time.time()
    run = rig.airflow.trigger(dag, rig.crawl.crawl, {"dry_run": False, "download_workers": 1})
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        started = [
            task.started.timestamp()
            for task in rig.airflow.task_instances(dag, run)
            if task.task_id == "partition.parse" and task.started
        ]
        if started:
            return {"trigger to the first running partition, s": min(started) - began}
        time.sleep(_POLL_S)
    raise SystemExit("no partition was started")


def command_start_s() -> float:
    """CPU seconds for starting `laion-etl`: the cost of running a stage in a separate process."""
    before = os.times()
    for _ in range(5):
        subprocess.run([sys.executable, "-m", "laion_etl", "--version"], check=True, capture_output=True)
    after = os.times()
    return (after.children_user + after.children_system - before.children_user - before.children_system) / 5


def reading_dags(folder: Path) -> dict[str, float]:
    """CPU seconds of a fresh process for the DAG file of 150 crawls; medians of three."""
    first = date(2013, 1, 7)
    days = [first + timedelta(weeks=4 * number) for number in range(_CRAWLS)]
    weeks = [day.isocalendar() for day in days]
    catalogue = write_catalogue(
        folder / "catalogue.json", [f"CC-MAIN-{week.year}-{week.week:02d}" for week in weeks]
    )
    more = {"LAION_ETL_CATALOGUE": str(catalogue), "AIRFLOW_HOME": str(folder / "parse")}
    command = [sys.executable, "-c", _READ_DAGS, str(_ROOT / "dags" / "crawl.py")]
    rows = []
    for _ in range(3):
        done = subprocess.run(
            command, env={**os.environ, **more}, capture_output=True, text=True, check=True, cwd=folder
        )
        rows.append([float(word) for word in done.stdout.split()[-3:]])
    airflow, read, dags = (statistics.median(column) for column in zip(*rows, strict=True))
    assert dags == _CRAWLS, f"{dags} DAGs were made"
    return {
        "importing Airflow's DAG processor, CPU s": airflow,
        "reading dags/crawl.py with 150 crawls, CPU s": read,
    }


def full_crawl(task_cpu_s: float, start_cpu_s: float) -> Table:
    """Cost of orchestrating a full crawl compared with parsing it, by WAT files per partition."""
    table = Table("WAT files a partition", "tasks", "Airflow, CPU h", "parsing, CPU h", "share",
                  title=f"A crawl of {_WAT_FILES:,} WAT files")  # fmt: skip
    work = _WAT_FILES * _PARSE_CPU_S / 3600
    for size in (10, 25, 100, 250):
        tasks = 2 * -(-_WAT_FILES // size) + _WORKERS + _GROUPS + _OTHER_TASKS
        cost = tasks * (task_cpu_s + start_cpu_s) / 3600
        table.add_row(str(size), f"{tasks:,}", f"{cost:.2f}", f"{work:,.0f}", f"{cost / work:.2%}")
    return table


def _wait(rig: Rig, dag: str, run: str) -> None:
    deadline = time.monotonic() + _END_S
    while time.monotonic() < deadline:
        state = rig.airflow.run_state(dag, run)
        if state == "success":
            return
        if state == "failed":
            raise SystemExit(f"the run {run} of {dag} failed")
        time.sleep(_POLL_S)
    raise SystemExit(f"the run {run} of {dag} did not end")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--mapped", type=int, default=200, help="mapped tasks, at most 1,024")
    chosen = parser.parse_args()
    console = Console()
    figures: dict[str, float] = {}

    def found(more: dict[str, float]) -> None:
        figures.update(more)
        for name, value in more.items():
            console.print(f"{name}: {value:.3f}", highlight=False)

    with tempfile.TemporaryDirectory(prefix="laion-airflow-", dir="/tmp") as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)  # as root, Postgres runs as another user
        found(reading_dags(folder))
        found({"starting laion-etl, CPU s": command_start_s()})
        with rig(folder) as running:
            found(mapped_tasks(running, chosen.mapped))
            found(crawl_run(running))  # last: its run is aborted with Airflow
    console.print(full_crawl(figures["all of Airflow, CPU s a task"], figures["starting laion-etl, CPU s"]))


if __name__ == "__main__":
    main()
