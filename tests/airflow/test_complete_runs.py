"""What a run announces and publishes, task by task through Airflow, with real commands and a real Postgres.

Nothing listens at the addresses of the images: every download fails at once, and the dataset has no rows.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

import pytest

from laion_etl.database.embedded import EmbeddedServer
from laion_etl.dataset.versions import read_versions
from laion_etl.io.storage import LocalStore
from laion_etl.minicrawl.build import MiniCrawl, build_minicrawl
from tests.airflow.conftest import Airflow

pytestmark = pytest.mark.airflow

_RUNS = Path(__file__).with_name("dag_runs.py")
_LONGEST_S = 1_500
NOBODY_LISTENS = 1


@dataclass(frozen=True)
class Place:
    """An Airflow with its own metadata database, and the settings of the runs."""

    airflow: Airflow
    crawl: MiniCrawl
    settings: dict[str, str]

    @property
    def store(self) -> LocalStore:
        return LocalStore(Path(self.settings["LAION_ETL_STORE"]))

    @property
    def versions(self) -> list[str]:
        return [version.version for version in read_versions("laion", self.store).listed]

    def runs(self, *confs: dict[str, object]) -> list[Any]:
        """State, tasks and new asset events of a run for each conf, one after the other."""
        small = {"download_workers": 1, "score_groups": 1}
        chosen = json.dumps([{**small, **conf} for conf in confs])
        return json.loads(self._python(str(_RUNS), f"crawl_{self.crawl.crawl}", chosen).splitlines()[-1])

    def command(self, *arguments: str) -> None:
        """A `laion-etl` command, which must succeed."""
        self._python("-m", "laion_etl", *arguments)

    def _python(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            env={**self.airflow.environment, **self.settings},
            cwd=self.airflow.home,
            capture_output=True,
            text=True,
            timeout=_LONGEST_S,
            check=False,
        )
        assert done.returncode == 0, f"{arguments} failed:\n{done.stdout}\n{done.stderr}"
        self.airflow.home.joinpath("last_output.txt").write_text(done.stdout + done.stderr)
        return done.stdout

    @property
    def output(self) -> str:
        """What the last command or runs printed."""
        return self.airflow.home.joinpath("last_output.txt").read_text()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Discards the output."""


@pytest.fixture
def place(airflow: Airflow, tmp_path: Path, postgres: EmbeddedServer) -> Iterator[Place]:
    crawl = build_minicrawl(tmp_path / "minicrawl")
    handler = partial(_Quiet, directory=str(crawl.folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        settings = {
            **crawl.environment(NOBODY_LISTENS),
            "LAION_ETL_CRAWL_SOURCE": f"http://127.0.0.1:{server.server_port}",
            "LAION_ETL_STORE": str(tmp_path / "store"),
            "LAION_ETL_DATA_DIR": str(tmp_path),
            "LAION_ETL_DATABASE_URL": postgres.url(f"pairs_{uuid4().hex}"),
            "LAION_ETL_CLIP_MODEL": "laion-etl-tiny",
            "LAION_ETL_CLIP_PRETRAINED": "scenes",
            "LAION_ETL_WAT_FILES_PER_PARTITION": "1",
            "LAION_ETL_TASK_RETRIES": "0",
        }
        metadata = postgres.url(f"airflow_{uuid4().hex}", "psycopg2")
        home = tmp_path / "airflow"
        home.mkdir()
        variables = {
            **airflow.environment,
            **settings,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": metadata,
        }
        own = replace(airflow, home=home, environment=variables)
        own.cli("db", "migrate")
        own.cli("dags", "reserialize")
        yield Place(own, crawl, settings)
        server.shutdown()
        thread.join()


def announced(run: Any) -> list[str]:
    return [name for name, _ in run["events"]]


def failed(run: Any) -> set[str]:
    return {name for name, state in run["tasks"].items() if state == "failed"}


def test_what_was_published_is_not_announced_again_and_a_missing_file_is_not_published(place: Place) -> None:
    first, again = place.runs({"wat_files": "0:2"}, {"wat_files": "0:2"})

    assert first["state"] == "success", first
    assert announced(first) == ["laion_pairs", "laion_shards", "laion_dataset"]
    assert again["state"] == "success", again
    assert set(again["tasks"].values()) == {"success"}
    assert announced(again) == []
    assert place.versions == [place.crawl.crawl]
    before = {name: place.store.read(name) for name in place.store.list("dataset")}

    place.command("db", "forget", "--crawl", place.crawl.crawl)
    place.crawl.wat_files[1].unlink()  # the server answers 404
    [incomplete] = place.runs({"wat_files": "0:2", "languages": "en"})

    assert incomplete["state"] == "failed"
    assert failed(incomplete) == {"partition.parse[1]", "publish[-1]"}
    assert "1 of 2 partitions are missing (1: not loaded" in place.output
    assert "laion_dataset" not in announced(incomplete)
    assert {name: place.store.read(name) for name in place.store.list("dataset")} == before


def test_a_crawl_with_nothing_new_is_green_and_gets_no_version(place: Place) -> None:
    place.command("stage", "parse", "--crawl", "EARLIER", "--partition", "0", str(place.crawl.wat_files[0]))
    place.command("stage", "load", "--crawl", "EARLIER", "--partition", "0")
    [run] = place.runs({"wat_files": "0:1"})

    assert run["state"] == "success", run
    assert set(run["tasks"].values()) == {"success"}
    assert run["events"] == []
    assert f"nothing new in {place.crawl.crawl}" in place.output
    assert place.store.list("dataset") == []
