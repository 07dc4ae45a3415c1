"""Runs by a real Airflow whose tasks are killed, or whose pods get no image.

One Airflow serves them all; each run works in a folder of its own in the store. Commands on Airflow's
machine have one Postgres database, pods have another, which they know from a Kubernetes secret only.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from laion_etl.database.embedded import EmbeddedServer
from laion_etl.minicrawl.build import MiniCrawl
from laion_etl.minicrawl.web import MiniWeb
from tests.airflow.conftest import Airflow
from tests.airflow.killer import Kill, Victim, kill, there
from tests.airflow.stage_pods import IMAGE, SPACE, airflow_settings, at_work, worker_image
from tests.airflow.started import LONGEST_S, StartedAirflow, started_airflow
from tests.kubernetes.cluster import Cluster, running_cluster
from tests.kubernetes.environment import Namespace
from tests.kubernetes.faults import (
    PodFault,
    PodTrouble,
)
from tests.preloaded_commands import forked_commands
from tests.runs import WAT_FILES, files, run_environment
from tests.shared_folder import SharedFolder
from tests.sinks import Sink, webhook

pytestmark = pytest.mark.airflow

SECRETS = ("password-of-the-pods", "password-of-airflow", "password-of-the-mails")


@dataclass(frozen=True)
class World:
    """The environment of this module's runs, and the receiver of their alerts."""

    folder: Path
    dag: str
    crawl: str
    metadata: str
    database: str  # of commands on Airflow's machine
    cluster: Cluster
    alerts: Sink

    @property
    def store(self) -> Path:
        return self.folder / "store"


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory,
    postgres: EmbeddedServer,
    metadata: Callable[[], str],
    minicrawl: MiniCrawl,
    shared: SharedFolder,
) -> Iterator[World]:
    folder, name = tmp_path_factory.mktemp("disturbed"), f"disturbed_{os.getpid()}"
    here, of_pods = (postgres.url(f"{name}_{which}") for which in ("here", "pods"))
    worker = worker_image(shared, folder / "pods" / "data")
    database = {"LAION_ETL_DATABASE_URL": of_pods.replace("postgres:@", f"postgres:{SECRETS[0]}@")}
    space = Namespace(secrets={"database": database})
    with running_cluster(folder, {IMAGE: worker}, {SPACE: space}) as cluster, webhook() as alerts:
        yield World(
            folder,
            f"crawl_{minicrawl.crawl}",
            minicrawl.crawl,
            metadata(),
            here.replace("postgres:@", f"postgres:{SECRETS[1]}@"),
            cluster,
            alerts,
        )


@pytest.fixture(scope="module")
def started(
    world: World, airflow: Airflow, miniweb: MiniWeb, minicrawl: MiniCrawl, shared: SharedFolder
) -> Iterator[StartedAirflow]:
    settings = {
        **run_environment(world.store, world.database, miniweb.url, miniweb.connect_to),
        **airflow_settings(world.cluster),
        "LAION_ETL_CATALOGUE": str(minicrawl.catalogue.absolute()),
        "LAION_ETL_DATA_DIR": str(world.folder),
        "LAION_ETL_ALERTS_SMTP_PASSWORD": SECRETS[2],
        "LAION_ETL_ALERTS_WEBHOOK": f"http://127.0.0.1:{world.alerts.port}/hook",
    }
    settings |= forked_commands(shared, settings, world.folder)
    with started_airflow(world.folder, airflow, world.metadata, settings) as started:
        started.api.wait_for_dag(world.dag, LONGEST_S)
        yield started


@pytest.fixture(scope="module")
def expected(undisturbed_run: Path) -> dict[str, bytes]:
    """What the undisturbed run publishes."""
    return published(undisturbed_run)


def triggered(started: StartedAirflow, world: World, runner: str, folder: str) -> str:
    """A run that works in a folder of the store."""
    small = {"wat_files": WAT_FILES, "download_workers": 1, "score_workers": 1}
    return started.api.trigger(world.dag, world.crawl, {**small, "runner": runner, "store_prefix": folder})


def published(store: Path) -> dict[str, bytes]:
    """All that a run has published."""
    return {name: data for name, data in files(store).items() if name.startswith("dataset/")}


def test_tasks_killed_at_every_stage_end_with_the_same_bytes(
    expected: dict[str, bytes], started: StartedAirflow, world: World
) -> None:
    store = world.store / "killed"
    run = triggered(started, world, "venv", "killed")
    for order in (
        Kill("parse", Victim.COMMAND, there(store, "pairs/*/*part-*")),
        Kill("load", Victim.TASK, at_work(world.database)),
        Kill("plan", Victim.BOTH, at_work(world.database)),
        Kill("download", Victim.TASK, there(store, "shards/*/*.tar*")),
        Kill("score", Victim.COMMAND, there(store, "scored/*/*.tar*")),
        Kill("publish", Victim.BOTH, there(store, "dataset/*/*/**/*.parquet*")),
    ):
        kill(order, started)

    assert started.ended(world.dag, run) == "success"
    tries = Counter[str]()
    for task in started.api.task_instances(world.dag, run):
        tries[task.task_id.removeprefix("partition.")] += task.try_number
    assert {stage: tries[stage] for stage in ("parse", "load", "plan", "download", "score", "publish")} == {
        "parse": 3,  # two partitions, one of them twice
        "load": 3,
        "plan": 2,
        "download": 2,
        "score": 2,
        "publish": 2,
    }
    assert published(store) == expected != {}
    assert not list(store.rglob("*.partial"))


def test_an_image_that_can_not_be_pulled_is_reported_as_that(started: StartedAirflow, world: World) -> None:
    world.cluster.faults.order(PodFault(PodTrouble.IMAGE_PULL, {"stage": "discover"}, times=3))
    run = triggered(started, world, "kubernetes", "without-image")
    assert started.ended(world.dag, run) == "failed"
    failed = [post for post in world.alerts.posts if post["kind"] == "failed" and post["run"] == run]
    assert [(alert["stage"], alert["attempt"]) for alert in failed] == [("discover", 3)]
    assert f"cannot pull the image {IMAGE} (" in failed[0]["reason"]


def test_no_secret_is_in_a_pod_or_a_log(started: StartedAirflow, world: World) -> None:
    logs = [path.read_text() for path in world.folder.glob("airflow/logs/dag_id=*/**/*.log")]
    assert len(logs) > 10
    for secret in SECRETS:
        assert secret not in json.dumps(world.cluster.posted)
        assert not [text for text in logs if secret in text]
