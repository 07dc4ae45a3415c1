"""Airflow in separate processes: importing it here would change the logging of every other test."""

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psutil
import psycopg
import pytest

from laion_etl.database.embedded import EmbeddedServer
from laion_etl.demo.airflow import PARALLELISM
from laion_etl.minicrawl.build import MiniCrawl
from tests.database.templates import copied, freeze
from tests.forks import Fork
from tests.shared_folder import SharedFolder

if TYPE_CHECKING:
    from tests.airflow.shared import SharedAirflow

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Airflow:
    """An AIRFLOW_HOME with this checkout's DAGs and plugins; `server` runs all its scripts and commands."""

    home: Path
    environment: Mapping[str, str]
    server: str

    def with_settings(self, **more: str) -> "Airflow":
        """The same with these environment variables."""
        return replace(self, environment={**self.environment, **more})

    @property
    def metadata(self) -> str:
        """URL of its database."""
        return self.environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]

    def with_metadata(self, url: str) -> "Airflow":
        """The same with this database."""
        return self.with_settings(AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=url)

    def python(self, script: str, *arguments: str, **more: str) -> Any:
        """Runs a script in a process of its own; returns the JSON of its last line."""
        return json.loads(self.run(["-c", script, *arguments], **more)[0].splitlines()[-1])

    def python_file(self, path: Path, *arguments: str, **more: str) -> Any:
        """The same for a script in a file."""
        return json.loads(self.run([str(path), *arguments], **more)[0].splitlines()[-1])

    def rest(self, *requests: tuple[str, str, object]) -> list[tuple[int, Any]]:
        """Status and answer of requests (method, path, body) to the REST API, which the UI uses too."""
        return [(status, answer) for status, answer in self.python(_REST, json.dumps(requests))]

    def run_dags(self, *cases: Mapping[str, Any], **more: str) -> Any:
        """The outcomes of DAG runs, one after another, and the logs of their tasks; see run_dags.py."""
        command = [str(ROOT / "tests" / "airflow" / "run_dags.py"), json.dumps(cases)]
        out, err = self.run(command, **more)
        *log, last = out.splitlines()
        return json.loads(last), "\n".join([*log, err])

    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Rows of the metadata database."""
        url = self.metadata.replace("+psycopg2", "")
        with psycopg.connect(url) as connection:
            return connection.execute(statement, values).fetchall()

    def forget_runs(self) -> None:
        """Deletes all runs and backfills: an unfinished backfill of a DAG keeps others from starting."""
        for table in ("backfill_dag_run", "dag_run", "backfill"):
            self.sql(f"delete from {table} returning 1")  # noqa: S608 - names of tables

    def cli(self, *arguments: str) -> str:
        """Runs an `airflow` command; returns its output."""
        return self.run(["-m", "airflow", *arguments])[0]

    def command(self, *arguments: str) -> list[str]:
        """An `airflow` command."""
        return [sys.executable, "-m", "airflow", *arguments]

    def run(self, arguments: list[str], **more: str) -> tuple[str, str]:
        """Standard output and standard error of `python ARGUMENTS`, which must succeed."""
        with tempfile.TemporaryDirectory() as folder:
            output = (Path(folder, "out"), Path(folder, "err"))
            with output[0].open("wb") as out_file, output[1].open("wb") as err_file:
                streams = (out_file.fileno(), err_file.fileno())
                code = Fork(self.server, arguments, {**self.environment, **more}, self.home, streams).wait()
            out, err = (path.read_text() for path in output)
        assert code == 0, f"{arguments} failed with exit code {code}:\n{out}\n{err}"
        return out, err


_REST = """
import json, sys
from fastapi.testclient import TestClient
from airflow.api_fastapi.app import create_app
with TestClient(create_app()) as client:
    token = client.get("/auth/token").json()["access_token"]
    answers = [
        client.request(method, f"/api/v2/{path}", json=body, headers={"Authorization": f"Bearer {token}"})
        for method, path, body in json.loads(sys.argv[1])
    ]
print(json.dumps([[answer.status_code, answer.json()] for answer in answers]))
"""


def write_catalogue(path: Path, crawls: list[str]) -> Path:
    """A catalogue of these crawls, each released on the Monday of its week."""
    from laion_etl.crawl import released

    entries = [{"id": crawl, "name": f"Crawl {crawl}", "released": str(released(crawl))} for crawl in crawls]
    path.write_text(json.dumps({"crawls": entries}))
    return path


@pytest.fixture(scope="session")
def airflow(shared: SharedFolder) -> Airflow:
    """Airflow without a database: enough to parse."""

    def preload(home: Path) -> Airflow:
        catalogue = write_catalogue(
            home / "catalogue.json", ["CC-MAIN-2024-38", "CC-MAIN-2024-42", "CC-MAIN-2024-46"]
        )
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        environment = {
            # Airflow reads it when it is imported.
            "AIRFLOW__CORE__PARALLELISM": str(PARALLELISM),
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            # Else Airflow takes the one of airflow.cfg, which only the process has that wrote the file.
            "AIRFLOW__API_AUTH__JWT_SECRET": "of-the-tests-" * 4,
            "LAION_ETL_CATALOGUE": str(catalogue),
            "PYTHONPATH": str(ROOT / "dags"),
        }
        started = {**kept, **environment}
        server = shared.start_server("tests.airflow.preloaded", home, environment=started)
        return Airflow(home, started, server)

    return shared.once("airflow", preload)


@pytest.fixture(scope="session")
def metadata_template(shared: SharedFolder, airflow: Airflow, postgres: EmbeddedServer) -> str:
    """A metadata database that knows no DAGs, to be copied: creating one takes longer than most tests."""

    def migrated(_: Path) -> str:
        name = "airflow_template"
        airflow.with_metadata(postgres.url(name, "psycopg2")).cli("db", "migrate")
        freeze(postgres, name)
        return name

    return shared.once("airflow_template", migrated)


@pytest.fixture(scope="session")
def metadata(metadata_template: str, postgres: EmbeddedServer) -> Callable[[], str]:
    """Makes metadata databases; returns their URLs, as Airflow's settings have them."""
    return lambda: copied(postgres, metadata_template, f"airflow_{uuid4().hex}", "psycopg2")


@pytest.fixture(scope="session")
def migrated_airflow(
    shared: SharedFolder, airflow: Airflow, postgres: EmbeddedServer, metadata_template: str
) -> Airflow:
    """The same with a metadata database, each worker's own, that knows the DAGs, but without a scheduler."""

    def serialized(_: Path) -> str:
        name = "airflow_with_dags"
        made = airflow.with_metadata(copied(postgres, metadata_template, name, "psycopg2"))
        made.cli("dags", "reserialize")
        freeze(postgres, name)
        return name

    template = shared.once("airflow_with_dags", serialized)
    return airflow.with_metadata(copied(postgres, template, f"airflow_{uuid4().hex}", "psycopg2"))


@pytest.fixture(scope="session")
def shared_airflow(
    tmp_path_factory: pytest.TempPathFactory,
    airflow: Airflow,
    postgres: EmbeddedServer,
    metadata: Callable[[], str],
    minicrawl: MiniCrawl,
    shared: SharedFolder,
) -> "Iterator[SharedAirflow]":
    """A whole Airflow, with scheduler and triggerer, shared by tests that leave its state unchanged.

    The files of these tests are listed in tests/scheduling.py, so that one process runs them all.
    """
    from tests.airflow.shared import running_shared_airflow  # it needs this module

    folder = tmp_path_factory.mktemp("shared")
    with running_shared_airflow(folder, airflow, postgres, metadata(), minicrawl, shared) as running:
        yield running


def processes_of(folder: Path) -> list[str]:
    """Command lines of the processes that work in a folder or name it."""
    found = []
    for process in psutil.process_iter():
        try:
            command = " ".join(process.cmdline())
            if str(folder) in command or process.cwd().startswith(str(folder)):
                found.append(f"{process.pid} {command}")
        except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
            continue
    return found


@pytest.fixture
def demo_data(tmp_path: Path) -> Iterator[Path]:
    """A data folder for a demo; a process that outlives the demo fails the test."""
    yield tmp_path
    assert processes_of(tmp_path) == []
