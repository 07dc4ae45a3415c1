"""Pods of stages: their contents, what they must not contain, and the messages of their failures."""

from typing import Any

import pytest

from laion_etl.airflow.gpu_cores import cores_per_gpu
from tests.airflow.conftest import ROOT, Airflow
from tests.kubernetes.restricted import missing

pytestmark = pytest.mark.airflow

MAKE = """
import json
from datetime import timedelta
from types import SimpleNamespace
from kubernetes.client import ApiClient, models as k8s
from laion_etl.airflow.pod_failures import failure
from laion_etl.airflow.pods import stage_pod
from laion_etl.airflow.commands import Command
from laion_etl.core.errors import SettingsError

def pod(stage, label="", index=-1, **settings):
    task = SimpleNamespace(
        dag_id="crawl_CC-MAIN-2024-38", run_id="manual__2026-01-01T00:00:00+00:00",
        task_id=stage, map_index=index, try_number=1,
    )
    context = {"ti": task, "run_id": task.run_id, "dag": None, "label": label}
    command = Command([stage, "--crawl", "CC-MAIN-2024-38"], context, settings)
    return stage_pod(command, timedelta(hours=8)).build_pod_request_obj(context, dry_run=True)

def plain(made):
    return ApiClient().sanitize_for_serialization(made)

def refused(**settings):
    try:
        pod("parse", **settings)
    except SettingsError as error:
        return str(error)

GPU = {
    "LAION_ETL_KUBERNETES_GPUS": "1",
    "LAION_ETL_KUBERNETES_GPU_IMAGE": "registry/gpu:1",
    "LAION_ETL_KUBERNETES_GPU_NODE_SELECTOR": "pool=a100",
    "LAION_ETL_KUBERNETES_GPU_TOLERATIONS": "gpu=yes:NoSchedule,spot:NoExecute",
    "LAION_ETL_KUBERNETES_WEIGHTS_CACHE": "/mnt/weights",
    "LAION_ETL_KUBERNETES_MEMORY": "score=9Gi",
    "LAION_ETL_KUBERNETES_MEMORY_LIMIT": "other=12Gi",
}

def failed(stage, phase="Failed", reason=None, message=None, conditions=(), **state):
    made = pod(stage)
    container = k8s.V1ContainerStatus(
        name="base", image="", image_id="", ready=False, restart_count=0, state=k8s.V1ContainerState(**state)
    )
    made.status = k8s.V1PodStatus(
        phase=phase, reason=reason, message=message, conditions=list(conditions),
        container_statuses=[container] if state else None,
    )
    error = failure(stage, made, "what the trigger says")
    return [type(error).__name__, str(error)]

def ended(code, reason="Error", message=None):
    return {"terminated": k8s.V1ContainerStateTerminated(exit_code=code, reason=reason, message=message)}

def condition(kind, status, reason, message):
    return k8s.V1PodCondition(type=kind, status=status, reason=reason, message=message)

no_image = k8s.V1ContainerStateWaiting(reason="ImagePullBackOff", message="not found")
print(json.dumps({
    "parse": plain(pod("parse", "partition 3", 3, LAION_ETL_CLIP_THRESHOLD_EN="0.3")),
    "score": plain(pod("score", "worker 0", 0)),
    "gpu": plain(pod("score", **GPU)),
    "large": plain(pod(
        "score", **GPU | {"LAION_ETL_KUBERNETES_GPUS": "2", "LAION_ETL_CLIP_MODEL": "ViT-L-14",
        "LAION_ETL_KUBERNETES_WEIGHTS_CACHE": "claim:weights"},
    )),
    "no_weights": plain(pod("parse", LAION_ETL_KUBERNETES_WEIGHTS_CACHE="/mnt/weights")),
    "unfit": [
        refused(LAION_ETL_STORE=""),
        refused(LAION_ETL_KUBERNETES_IMAGE=""),
        refused(LAION_ETL_KUBERNETES_CPU="parse"),
        refused(LAION_ETL_STROE="x"),
    ],
    "failures": {
        "usage": failed("parse", **ended(2, message="working\\nerror: no such setting\\n")),
        "error": failed("parse", **ended(1, message="error: part.wat.gz is damaged")),
        "memory": failed("parse", **ended(137, "OOMKilled")),
        "memory of a worker": failed("download", **ended(137, "OOMKilled")),
        "evicted": failed("parse", reason="Evicted", message="The node was low on resource: memory."),
        "preempted": failed(
            "score", **ended(137),
            conditions=[condition("DisruptionTarget", "True", "PreemptionByScheduler", "to make room")],
        ),
        "image": failed("parse", "Pending", waiting=no_image),
        "no node": failed(
            "parse", "Pending", conditions=[condition("PodScheduled", "False", "Unschedulable", "0/3 nodes")]
        ),
        "stopped": failed("parse", "Running", running=k8s.V1ContainerStateRunning()),
    },
}))
"""


@pytest.fixture(scope="module")
def made(airflow: Airflow) -> dict[str, Any]:
    """Pods, and failures of pods, made in one process: its imports take longest."""
    folders = f"{ROOT / 'dags'}:{ROOT / 'plugins'}"
    found: dict[str, Any] = airflow.python(
        MAKE,
        PYTHONPATH=folders,
        LAION_ETL_STORE="s3://bucket/prefix",
        LAION_ETL_DATABASE_URL="postgresql://me:hidden@db/laion",
        LAION_ETL_CRAWL_SOURCE="https://me:hidden@mirror.example",
        LAION_ETL_ALERTS_SMTP_PASSWORD="hidden",  # noqa: S106
        LAION_ETL_ALERTS_WEBHOOK="https://hooks.example/hidden",
        LAION_ETL_PARSE_REFUSED_EXTENSIONS=".svg,.ico",
        LAION_ETL_KUBERNETES_IMAGE="registry/worker:1",
        LAION_ETL_KUBERNETES_NAMESPACE="laion",
        LAION_ETL_KUBERNETES_SERVICE_ACCOUNT="scorer,parse=loader",
        LAION_ETL_KUBERNETES_SECRETS="database,parse=s3,other=queue,other=shards",
        LAION_ETL_KUBERNETES_CONFIG_MAPS="region",
        LAION_ETL_KUBERNETES_IMAGE_PULL_SECRETS="registry",
    )
    return found


def test_a_pod_runs_the_command_and_leaves_its_result_in_the_store(made: dict[str, Any]) -> None:
    spec = made["parse"]["spec"]
    [container] = spec["containers"]
    assert container["image"] == "registry/worker:1"
    assert container["command"] == ["laion-etl"]
    option, uri, *command = container["args"]
    assert option == "--result"
    assert uri.startswith("s3://bucket/prefix/results/CC-MAIN-2024-38/")
    assert uri.endswith("/parse-3.json")
    assert command == ["stage", "parse", "--crawl", "CC-MAIN-2024-38", "--json"]
    assert spec["terminationGracePeriodSeconds"] == 35  # a worker's 20 s to return its batch, and a margin
    assert spec["activeDeadlineSeconds"] > 8 * 3600
    assert spec["restartPolicy"] == "Never"
    assert spec["dnsConfig"] == {"options": [{"name": "ndots", "value": "1"}]}
    labels = made["parse"]["metadata"]["labels"]
    assert (labels["crawl"], labels["stage"], labels["partition"]) == ("CC-MAIN-2024-38", "parse", "3")
    assert made["score"]["metadata"]["labels"]["worker"] == "0"


def test_settings_go_to_the_pod_and_secrets_do_not(made: dict[str, Any]) -> None:
    [container] = made["parse"]["spec"]["containers"]
    assert {one["name"]: one["value"] for one in container["env"]} == {
        "HF_HOME": "/tmp/huggingface",  # noqa: S108
        "LAION_ETL_CLIP_THRESHOLD_EN": "0.3",
        "LAION_ETL_DATA_DIR": "/tmp/laion_etl",  # noqa: S108
        "LAION_ETL_PARSE_REFUSED_EXTENSIONS": ".svg,.ico",
        "LAION_ETL_RUN_ID": "manual__2026-01-01T00:00:00+00:00/parse[3]",
        "LAION_ETL_STORE": "s3://bucket/prefix",
        "PYTHONUNBUFFERED": "1",
    }
    assert container["envFrom"] == [
        {"configMapRef": {"name": "region"}},
        {"secretRef": {"name": "database"}},
        {"secretRef": {"name": "s3"}},
    ]
    assert "hidden" not in str(made["parse"])
    assert "hidden" not in str(made["score"])


def test_each_stage_has_its_own_secrets_and_account(made: dict[str, Any]) -> None:
    spec = made["score"]["spec"]
    [container] = spec["containers"]
    named = [one["secretRef"]["name"] for one in container["envFrom"] if "secretRef" in one]
    assert named == ["database", "queue", "shards"]
    assert spec["serviceAccountName"] == "scorer"


def test_a_pod_has_no_rights_it_does_not_need(made: dict[str, Any]) -> None:
    spec = made["parse"]["spec"]
    assert missing(spec) == missing(made["large"]["spec"]) == []
    assert missing(made["gpu"]["spec"]) == ["volumes: hostPath"]  # as the setting says of folders of a node
    [container] = spec["containers"]
    assert spec["serviceAccountName"] == "loader"
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["volumeMounts"] == [{"name": "scratch", "mountPath": "/tmp"}]  # noqa: S108
    assert spec["volumes"] == [{"name": "scratch", "emptyDir": {"sizeLimit": "4Gi"}}]


def test_resources_and_nodes_are_those_of_the_stage(made: dict[str, Any]) -> None:
    resources = made["parse"]["spec"]["containers"][0]["resources"]
    of_parse = {"cpu": "4", "memory": "4Gi", "ephemeral-storage": "4Gi"}
    assert resources["requests"] == resources["limits"] == of_parse

    gpu = made["gpu"]["spec"]
    [container] = gpu["containers"]
    assert container["image"] == "registry/gpu:1"
    of_score = {"ephemeral-storage": "8Gi", "nvidia.com/gpu": "1"}
    assert container["resources"]["requests"] == {**of_score, "cpu": "4", "memory": "9Gi"}
    assert container["resources"]["limits"] == {**of_score, "cpu": "16", "memory": "12Gi"}
    [large] = made["large"]["spec"]["containers"]
    assert large["resources"]["limits"]["cpu"] == "8"
    assert gpu["nodeSelector"] == {"pool": "a100"}
    assert gpu["tolerations"] == [
        {"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoSchedule"},
        {"key": "spot", "operator": "Exists", "effect": "NoExecute"},
    ]


def test_weights_stay_on_the_node_or_in_a_volume(made: dict[str, Any]) -> None:
    for name, source in (
        ("gpu", {"hostPath": {"path": "/mnt/weights", "type": "Directory"}}),
        ("large", {"persistentVolumeClaim": {"claimName": "weights"}}),
    ):
        spec = made[name]["spec"]
        [container] = spec["containers"]
        assert {"name": "weights", **source} in spec["volumes"]
        assert {"name": "weights", "mountPath": "/weights"} in container["volumeMounts"]
        assert {"name": "HF_HOME", "value": "/weights/huggingface"} in container["env"]
    assert [volume["name"] for volume in made["no_weights"]["spec"]["volumes"]] == ["scratch"]


@pytest.mark.parametrize(
    ("model", "cores"),
    [
        ("ViT-B-32", 16),
        ("xlm-roberta-base-ViT-B-32", 16),
        ("RN50", 16),
        ("ViT-B-16-SigLIP", 8),
        ("convnext_base_w", 8),
        ("RN50x64", 4),
        ("ViT-L-14", 4),
        ("hf-hub:laion/CLIP-ViT-H-14-laion2B-s32B-b79K", 4),
    ],
)
def test_small_models_have_more_cores_per_gpu(model: str, cores: int) -> None:
    assert cores_per_gpu(model) == cores


def test_settings_no_pod_can_be_made_of_are_not_tried_again(made: dict[str, Any]) -> None:
    store, image, cpu, unknown = made["unfit"]
    assert "LAION_ETL_STORE" in store
    assert "LAION_ETL_KUBERNETES_IMAGE" in image
    assert "LAION_ETL_KUBERNETES_CPU" in cpu
    assert "did you mean LAION_ETL_STORE" in unknown


@pytest.mark.parametrize(
    ("what", "kind", "words"),
    [
        ("usage", "FinalError", "no such setting (laion-etl stage parse ended with exit code 2)"),
        (
            "error",
            "AirflowException",
            "part.wat.gz is damaged (laion-etl stage parse ended with exit code 1)",
        ),
        ("memory", "FinalError", "OOM-killed at 4Gi; raise parse=..."),
        ("memory of a worker", "AirflowException", "OOM-killed at 4Gi; raise download=..."),
        ("evicted", "PodLostError", "evicted by Kubernetes: The node was low on resource: memory."),
        ("preempted", "PodLostError", "PreemptionByScheduler: to make room"),
        ("image", "AirflowException", "cannot pull the image registry/worker:1 (ImagePullBackOff"),
        ("no node", "AirflowException", "no node accepted the pod: 0/3 nodes"),
        ("stopped", "AirflowException", "the pod was stopped: what the trigger says"),
    ],
)
def test_a_failed_pod_says_why(made: dict[str, Any], what: str, kind: str, words: str) -> None:
    name, message = made["failures"][what]
    assert name == kind
    assert words in message
