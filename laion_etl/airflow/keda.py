"""Manifests of a fleet that KEDA scales by the depth of a crawl's queue (LAION_ETL_FLEET=keda).

fleet_manifests.py prints them. The pods are those that Airflow would start (pod_spec.py), as a Deployment,
and a ScaledObject with KEDA's PostgreSQL scaler: as many workers as there are batches ready or in progress,
up to a limit, and none when the queue is empty. A worker that KEDA stops returns its batch, which costs no
attempt.

Refused: a ScaledJob. It never stops Jobs when the limit is lowered, and it counts Jobs that wait for a node
as work done.
"""

import re
from typing import Any

from airflow.providers.cncf.kubernetes.pod_generator import make_safe_label_value
from kubernetes.client import ApiClient
from kubernetes.client import models as k8s

from laion_etl.airflow.pod_spec import worker_template
from laion_etl.core.commands import stage_command
from laion_etl.core.consumers import Consumer
from laion_etl.core.errors import SettingsError
from laion_etl.core.stage_stats import fingerprint
from laion_etl.database.fleet import scaling_query
from laion_etl.settings import Settings, names_of_stage

_POLL_S = 30
_COOL_DOWN_S = 60  # before the last worker is stopped: by then it has found the queue empty
_SETTLED_S = 300  # the queue has to be shorter for this long before a worker is stopped
_DATABASE = "LAION_ETL_DATABASE_URL"
_LONGEST_NAME = 63
# How many batches may be missing is decided by the task that waits, for its run.
_ARGUMENTS = {Consumer.DOWNLOAD: [], Consumer.SCORE: ["--allow-missing", "1"]}


def manifests(crawl: str, consumer: Consumer, most: int, settings: Settings) -> list[dict[str, Any]]:
    """Return the Deployment and the ScaledObject. Raises SettingsError for settings that pods cannot use."""
    if not names_of_stage(settings.kubernetes.secrets, consumer.value):
        raise SettingsError(
            "cannot write the manifests of a fleet: LAION_ETL_KUBERNETES_SECRETS names none for "
            f"{consumer.value}; name the Secret that has {_DATABASE}; KEDA needs it also where workers use "
            "LAION_ETL_DATABASE_URLS"
        )
    name = _name(crawl, consumer)
    labels = {
        "app.kubernetes.io/name": "laion-etl",
        "crawl": make_safe_label_value(crawl.replace("/", "-")),
        "stage": consumer.value,
    }
    metadata = {"name": name, "labels": labels}
    if settings.kubernetes.namespace:
        metadata["namespace"] = settings.kubernetes.namespace
    words = [*stage_command(consumer.value), "--crawl", crawl, *_ARGUMENTS[consumer], "--json"]
    deployment = k8s.V1Deployment(
        api_version="apps/v1",
        kind="Deployment",
        metadata=k8s.V1ObjectMeta(**metadata),
        # No replica count: applying it again must not override KEDA's.
        spec=k8s.V1DeploymentSpec(
            selector=k8s.V1LabelSelector(match_labels=labels),
            template=worker_template(consumer.value, words, labels, settings),
        ),
    )
    return [ApiClient().sanitize_for_serialization(deployment), _scaled(metadata, crawl, consumer, most)]


def _scaled(metadata: dict[str, Any], crawl: str, consumer: Consumer, most: int) -> dict[str, Any]:
    trigger = {
        "type": "postgresql",
        "metadata": {
            "connectionFromEnv": _DATABASE,
            "query": scaling_query(crawl, consumer),
            "targetQueryValue": "1",
            "activationTargetQueryValue": "0",
        },
    }
    down = {"stabilizationWindowSeconds": _SETTLED_S}
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": metadata,
        "spec": {
            "scaleTargetRef": {"name": metadata["name"]},
            "pollingInterval": _POLL_S,
            "cooldownPeriod": _COOL_DOWN_S,
            "minReplicaCount": 0,
            "maxReplicaCount": most,
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": {"scaleDown": down}}},
            "triggers": [trigger],
        },
    }


def _name(crawl: str, consumer: Consumer) -> str:
    """Return a valid Kubernetes name that is unique to the crawl."""
    lower = crawl.lower()
    fitting = re.sub(r"[^a-z0-9]+", "-", lower).strip("-")
    name = f"laion-{consumer}-{fitting}"
    if fitting == lower and len(name) <= _LONGEST_NAME:
        return name
    return f"{name[: _LONGEST_NAME - 9].rstrip('-')}-{fingerprint(crawl)[:8]}"
