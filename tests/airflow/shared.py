"""One Airflow for all tests that can share it, over a source with several small crawls.

A test takes a crawl that no other test works on: Postgres knows each crawl once, and a DAG has one run at a
time.
"""

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from laion_etl.database.embedded import EmbeddedServer
from laion_etl.demo.airflow import AirflowApi, TaskInstance
from laion_etl.minicrawl.build import MiniCrawl
from laion_etl.minicrawl.web import MiniWeb
from tests.airflow.conftest import write_catalogue
from tests.airflow.started import LONGEST_S, StartedAirflow, started_airflow
from tests.runs import run_environment

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
    mended: SharedCrawl  # test_ui.py takes these three
    backfilled: SharedCrawl
    recent: SharedCrawl  # the only one that the crawl index lists, so the monthly DAG starts it

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
        """Fails a run that is no longer needed, because other tests need the cores."""
        self.api.call("PATCH", f"/api/v2/dags/{dag}/dagRuns/{quote(run, safe='')}", {"state": "failed"})

    def pause(self, dag: str) -> None:
        self.api.call("PATCH", f"/api/v2/dags/{dag}", {"is_paused": True})


@contextmanager
def running_shared_airflow(
    folder: Path, postgres: EmbeddedServer, minicrawl: MiniCrawl, miniweb: MiniWeb
) -> Iterator[SharedAirflow]:
    """Runs until the block ends; the DAGs of all crawls are parsed when it begins."""
    source = folder / "source"
    ids = ("CC-MAIN-2024-42", "CC-MAIN-2024-38", f"CC-MAIN-{_RECENT.year}-{_RECENT.week:02d}")
    crawls = [_write_crawl(source, crawl, minicrawl) for crawl in ids]
    collinfo = source / "collinfo.json"
    collinfo.write_text(json.dumps([{"id": crawls[-1].id, "name": "The newest crawl"}]))
    settings = {
        **run_environment(folder / "store", postgres.url(f"{folder.name}_pairs"), miniweb),
        "LAION_ETL_CRAWL_SOURCE": str(source),
        "LAION_ETL_COLLINFO": str(collinfo),
        "LAION_ETL_CATALOGUE": str(write_catalogue(folder / "catalogue.json", list(ids))),
        "LAION_ETL_DATA_DIR": str(folder),
        "LAION_ETL_TASK_RETRIES": "0",
    }
    with started_airflow(folder, postgres.url(f"{folder.name}_airflow", "psycopg2"), settings) as started:
        for crawl in crawls:
            started.api.wait_for_dag(crawl.dag, LONGEST_S)
        yield SharedAirflow(started, *crawls)


def _write_crawl(source: Path, crawl: str, minicrawl: MiniCrawl) -> SharedCrawl:
    """The first WAT files of the mini crawl under another id."""
    names = [f"crawl-data/{crawl}/wat/{number}.warc.wat.gz" for number in range(2)]
    for name, original in zip(names, minicrawl.wat_files, strict=False):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).hardlink_to(original)
    listed = "".join(f"{name}\n" for name in names)
    (source / "crawl-data" / crawl / "wat.paths.gz").write_bytes(gzip.compress(listed.encode(), mtime=0))
    return SharedCrawl(crawl, tuple(source / name for name in names))
