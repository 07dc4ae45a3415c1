"""A fleet that KEDA scales: its manifests, the pod that they describe, and the task that waits for it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config, watch

from laion_etl.database.connection import Database
from laion_etl.database.load import load_partition
from laion_etl.io.storage import LocalStore
from laion_etl.plan.stage import plan_batches
from laion_etl.settings import Settings
from tests.airflow.conftest import ROOT, Airflow
from tests.airflow.stage_pods import IMAGE, SPACE, worker_image
from tests.cluster_commands import check_kubectl
from tests.database.pairs import numbered_pairs, write_pairs
from tests.kubernetes.cluster import running_cluster
from tests.kubernetes.environment import Namespace
from tests.kubernetes.restricted import missing
from tests.kubernetes.schema import check_types
from tests.shared_folder import SharedFolder

pytestmark = pytest.mark.airflow

CRAWL = "CC-MAIN-2024-38"
# The fields of KEDA's ScaledObject that our manifests may use, with their types.
SCALED_OBJECT = {
    "scaleTargetRef": {"name": str},
    "pollingInterval": int,
    "cooldownPeriod": int,
    "minReplicaCount": int,
    "maxReplicaCount": int,
    "advanced": {
        "horizontalPodAutoscalerConfig": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": int}}}
    },
    "triggers": [
        {
            "type": str,
            "metadata": {
                "connectionFromEnv": str,
                "query": str,
                "targetQueryValue": str,
                "activationTargetQueryValue": str,
            },
        }
    ],
}


def fits(value: Any, schema: Any) -> bool:
    if isinstance(schema, dict):
        return (
            isinstance(value, dict)
            and value.keys() == schema.keys()
            and all(fits(value[name], of) for name, of in schema.items())
        )
    if isinstance(schema, list):
        return isinstance(value, list) and all(fits(item, schema[0]) for item in value)
    return type(value) is schema


@pytest.fixture
def store(tmp_path: Path, settings: Settings, database: Database) -> LocalStore:
    """A planned crawl of one batch, whose links are all dead."""
    store = LocalStore(tmp_path / "store")
    write_pairs(store, CRAWL, 0, numbered_pairs(0, 3))
    load_partition(CRAWL, 0, settings, store, database)
    plan_batches(CRAWL, settings, store, database)
    return store


def manifests(airflow: Airflow, *arguments: str, **more: str) -> list[dict[str, Any]]:
    environment = {
        "LAION_ETL_KUBERNETES_IMAGE": IMAGE,
        "LAION_ETL_KUBERNETES_NAMESPACE": SPACE,
        "LAION_ETL_KUBERNETES_SECRETS": "database",
        "LAION_ETL_STORE": "s3://bucket/prefix",
        **more,
    }
    out, _ = airflow.run(["-m", "laion_etl.airflow.fleet_manifests", *arguments], **environment)
    found: list[dict[str, Any]] = json.loads(out)["items"]
    return found


def test_the_manifests_are_what_kubernetes_and_keda_take(airflow: Airflow) -> None:
    deployment, scaled = manifests(airflow, CRAWL, "--workers", "300")
    check_types(deployment, "V1Deployment")
    assert fits(scaled["spec"], SCALED_OBJECT)
    assert (scaled["apiVersion"], scaled["kind"]) == ("keda.sh/v1alpha1", "ScaledObject")
    name = deployment["metadata"]["name"]
    assert name == scaled["metadata"]["name"] == "laion-download-cc-main-2024-38"
    assert scaled["spec"]["scaleTargetRef"] == {"name": name}
    assert (scaled["spec"]["minReplicaCount"], scaled["spec"]["maxReplicaCount"]) == (0, 300)
    assert "replicas" not in deployment["spec"]  # it is KEDA's
    template = deployment["spec"]["template"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert missing(template["spec"]) == []
    assert template["spec"]["dnsConfig"] == {"options": [{"name": "ndots", "value": "1"}]}
    (container,) = template["spec"]["containers"]
    # KEDA reads the variable from the same source as the container.
    (trigger,) = scaled["spec"]["triggers"]
    assert trigger["metadata"]["connectionFromEnv"] == "LAION_ETL_DATABASE_URL"
    assert container["envFrom"] == [{"secretRef": {"name": "database"}}]
    assert not {"LAION_ETL_FLEET", "LAION_ETL_DATABASE_URL"} & {one["name"] for one in container["env"]}


def test_scores_have_manifests_of_their_own(airflow: Airflow) -> None:
    deployment, scaled = manifests(
        airflow,
        CRAWL,
        "--consumer",
        "score",
        "--workers",
        "8",
        LAION_ETL_KUBERNETES_GPUS="1",
        LAION_ETL_KUBERNETES_GPU_IMAGE=f"{IMAGE}-gpu",
    )
    assert fits(scaled["spec"], SCALED_OBJECT)
    name = deployment["metadata"]["name"]
    assert name == scaled["spec"]["scaleTargetRef"]["name"] == "laion-score-cc-main-2024-38"
    assert scaled["spec"]["maxReplicaCount"] == 8
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"{IMAGE}-gpu"
    # The run's task decides what may be missing; a pod that ended with an error would be started again.
    assert container["args"] == ["stage", "score", "--crawl", CRAWL, "--allow-missing", "1", "--json"]


def test_a_pod_of_the_deployment_empties_the_queue(
    airflow: Airflow,
    shared: SharedFolder,
    store: LocalStore,
    settings: Settings,
    database: Database,
    tmp_path: Path,
) -> None:
    deployment, scaled = manifests(
        airflow,
        CRAWL,
        LAION_ETL_STORE=str(tmp_path / "store"),
        LAION_ETL_DOWNLOAD_CONNECT_TO="img.example=127.0.0.1:1",
        LAION_ETL_DOWNLOAD_DECODERS="1",
    )
    depth = scaled["spec"]["triggers"][0]["metadata"]["query"]
    assert database.connection.execute(depth).fetchone() == (1,)
    secret = {"LAION_ETL_DATABASE_URL": settings.core.database_url}
    spaces = {SPACE: Namespace(secrets={"database": secret})}
    images = {IMAGE: worker_image(shared, tmp_path / "data")}
    pod = {"apiVersion": "v1", "kind": "Pod", **deployment["spec"]["template"]}
    pod["metadata"] = {"name": "worker-1", **pod["metadata"]}
    with running_cluster(tmp_path, images, spaces) as cluster:
        api = client.CoreV1Api(config.new_client_from_config(str(cluster.kubeconfig)))
        api.create_namespaced_pod(SPACE, pod)
        for change in watch.Watch().stream(api.list_namespaced_pod, SPACE, timeout_seconds=120):
            if change["object"].status.phase in ("Succeeded", "Failed"):
                break
        log = api.read_namespaced_pod_log("worker-1", SPACE)
    assert change["object"].status.phase == "Succeeded", log
    assert database.connection.execute(depth).fetchone() == (0,)


def test_the_task_waits_for_the_queue_and_alerts_when_it_is_stalled(
    airflow: Airflow, store: LocalStore, settings: Settings, tmp_path: Path
) -> None:
    found = airflow.python_file(
        ROOT / "tests" / "airflow" / "fleet_wait.py",
        CRAWL,
        LAION_ETL_FLEET="keda",
        LAION_ETL_STORE=str(tmp_path / "store"),
        LAION_ETL_DATABASE_URLS=settings.core.database_url,
        LAION_ETL_KUBERNETES_NAMESPACE="laion",
        LAION_ETL_KUBERNETES_QUEUE_POLL_S="0.1",
        LAION_ETL_ALERTS_STALLED_AFTER_S="0",
    )
    plan = store.read_stats(f"batches/{CRAWL}/_stats.json").fingerprint
    for consumer, after, before in (("download", "workers", "shards"), ("score", "score_workers", "publish")):
        task = found[consumer]
        assert (task["after"], task["before"]) == ([after], sorted(["digest", before, "verdict"]))
        assert f"{consumer}: 1 batch to do, 0 of them at work; 0 finished, 0 parked" in task["lines"]
        assert task["event"] == {"open": 0, "at_work": 0, "finished": 1, "parked": 0}
        assert task["result"] == {"done": 1, "plan": plan}
        assert "cannot use the parameter store_prefix with LAION_ETL_FLEET=keda" in task["refused"]
    assert len(found["alerts"]) == 2
    for reason in found["alerts"]:
        assert "no batch has ended for" in reason
        assert "1 are left, 0 at work" in reason
        [command] = re.findall(r"\(kubectl (.*)\)", reason)
        assert check_kubectl(command.split()) == ()
    parked = {consumer: found[consumer]["a quarter parked"] for consumer in ("download", "score")}
    # A batch that is not downloaded fails the task that downloads whatever is allowed, as without KEDA.
    for helps, message in parked["download"].values():
        assert not helps
        assert f"cannot download 1 of 4 batches of {CRAWL}: they are parked; see" in message
    helps, message = parked["score"]["24"]
    assert not helps
    assert "they are parked, and at most 24 % may be" in message
    assert parked["score"]["25"] == {"done": 3, "plan": plan}
    # It is read again after an outage only.
    assert "none of LAION_ETL_DATABASE_CONN_ID" in found["no database"][1]
    assert "_missing" in found["refusing"][1]
    assert [found[case][0] for case in ("no database", "refusing")] == [False, False]
