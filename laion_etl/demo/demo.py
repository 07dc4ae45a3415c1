"""The demo: prepare a folder, start everything on loopback, run the DAG, show the results."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

import laion_etl
from laion_etl.core.programs import python_module
from laion_etl.dataset.funnel_report import crawl_funnel
from laion_etl.demo.airflow import COMPONENTS, AirflowApi, environment, reserved_port
from laion_etl.demo.index_demo import index_demo
from laion_etl.demo.login import new_login
from laion_etl.demo.progress import follow, stage_seconds
from laion_etl.demo.services import Services
from laion_etl.demo.workspace import fresh_folder
from laion_etl.io.storage import open_store
from laion_etl.minicrawl.build import MiniCrawl, build_minicrawl

# For a hang: a process that ends is noticed at once, and a slow machine needs minutes for what takes seconds.
_STARTED_S = 900.0
_LOG_LINES = 20

# The DAGs of an installed package, as docs/how-to/airflow.md describes it.
DAG_FILE = """\
from laion_etl.airflow import crawl_dags, new_crawls_dag

globals().update(crawl_dags(), new_crawls=new_crawls_dag())
"""

_RUN_CONF = {"download_workers": 2, "score_workers": 1}
# Small units so that there is something to see; short timeouts because parts of the mini web never answer;
# one process for each task, because a second one would take longer to start than to do its share.
_SETTINGS = {
    "LAION_ETL_WAT_FILES_PER_PARTITION": "2",
    "LAION_ETL_PARSE_JOBS": "1",
    "LAION_ETL_PLAN_BATCH_SIZE": "500",
    "LAION_ETL_DOWNLOAD_CONNECT_TIMEOUT_S": "4",
    "LAION_ETL_DOWNLOAD_TIMEOUT_S": "4",
    "LAION_ETL_DOWNLOAD_DECODERS": "1",
    "LAION_ETL_CLIP_MODEL": "laion-etl-tiny",
    "LAION_ETL_CLIP_PRETRAINED": "scenes",
    "LAION_ETL_CLIP_PREPARERS": "1",
    "LAION_ETL_PUBLISH_NAME": "mini",
}


@dataclass(slots=True)
class Phases:
    """Wall times of the demo's phases, in order."""

    console: Console
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Prints the name of the phase and measures its time."""
        self.console.print(f"{name} ...", highlight=False)
        start = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - start


def run_demo(folder: Path, keep: bool, console: Console) -> int:
    """Builds the mini crawl's dataset in `folder` with Airflow; 0 when every task and count is right.

    `keep` leaves Airflow up, its address printed, until Ctrl-C. Raises DemoError when a service does not
    start; in any case every started process is stopped.
    """
    folder = folder.absolute()
    phases = Phases(console)
    start = time.monotonic()
    with ExitStack() as stack:
        stack.enter_context(fresh_folder(folder))
        crawl, services, airflow = _start(folder, stack, phases)
        _show_login(airflow, crawl.crawl, console)
        succeeded = run_dag(crawl.crawl, airflow, phases)
        succeeded = _show_results(crawl.crawl, folder, console) and succeeded
        if succeeded:
            _index(folder, phases)
        _show_times(phases.seconds, time.monotonic() - start, console)
        if keep:
            _show_login(airflow, crawl.crawl, console)
            _wait_for_interrupt(services, console)
    return 0 if succeeded else 1


def _start(folder: Path, stack: ExitStack, phases: Phases) -> tuple[MiniCrawl, Services, AirflowApi]:
    """Starts all services; the stack stops them."""
    from laion_etl.database.embedded import running_server
    from laion_etl.minicrawl.web import MiniWeb

    with phases.phase("mini crawl and its web server"):
        crawl = build_minicrawl(folder / "minicrawl")
        web = stack.enter_context(MiniWeb(crawl))
    with phases.phase("Postgres"):
        server = stack.enter_context(running_server(folder))
        metadata, laion = server.url("airflow", "psycopg2"), server.url("laion")
    port, home = stack.enter_context(reserved_port()), folder / "airflow"
    home.mkdir(mode=0o700)
    login = new_login(home)
    sources = sources_of_dags(home)
    settings = crawl.environment(web.port) | _SETTINGS
    settings |= {
        "LAION_ETL_STORE": str(folder / "store"),
        "LAION_ETL_DATA_DIR": str(folder),
        "LAION_ETL_DATABASE_URL": laion,
    }
    children = _own_environment() | environment(home, metadata, port, sources, login) | settings
    services = stack.enter_context(Services(children, folder, home / "logs", "AIRFLOW_HOME"))
    airflow = AirflowApi(f"http://127.0.0.1:{port}", login, services.check)
    with phases.phase("Airflow's database"):
        services.run("db-migrate", _airflow("db", "migrate"), _STARTED_S)
    with phases.phase("Airflow"):
        for name, arguments in COMPONENTS.items():
            services.start(name, _airflow(*arguments))
        airflow.wait_until_healthy(_STARTED_S)
    return crawl, services, airflow


def run_dag(crawl: str, airflow: AirflowApi, phases: Phases) -> bool:
    """Triggers the DAG and follows it to its end; prints the failed tasks; returns whether it succeeded."""
    console, dag = phases.console, _dag(crawl)
    with phases.phase(f"DAG {dag}"):
        airflow.wait_for_dag(dag, _STARTED_S)
        run = airflow.trigger(dag, crawl, _RUN_CONF)
        state = follow(airflow, dag, run, console)
    tasks = airflow.task_instances(dag, run)
    phases.seconds |= stage_seconds(tasks)
    for task in tasks:
        if task.state == "failed":
            console.print(f"[red]failed:[/red] {task.name}, try {task.try_number}", highlight=False)
            for line in airflow.log_tail(dag, run, task, _LOG_LINES):
                console.print(f"  {line}", markup=False, highlight=False)
    return state == "success"


def _show_results(crawl: str, folder: Path, console: Console) -> bool:
    """Prints the funnel and the paths of all results; returns whether the counts of all stages add up."""
    from laion_etl.dataset.manifest import published_part
    from laion_etl.dataset.versions import Release
    from laion_etl.publish.presentation import REPORT

    store = open_store(str(folder / "store"))
    funnel = crawl_funnel(store, crawl)
    console.print(funnel.as_table())
    dataset = _SETTINGS["LAION_ETL_PUBLISH_NAME"]
    release = published_part(dataset, crawl, store) or Release(dataset, crawl)
    places = {
        "dataset": Path(store.uri(release.folder)),
        "report": Path(store.uri(release.file(REPORT))),
        "logs": folder / "airflow" / "logs",
    }
    for what, path in places.items():
        if path.exists():
            console.print(f"{what}: {path}", highlight=False)
    return not funnel.problems and funnel.row("publish").started


def _index(folder: Path, phases: Phases) -> None:
    with phases.phase("index of the dataset"):
        command = index_demo(folder, _SETTINGS)
    phases.console.print(f"search it: {command}", highlight=False)


def _show_times(seconds: dict[str, float], total: float, console: Console) -> None:
    table = Table("phase", title="Wall time")
    table.add_column("seconds", justify="right")
    for phase, duration in seconds.items():
        table.add_row(phase, f"{duration:.1f}")
    table.add_section()
    table.add_row("total", f"{total:.1f}")
    console.print(table)


def _show_login(airflow: AirflowApi, crawl: str, console: Console) -> None:
    """Prints the page and the login: the terminal belongs to the user who started the demo."""
    lines = (
        f"Airflow: {airflow.page(_dag(crawl))}",
        f"log in as {airflow.login.user} with the password {airflow.login.password}",
    )
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _wait_for_interrupt(services: Services, console: Console) -> None:
    console.print("Airflow stays up; Ctrl-C stops it", highlight=False)
    try:
        while True:
            services.check()
            time.sleep(1)
    except KeyboardInterrupt:
        console.print("stopping", highlight=False)


def _dag(crawl: str) -> str:
    return f"crawl_{crawl}"


def _airflow(*arguments: str) -> list[str]:
    return [*python_module("airflow"), *arguments]


def _own_environment() -> dict[str, str]:
    """This environment without the settings of other Airflow installations and crawls."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AIRFLOW_", "AIRFLOW__", "LAION_ETL_", "PYTHONPATH"))
    }


def sources_of_dags(folder: Path) -> Path:
    """Return the folder that holds dags/ and plugins/: a checkout, or else `folder`, where dags/ is made.

    An installed package needs no plugins/: Airflow finds its plugin by the entry point.
    """
    checkout = Path(laion_etl.__file__).parents[1]
    if (checkout / "dags" / "crawl.py").is_file():
        return checkout
    (folder / "dags").mkdir()
    (folder / "dags" / "crawls.py").write_text(DAG_FILE)
    return folder
