"""Airflow's own pod operator, waiting itself and by a trigger, against the fake cluster."""

import json
import sys
from collections.abc import Iterator

import pytest

from tests.airflow.conftest import Airflow
from tests.kubernetes.cluster import Cluster, running_cluster
from tests.kubernetes.environment import Image, Namespace
from tests.kubernetes.faults import SERVER_ERROR, TOO_MANY_REQUESTS, Cut, PodFault, PodTrouble, RequestFault

pytestmark = pytest.mark.airflow

DAG = """
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.sdk import DAG

SCRIPT = "import time; print('one', flush=True); time.sleep(0.5); print('two')"

def pod(task_id, **how):
    labels = {"task": task_id}
    KubernetesPodOperator(
        task_id=task_id, name=task_id, image="python", arguments=[SCRIPT], labels=labels,
        namespace="laion", startup_check_interval_seconds=1, on_finish_action="delete_succeeded_pod", **how,
    )

with DAG("pods", schedule=None):
    for name in ("good", "out_of_memory", "no_image"):
        pod(f"waiting_{name}")
        pod(f"deferred_{name}", deferrable=True, poll_interval=0.2, logging_interval=1)
"""
RUN = """
import json
from airflow.dag_processing.dagbag import DagBag
run = DagBag().dags["pods"].test(logical_date=None)
print(json.dumps({task.task_id: str(task.state) for task in run.get_task_instances()}))
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    images = {"python": Image((sys.executable, "-c"))}
    with running_cluster(tmp_path_factory.mktemp("cluster"), images, {"laion": Namespace()}) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def airflow_with_pods(migrated_airflow: Airflow, cluster: Cluster) -> Airflow:
    dags = cluster.kubeconfig.parent / "dags"
    dags.mkdir()
    (dags / "pods.py").write_text(DAG)
    connection = {"conn_type": "kubernetes", "extra": {"kube_config_path": str(cluster.kubeconfig)}}
    more = {
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(dags),
        "AIRFLOW__WORKERS__API_RETRY_WAIT_MIN": "0.1",
        "AIRFLOW_CONN_KUBERNETES_DEFAULT": json.dumps(connection),
    }
    airflow = migrated_airflow.with_settings(**more)
    airflow.cli("dags", "reserialize")
    return airflow


def test_the_operator_and_the_fake_cluster_understand_each_other(
    airflow_with_pods: Airflow, cluster: Cluster
) -> None:
    ways = ("waiting", "deferred")
    cluster.faults.order(RequestFault("get", "pods/log", Cut(after_lines=1), {"task": "waiting_good"}))
    for way in ways:
        good = {"task": f"{way}_good"}
        cluster.faults.order(
            PodFault(PodTrouble.OOM_KILLED, {"task": f"{way}_out_of_memory"}, after="one"),
            PodFault(PodTrouble.IMAGE_PULL, {"task": f"{way}_no_image"}),
            RequestFault("get", "pods", SERVER_ERROR, good),
            RequestFault("get", "pods", TOO_MANY_REQUESTS, good, skip=1),
            RequestFault("create", "pods", SERVER_ERROR, good),
        )
    states = airflow_with_pods.python(RUN)

    assert states == {
        f"{way}_{name}": "success" if name == "good" else "failed"
        for way in ways
        for name in ("good", "out_of_memory", "no_image")
    }
    assert cluster.faults.outstanding() == []
    for way in ways:
        names = {pod["metadata"]["labels"]["task"]: pod["metadata"]["name"] for pod in cluster.posted}
        good, failed = (cluster.history(names[f"{way}_{name}"])[-1] for name in ("good", "out_of_memory"))
        assert (good.type, good.found["status"]["phase"]) == ("DELETED", "Succeeded")
        assert failed.found["metadata"]["labels"]["already_checked"] == "True"
        [status] = failed.found["status"]["containerStatuses"]
        assert status["state"]["terminated"]["reason"] == "OOMKilled"
