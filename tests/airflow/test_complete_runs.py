"""What a run announces and publishes, task by task through Airflow, with real commands and a real Postgres.

Nothing listens at the addresses of the images: every download fails at once, and the dataset has no rows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from laion_etl.database.embedded import EmbeddedServer
from laion_etl.dataset.versions import read_versions
from laion_etl.io.storage import LocalStore
from laion_etl.minicrawl.build import MiniCrawl
from tests.airflow.conftest import Airflow, write_catalogue
from tests.airflow.shared import NO_LISTENER, SharedCrawl, write_crawl
from tests.preloaded_commands import forked_commands
from tests.runs import run_environment
from tests.shared_folder import SharedFolder

pytestmark = pytest.mark.airflow


@dataclass(frozen=True)
class Place:
    """An Airflow with its own metadata database, and two crawls of the same two WAT files."""

    airflow: Airflow
    crawl: SharedCrawl
    later: SharedCrawl

    @property
    def store(self) -> LocalStore:
        return LocalStore(Path(self.airflow.environment["LAION_ETL_STORE"]))

    @property
    def versions(self) -> list[str]:
        return [version.version for version in read_versions("laion", self.store).listed]

    def runs(self, *runs: tuple[SharedCrawl, dict[str, object]]) -> tuple[list[Any], str]:
        """State, tasks and new asset events of the runs, one after the other; and all that they print."""
        small = {"download_workers": 1, "score_workers": 1}
        cases = []
        for crawl, conf in runs:
            now = datetime.now(UTC).isoformat()
            times = {"run_after": now, "began": now}
            cases.append({"dag": crawl.dag, "type": "manual", **times, "conf": {**small, **conf}})
        outcomes, log = self.airflow.run_dags(*cases)
        return outcomes, str(log)


@pytest.fixture(scope="module")
def place(
    airflow: Airflow,
    tmp_path_factory: pytest.TempPathFactory,
    postgres: EmbeddedServer,
    metadata: Callable[[], str],
    minicrawl: MiniCrawl,
    shared: SharedFolder,
) -> Place:
    folder = tmp_path_factory.mktemp("complete")
    ids = ("CC-MAIN-2024-38", "CC-MAIN-2024-42")
    crawls = [write_crawl(folder / "source", crawl, minicrawl.wat_files[:2]) for crawl in ids]
    pairs = postgres.url(f"pairs_{uuid4().hex}")
    no_listener = minicrawl.connect_to(NO_LISTENER)
    settings = {
        **run_environment(folder / "store", pairs, str(folder / "source"), no_listener),
        **airflow.environment,
        "LAION_ETL_CATALOGUE": str(write_catalogue(folder / "catalogue.json", list(ids))),
        "LAION_ETL_DATA_DIR": str(folder),
        "LAION_ETL_TASK_RETRIES": "0",
    }
    settings |= forked_commands(shared, settings, folder)
    own = airflow.with_settings(**settings).with_metadata(metadata())
    own.cli("dags", "reserialize")
    return Place(own, *crawls)


@dataclass(frozen=True)
class FirstRuns:
    """A run, the same once more, and one of the later crawl, which has nothing new."""

    first: Any
    again: Any
    nothing_new: Any
    output: str


@pytest.fixture(scope="module")
def first_runs(place: Place) -> FirstRuns:
    both, one = {"wat_files": "0:2"}, {"wat_files": "0:1"}
    runs, output = place.runs((place.crawl, both), (place.crawl, both), (place.later, one))
    return FirstRuns(*runs, output)


def announced(run: Any) -> list[str]:
    return [name for name, _ in run["events"]]


def failed(run: Any) -> set[str]:
    return {name for name, (state, _) in run["tasks"].items() if state == "failed"}


def states(run: Any) -> set[str]:
    return {state for state, _ in run["tasks"].values()}


def test_what_was_published_is_not_announced_again(first_runs: FirstRuns) -> None:
    first, again = first_runs.first, first_runs.again
    assert first["state"] == "success", first
    assert announced(first) == ["laion_pairs", "laion_shards", "laion_dataset"]
    assert again["state"] == "success", again
    assert states(again) == {"success", "skipped"}
    assert announced(again) == []


def test_a_crawl_with_nothing_new_is_green_and_gets_no_version(first_runs: FirstRuns, place: Place) -> None:
    run = first_runs.nothing_new
    assert run["state"] == "success", run
    assert states(run) == {"success", "skipped"}
    assert run["events"] == []
    assert f"nothing new in {place.later.id}" in first_runs.output
    assert place.versions == [place.crawl.id]


def test_a_missing_file_is_not_published(first_runs: FirstRuns, place: Place) -> None:
    assert first_runs.first["state"] == "success"
    before = {name: place.store.read(name) for name in place.store.list("dataset")}
    assert before

    place.airflow.run(["-m", "laion_etl", "db", "forget", "--crawl", place.crawl.id])
    place.crawl.wat_files[1].unlink()
    [incomplete], output = place.runs((place.crawl, {"wat_files": "0:2", "languages": "en"}))

    assert incomplete["state"] == "failed"
    assert failed(incomplete) == {"partition.parse[1]", "publish"}
    assert "1 of 2 partitions are missing (1: not loaded" in output
    assert "laion_dataset" not in announced(incomplete)
    assert {name: place.store.read(name) for name in place.store.list("dataset")} == before
