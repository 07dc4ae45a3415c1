"""One Airflow for all tests that can share it, over a source with several small crawls.

A test takes a crawl that no other test works on: Postgres knows each crawl once, and a DAG has one run at a
time.
"""

import gzip
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from laion_etl.core.errors import DemoError
from laion_etl.database.embedded import EmbeddedServer
from laion_etl.demo.airflow import AirflowApi, TaskInstance
from laion_etl.minicrawl.build import MiniCrawl
from tests.airflow.conftest import Airflow, write_catalogue
from tests.airflow.started import LONGEST_S, StartedAirflow, started_airflow, until
from tests.preloaded_commands import forked_commands
from tests.runs import run_environment
from tests.shared_folder import SharedFolder
from tests.sinks import Sink, mail_server, webhook

NO_LISTENER = 1
# Of the week before last: "recent" for the monthly DAG whenever the tests run.
_RECENT = (datetime.now(UTC) - timedelta(days=14)).isocalendar()


@dataclass(frozen=True)
class SharedCrawl:
    """A crawl of the source, and the paths of its WAT files in the order of wat.paths."""

    id: str
    wat_files: tuple[Path, ...]

    @property
    def dag(self) -> str:
        return f"crawl_{self.id}"


@dataclass(frozen=True)
class SharedAirflow:
    """A healthy Airflow and its crawls; each has two WAT files, and each WAT file is a partition."""

    started: StartedAirflow
    store: Path
    mended: SharedCrawl  # test_ui.py takes these three
    backfilled: SharedCrawl
    recent: SharedCrawl  # the only one that the crawl index lists, so the monthly DAG starts it
    reported: SharedCrawl  # test_alerts.py; its WAT files are those of no other crawl
    unlisted: SharedCrawl  # test_failed_demo.py; it has no list of WAT files
    mails: Sink  # what all runs have sent
    webhook: Sink

    @property
    def api(self) -> AirflowApi:
        return self.started.api

    def runs(self, dag: str) -> list[dict[str, Any]]:
        """The runs of a DAG as the REST API describes them."""
        return list(self.api.call("GET", f"/api/v2/dags/{dag}/dagRuns")["dag_runs"])

    def tasks(self, dag: str, run: str) -> dict[tuple[str, int], TaskInstance]:
        """The tasks of a run by id and map index."""
        return {(task.task_id, task.map_index): task for task in self.api.task_instances(dag, run)}

    def end(self, dag: str, run: str) -> None:
        """Fails a run that is no longer needed, because other tests need the cores.

        Airflow's server and scheduler lock the rows of a run in different orders: now and then Postgres
        ends the server's transaction as a deadlock.
        """

        def failed() -> bool:
            try:
                self.api.call(
                    "PATCH", f"/api/v2/dags/{dag}/dagRuns/{quote(run, safe='')}", {"state": "failed"}
                )
            except DemoError as error:
                if "Airflow answered 500" not in str(error):
                    raise
                return False
            return True

        until(failed, f"run {run} to be ended")

    def pause(self, dag: str) -> None:
        self.api.call("PATCH", f"/api/v2/dags/{dag}", {"is_paused": True})


@contextmanager
def running_shared_airflow(
    folder: Path,
    airflow: Airflow,
    postgres: EmbeddedServer,
    metadata: str,
    minicrawl: MiniCrawl,
    of_run: SharedFolder,
) -> Iterator[SharedAirflow]:
    """Runs until the block ends; the DAGs of all crawls are parsed when it begins.

    Nothing listens at the addresses of images: every download fails at once.
    """
    source = folder / "source"
    newest = f"CC-MAIN-{_RECENT.year}-{_RECENT.week:02d}"
    ids = ("CC-MAIN-2024-42", "CC-MAIN-2024-38", newest, "CC-MAIN-2024-33", "CC-MAIN-2024-30")
    crawls = [write_crawl(source, crawl, minicrawl.wat_files[:2]) for crawl in ids]
    crawls[3] = write_crawl(source, ids[3], minicrawl.wat_files[2:4])
    (source / "crawl-data" / ids[4] / "wat.paths.gz").unlink()
    collinfo = source / "collinfo.json"
    collinfo.write_text(json.dumps([{"id": newest, "name": "The newest crawl"}]))
    pairs = postgres.url(f"pairs_{uuid4().hex}")
    no_listener = minicrawl.connect_to(NO_LISTENER)
    with mail_server() as mails, webhook() as posts:
        settings = {
            **run_environment(folder / "store", pairs, str(source), no_listener),
            **_settings(folder, source, ids),
            **_alerts(mails, posts),
        }
        settings |= forked_commands(of_run, settings, folder)
        with started_airflow(folder, airflow, metadata, settings) as started:
            for crawl in crawls:
                started.api.wait_for_dag(crawl.dag, LONGEST_S)
            yield SharedAirflow(started, folder / "store", *crawls, mails, posts)


def _settings(folder: Path, source: Path, ids: Sequence[str]) -> dict[str, str]:
    return {
        "LAION_ETL_COLLINFO": str(source / "collinfo.json"),
        "LAION_ETL_CATALOGUE": str(write_catalogue(folder / "catalogue.json", list(ids))),
        "LAION_ETL_DATA_DIR": str(folder),
        "LAION_ETL_TASK_RETRIES": "1",
        "LAION_ETL_TASK_RETRY_DELAY_S": "1",
    }


def _alerts(mails: Sink, posts: Sink) -> dict[str, str]:
    """Settings under which loading and whole runs are late as soon as they have begun."""
    return {
        "LAION_ETL_ALERTS_SMTP": f"127.0.0.1:{mails.port}",
        "LAION_ETL_ALERTS_SMTP_TLS": "none",
        "LAION_ETL_ALERTS_MAIL_TO": "ops@example.org",
        "LAION_ETL_ALERTS_WEBHOOK": f"http://127.0.0.1:{posts.port}/hook",
        "LAION_ETL_ALERTS_LATE_AFTER": "load=0.1s,plan=1h",
        "LAION_ETL_ALERTS_RUN_DAYS": "0.0001",
    }


def write_crawl(source: Path, crawl: str, wat_files: Sequence[Path]) -> SharedCrawl:
    """WAT files of the mini crawl under another id."""
    names = [f"crawl-data/{crawl}/wat/{number}.warc.wat.gz" for number in range(len(wat_files))]
    for name, original in zip(names, wat_files, strict=True):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).unlink(missing_ok=True)
        (source / name).hardlink_to(original)
    listed = "".join(f"{name}\n" for name in names)
    (source / "crawl-data" / crawl / "wat.paths.gz").write_bytes(gzip.compress(listed.encode(), mtime=0))
    return SharedCrawl(crawl, tuple(source / name for name in names))
