"""The gauntlet: one crawl in pods with all that goes wrong at once, compared with an undisturbed one.

One of ten requests to the store fails, half of those for WAT files and some of those to the cluster; a quota
refuses a pod; pods of parse, load and publish are preempted, evicted and shut down with their node; the
scheduler is killed while a pod of plan is begun; a download worker is frozen until others have finished its
batch; the database's machine loses power; and a shard is gone when it is to be scored. The run ends with an
error that names that shard and nothing else. An operator downloads it again and triggers the crawl once more:
the dataset has the bytes of the undisturbed run.
"""

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import LiteralString

import boto3
import pytest

from laion_etl.core.ids import batch_name
from laion_etl.database.embedded import EmbeddedServer
from laion_etl.io.storage import Store, open_store
from laion_etl.minicrawl.build import MiniCrawl
from laion_etl.minicrawl.web import MiniWeb
from tests.airflow.conftest import Airflow
from tests.airflow.stage_pods import IMAGE, SPACE, Observer, airflow_settings, at_work, worker_image
from tests.airflow.started import StartedAirflow, started_airflow, until
from tests.faults.test_database import OwnServer, short_folder
from tests.flaky_s3 import Fault, FlakyS3, flaky_s3, serving
from tests.kubernetes.cluster import Cluster, running_cluster
from tests.kubernetes.environment import Namespace
from tests.kubernetes.faults import (
    QUOTA_USED_UP,
    SERVER_ERROR,
    TOO_MANY_REQUESTS,
    Cut,
    Held,
    PodFault,
    PodTrouble,
    RequestFault,
)
from tests.preloaded_commands import completed
from tests.runs import WAT_FILES, files, run_environment
from tests.shared_folder import SharedFolder

pytestmark = pytest.mark.airflow

BUCKET = "gauntlet"
PASSWORD = "password-of-the-pods"  # noqa: S105 - of nothing
_AWS = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")


@dataclass(frozen=True)
class World:
    """A crawl, its services, and the settings of its commands."""

    dag: str
    crawl: str
    cluster: Cluster
    server: OwnServer
    store: Store
    flaky: FlakyS3
    source: FlakyS3
    settings: dict[str, str]
    observer: Observer

    @property
    def database(self) -> str:
        return self.settings["LAION_ETL_DATABASE_URL"]

    def count(self, condition: LiteralString) -> int:
        """Batches of which this is true."""
        row = self.observer.first_row(f"select count(*) from batch where {condition}")  # noqa: S608
        return int(row[0]) if row else 0

    def files(self, folder: str) -> list[str]:
        """Names of the files in a folder of the store."""
        return list(self.store.list(folder))

    def looks_for(self, task: str) -> list[str]:
        """The times that a task looked for a pod of its own."""
        selectors = [asked.query.get("labelSelector", "") for asked in self.cluster.asked("list", "pods")]
        return [selector for selector in selectors if f"task_id={task}" in selector.split(",")]

    def watches(self, stage: str) -> list[str]:
        """The times that events of a stage's pods were watched."""
        selectors = [asked.query.get("fieldSelector", "") for asked in self.cluster.asked("watch", "events")]
        names = self.pods(stage)
        return [one for one in selectors if one.removeprefix("involvedObject.name=") in names]

    def pods(self, stage: str) -> list[str]:
        """Names of the pods of a stage, in the order in which they were posted."""
        found = [pod["metadata"] for pod in self.cluster.posted]
        return [str(pod["name"]) for pod in found if pod["labels"]["stage"] == stage]


@pytest.fixture
def world(
    tmp_path: Path,
    s3_endpoint: str,
    miniweb: MiniWeb,
    minicrawl: MiniCrawl,
    shared: SharedFolder,
) -> Iterator[World]:
    folder = short_folder()
    server = OwnServer(folder)
    database = EmbeddedServer(server.socket_dir).url("pairs").replace("postgres:@", f"postgres:{PASSWORD}@")
    with (
        flaky_s3(s3_endpoint, seed=1) as flaky,
        serving(FlakyS3(miniweb.url, 0.0, 2, [Fault.SLOW_DOWN])) as source,
    ):
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        store = open_store(f"s3://{BUCKET}/laion")
        settings = {
            **run_environment(tmp_path, database, source.endpoint, miniweb.connect_to),
            "LAION_ETL_STORE": store.uri(),
            "LAION_ETL_DATA_DIR": str(tmp_path / "data"),
        }
        worker = worker_image(shared, tmp_path / "pods" / "data", {name: settings[name] for name in _AWS})
        space = Namespace(secrets={"database": {"LAION_ETL_DATABASE_URL": database}})
        with running_cluster(tmp_path, {IMAGE: worker}, {SPACE: space}) as cluster:
            yield World(
                f"crawl_{minicrawl.crawl}",
                minicrawl.crawl,
                cluster,
                server,
                store,
                flaky,
                source,
                settings,
                Observer(database),
            )
    server.stop()
    subprocess.run(["rm", "-rf", str(folder)], check=True)


@pytest.fixture
def started(
    world: World, tmp_path: Path, airflow: Airflow, metadata: Callable[[], str], minicrawl: MiniCrawl
) -> Iterator[StartedAirflow]:
    settings = {
        **world.settings,
        **airflow_settings(world.cluster),
        "LAION_ETL_CATALOGUE": str(minicrawl.catalogue.absolute()),
    }
    with started_airflow(tmp_path, airflow, metadata(), settings) as started:
        started.api.wait_for_dag(world.dag, 1_200)
        yield started


def test_the_gauntlet(world: World, started: StartedAirflow, undisturbed_run: Path, tmp_path: Path) -> None:
    expected = {name: data for name, data in files(undisturbed_run).items() if name.startswith("dataset/")}
    second_worker, shard_is_gone, killed, taken_over = Event(), Event(), Event(), Event()
    world.flaky.share, world.source.share = 0.1, 0.5
    world.cluster.faults.order(
        RequestFault("create", "pods", QUOTA_USED_UP, {"stage": "discover"}),
        PodFault(PodTrouble.PREEMPTED, {"stage": "parse", "partition": "0"}),
        PodFault(PodTrouble.EVICTED, {"stage": "load", "partition": "1"}, begun=at_work(world.database)),
        PodFault(PodTrouble.SLOW_PULL, {"stage": "plan"}, until=taken_over),
        RequestFault("create", "pods", Held(killed), {"stage": "plan"}),
        PodFault(PodTrouble.SLOW_PULL, {"stage": "download"}, until=second_worker),
        PodFault(PodTrouble.SLOW_PULL, {"stage": "score"}, until=shard_is_gone),
        RequestFault("get", "pods", SERVER_ERROR, {"stage": "load"}, skip=1, times=2),
        RequestFault("get", "pods", TOO_MANY_REQUESTS, {"stage": "score"}, skip=1),
        RequestFault("get", "pods", Cut(), {"stage": "score"}, skip=3),
        RequestFault("watch", "events", Cut(after_lines=1)),
        RequestFault("get", "pods/log", Cut(after_lines=1), {"stage": "download"}),
    )
    conf = {"wat_files": WAT_FILES, "download_workers": 2, "score_workers": 1, "runner": "kubernetes"}
    run = started.api.trigger(world.dag, world.crawl, conf)

    until(lambda: world.pods("plan"), "the pod of plan")
    started.kill_scheduler()
    killed.set()
    looked = len(world.looks_for("plan"))
    until(lambda: len(world.looks_for("plan")) > looked, "the pod of plan to be looked for anew")
    until(lambda: world.watches("plan"), "the pod of plan to be watched")
    taken_over.set()

    # The worker that gets the first batch is frozen with it; the other one takes it over.
    until(lambda: world.pods("download"), "a download pod")
    until(lambda: world.count("state = 'downloading'"), "a batch that is downloaded")
    [frozen] = [name for name in world.pods("download") if world.cluster.signal(name, signal.SIGSTOP)]
    second_worker.set()
    until(lambda: world.count("state = 'downloaded'"), "a batch of the second worker")
    world.server.kill()
    world.server.start()
    until(lambda: not world.count("state <> 'downloaded'"), "all batches")
    assert world.cluster.signal(frozen, signal.SIGCONT)

    until(lambda: world.pods("score"), "the score pod")
    lost = next(name for name in world.store.list(f"shards/{world.crawl}") if name.endswith(".tar"))
    batch = int(Path(lost).stem)
    world.store.delete(lost)
    shard_is_gone.set()
    assert started.ended(world.dag, run) == "failed"
    failed = {task.task_id for task in started.api.task_instances(world.dag, run) if task.state == "failed"}
    assert failed == {"score"}
    scored = [name for name in world.store.list(f"scored/{world.crawl}") if name.endswith("_stats.json")]
    assert len(scored) == world.count("true") - 1, "all other shards are scored"
    assert f"scored/{world.crawl}/{batch_name(batch)}_stats.json" not in scored
    assert not world.files("dataset")
    # How often a pod is polled depends on the machine: a request to be disturbed may never be sent.
    assert not [one for one in world.cluster.faults.outstanding() if not isinstance(one, RequestFault)]
    assert len(world.pods("plan")) == 1, "not run twice, though its task was begun by two schedulers"

    again = ["stage", "download", "--crawl", world.crawl, "--batch", str(batch)]
    completed(["-m", "laion_etl", *again], world.settings, tmp_path).check_returncode()
    world.cluster.faults.order(
        RequestFault("create", "pods", SERVER_ERROR, {"stage": "publish"}),
        PodFault(PodTrouble.NODE_SHUT_DOWN, {"stage": "publish"}, begun=lambda: bool(world.files("dataset"))),
    )
    assert started.ended(world.dag, started.api.trigger(world.dag, world.crawl, conf)) == "success"
    world.flaky.share = 0
    assert len(world.pods("publish")) >= 3, "one was refused, one shut down"
    found = {name: world.store.read(name) for name in world.files("dataset")}
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    assert world.flaky.spoiled.total() > 20
    assert world.source.spoiled.total() > 0
    logs = [path.read_text() for path in tmp_path.glob("airflow/logs/dag_id=*/**/*.log")]
    assert len(logs) > 20
    assert not [text for text in (json.dumps(world.cluster.posted), *logs) if PASSWORD in text]
