"""The pod of a stage: settings become arguments of Airflow's pod operator, and nothing else."""

import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from airflow.providers.cncf.kubernetes.pod_generator import make_safe_label_value
from kubernetes.client import models as k8s
from kubernetes.utils.quantity import parse_quantity

from laion_etl.airflow.alerts import LABEL, crawl_of
from laion_etl.airflow.commands import Command, run_id
from laion_etl.airflow.gpu_cores import cores_per_gpu
from laion_etl.airflow.masked_settings import without_secrets
from laion_etl.core.errors import SettingsError
from laion_etl.core.stage_stats import fingerprint
from laion_etl.settings import KubernetesSettings, Settings, names_of_stage, of_stage, setting_fields

_END_S = 15  # on top of the time that a download worker has to return its batch
_WAIT_FOR_AIRFLOW_S = 600  # a pod that Airflow lost ends this long after its task's time limit
_USER = 10001  # of the images in docker/
_SCRATCH = "/tmp"  # noqa: S108 - an emptyDir of the pod
_WEIGHTS = "/weights"
_CLAIM = "claim:"  # in weights_cache: a PersistentVolumeClaim; anything else is a path on the node
# Settings that concern Airflow's machine, or have no effect in a pod.
_NOT_PASSED_ON = {"runner", "data_dir", "catalogue", "registered", "run_id", "conn_id"}
_NOT_PASSED_ON |= {"task_restarts", "task_restart_delay_s", "fleet"}
_GROUPS_NOT_PASSED_ON = {"alerts", "airflow", "kubernetes"}

_log = logging.getLogger("laion_etl.stage")


def pod_parts(command: Command, settings: Settings, timeout: timedelta | None) -> dict[str, Any]:
    """Arguments of KubernetesPodOperator. Raises SettingsError for invalid or missing settings."""
    kubernetes, stage, task = settings.kubernetes, command.stage, command.context["ti"]
    _check(settings)
    return {
        "task_id": task.task_id,
        "kubernetes_conn_id": kubernetes.conn_id,
        "namespace": kubernetes.namespace or None,
        "name": f"laion-{stage}-{fingerprint(task.dag_id, task.run_id)[:8]}",
        "labels": _labels(command),
        "cmds": ["laion-etl"],
        "arguments": ["--result", result_uri(command, settings), *command.words, "--json"],
        "env_vars": _environment(stage, settings, run_id(task)),
        "env_from": _environment_from(stage, kubernetes),
        "image_pull_secrets": [k8s.V1LocalObjectReference(name) for name in kubernetes.image_pull_secrets],
        "service_account_name": _service_account(stage, kubernetes),
        "dns_config": _dns(),
        "automount_service_account_token": False,  # a role's token (IRSA) is mounted separately
        "full_pod_spec": _without_service_links(),
        **_places(stage, settings),
        **_folders(stage, kubernetes),
        **_confinement(),
        "termination_grace_period": int(settings.download.grace_s) + _END_S,
        "termination_message_policy": "FallbackToLogsOnError",
        "active_deadline_seconds": timeout and int(timeout.total_seconds()) + _WAIT_FOR_AIRFLOW_S,
        "on_finish_action": "delete_succeeded_pod",
        "deferrable": True,
        "poll_interval": kubernetes.poll_s,
        "logging_interval": kubernetes.logs_s,
        "startup_check_interval_seconds": max(1, round(kubernetes.poll_s)),  # the API takes whole seconds
        "startup_timeout_seconds": kubernetes.startup_timeout_s,
        "schedule_timeout_seconds": kubernetes.schedule_timeout_s,
        "log_pod_spec_on_failure": False,
    }


def worker_template(
    stage: str, words: Sequence[str], labels: Mapping[str, str], settings: Settings
) -> k8s.V1PodTemplateSpec:
    """The same pod for a Deployment, which restarts its command. Raises SettingsError as `pod_parts` does."""
    kubernetes = settings.kubernetes
    _check(settings)
    confinement, places, scratch = _confinement(), _places(stage, settings), _folders(stage, kubernetes)
    container = k8s.V1Container(
        name="worker",
        image=places["image"],
        command=["laion-etl"],
        args=list(words),
        env=_environment(stage, settings, f"{labels['crawl']}/{stage}"),
        env_from=_environment_from(stage, kubernetes),
        resources=places["container_resources"],
        volume_mounts=scratch["volume_mounts"],
        security_context=confinement["container_security_context"],
        termination_message_policy="FallbackToLogsOnError",
    )
    spec = k8s.V1PodSpec(
        containers=[container],
        volumes=scratch["volumes"],
        security_context=confinement["security_context"],
        service_account_name=_service_account(stage, kubernetes),
        automount_service_account_token=False,
        enable_service_links=False,
        image_pull_secrets=[k8s.V1LocalObjectReference(name) for name in kubernetes.image_pull_secrets],
        node_selector=places["node_selector"],
        tolerations=places["tolerations"],
        dns_config=_dns(),
        termination_grace_period_seconds=int(settings.download.grace_s) + _END_S,
    )
    return k8s.V1PodTemplateSpec(metadata=k8s.V1ObjectMeta(labels=dict(labels)), spec=spec)


def result_uri(command: Command, settings: Settings) -> str:
    """URI of the command's result, by run, task and map index, the same for every try."""
    task = command.context["ti"]
    index = f"-{task.map_index}" if task.map_index is not None and task.map_index >= 0 else ""
    run = fingerprint(task.dag_id, task.run_id)
    return (
        f"{settings.core.store.rstrip('/')}/results/{crawl_of(task.dag_id)}/{run}/{task.task_id}{index}.json"
    )


def _check(settings: Settings) -> None:
    if not settings.kubernetes.image:
        raise SettingsError(
            "cannot start a pod: LAION_ETL_KUBERNETES_IMAGE is empty; set it to the image of the pods"
        )
    if not settings.core.store:
        raise SettingsError(
            "cannot start a pod: LAION_ETL_STORE is not reachable from pods; set it to s3://..."
        )


def _labels(command: Command) -> dict[str, str]:
    """Labels for `kubectl get pods -l crawl=...,stage=...`; also for example `partition: 3`."""
    task = command.context["ti"]
    unit = str(command.context.get(LABEL, "")).partition(" ")
    labels = {
        "app.kubernetes.io/name": "laion-etl",
        "crawl": crawl_of(task.dag_id),
        "stage": command.stage,
        "run": task.run_id,
        **({unit[0]: unit[2]} if unit[2] else {}),
    }
    return {name: make_safe_label_value(value.replace("/", "-")) for name, value in labels.items()}


def _environment(stage: str, settings: Settings, run: str) -> list[k8s.V1EnvVar]:
    """The settings of the task that differ from their defaults, without secrets."""
    weights = _WEIGHTS if _caches_weights(stage, settings.kubernetes) else _SCRATCH
    folders = {"LAION_ETL_DATA_DIR": f"{_SCRATCH}/laion_etl", "HF_HOME": f"{weights}/huggingface"}
    passed = _passed_on(settings) | folders | {"LAION_ETL_RUN_ID": run, "PYTHONUNBUFFERED": "1"}
    return [k8s.V1EnvVar(name, value) for name, value in sorted(passed.items())]


def _passed_on(settings: Settings) -> dict[str, str]:
    found = {}
    for field in setting_fields():
        value = field.value(settings)
        of_airflow = field.group in _GROUPS_NOT_PASSED_ON or field.name in _NOT_PASSED_ON
        if of_airflow or field.secret or value == field.default:
            continue
        text = field.text(value)
        if without_secrets(field.variable, text) == text:
            found[field.variable] = text
        else:
            _log.warning("%s has a password or a signature: the pod needs it from a Secret", field.variable)
    return found


def _service_account(stage: str, kubernetes: KubernetesSettings) -> str | None:
    names = names_of_stage(kubernetes.service_account, stage)
    return names[-1] if names else None


def _environment_from(stage: str, kubernetes: KubernetesSettings) -> list[k8s.V1EnvFromSource]:
    maps = [k8s.V1ConfigMapEnvSource(name=name) for name in kubernetes.config_maps]
    secrets = [k8s.V1SecretEnvSource(name=name) for name in names_of_stage(kubernetes.secrets, stage)]
    return [k8s.V1EnvFromSource(config_map_ref=one) for one in maps] + [
        k8s.V1EnvFromSource(secret_ref=one) for one in secrets
    ]


def _places(stage: str, settings: Settings) -> dict[str, Any]:
    """Image, resources and node selection; score pods may have GPUs."""
    kubernetes = settings.kubernetes
    gpu = stage == "score" and kubernetes.gpus > 0
    extra = {kubernetes.gpu_resource: str(kubernetes.gpus)} if gpu else {}
    requests = {name: _of_stage(kubernetes, name, stage) for name in ("cpu", "memory")}
    usual = requests | ({"cpu": _cores(settings, requests["cpu"])} if gpu else {})
    limits = {name: _of_stage(kubernetes, f"{name}_limit", stage) or usual[name] for name in requests}
    if scratch := _of_stage(
        kubernetes, "scratch", stage
    ):  # otherwise the namespace's default would be the limit
        extra["ephemeral-storage"] = scratch
    selector = kubernetes.gpu_node_selector if gpu else kubernetes.node_selector
    tolerations = kubernetes.gpu_tolerations if gpu else kubernetes.tolerations
    return {
        "image": (gpu and kubernetes.gpu_image) or kubernetes.image,
        "container_resources": k8s.V1ResourceRequirements(requests=requests | extra, limits=limits | extra),
        "node_selector": dict(map(_node_label, selector)),
        "tolerations": [_toleration(entry) for entry in tolerations],
    }


def _dns() -> k8s.V1PodDNSConfig:
    """Try names with a dot as absolute first: with Kubernetes' `ndots: 5` each costs five failing queries."""
    return k8s.V1PodDNSConfig(options=[k8s.V1PodDNSConfigOption(name="ndots", value="1")])


def _without_service_links() -> k8s.V1Pod:
    """What the operator has no argument for: no variables of the namespace's Services.

    They tell a pod that was taken over which Services there are, and one named `laion-etl-store` would add
    variables that begin as settings do.
    """
    spec = k8s.V1PodSpec(containers=[], enable_service_links=False)
    return k8s.V1Pod(metadata=k8s.V1ObjectMeta(), spec=spec)


def _cores(settings: Settings, requested: str) -> str:
    """The core limit of a pod with GPUs: enough to feed them, and at least what it requests."""
    cores = cores_per_gpu(settings.clip.model) * settings.kubernetes.gpus
    return str(cores) if parse_quantity(requested) < cores else requested


def _of_stage(kubernetes: KubernetesSettings, name: str, stage: str) -> str:
    return of_stage(getattr(kubernetes, name), stage)


def _node_label(entry: str) -> tuple[str, str]:
    label, _, value = entry.partition("=")
    return label, value


def _toleration(entry: str) -> k8s.V1Toleration:
    taint, _, effect = entry.rpartition(":")
    key, given, value = taint.partition("=")
    return k8s.V1Toleration(
        key=key, value=value or None, operator="Equal" if given else "Exists", effect=effect
    )


def _folders(stage: str, kubernetes: KubernetesSettings) -> dict[str, Sequence[Any]]:
    """The writable folders: one deleted with the pod and, for score pods, a persistent one for weights."""
    size = _of_stage(kubernetes, "scratch", stage) or None
    volumes = [k8s.V1Volume(name="scratch", empty_dir=k8s.V1EmptyDirVolumeSource(size_limit=size))]
    mounts = [k8s.V1VolumeMount(name="scratch", mount_path=_SCRATCH)]
    if _caches_weights(stage, kubernetes):
        volumes.append(_weights_volume(kubernetes.weights_cache))
        mounts.append(k8s.V1VolumeMount(name="weights", mount_path=_WEIGHTS))
    return {"volumes": volumes, "volume_mounts": mounts}


def _caches_weights(stage: str, kubernetes: KubernetesSettings) -> bool:
    return stage == "score" and bool(kubernetes.weights_cache)


def _weights_volume(place: str) -> k8s.V1Volume:
    if place.startswith(_CLAIM):
        claim = k8s.V1PersistentVolumeClaimVolumeSource(claim_name=place.removeprefix(_CLAIM))
        return k8s.V1Volume(name="weights", persistent_volume_claim=claim)
    # It has to exist: the kubelet would create it owned by root, and the pod runs as another user.
    folder = k8s.V1HostPathVolumeSource(path=place, type="Directory")
    return k8s.V1Volume(name="weights", host_path=folder)


def _confinement() -> Mapping[str, Any]:
    """The requirements of the Pod Security Standard "restricted", and a read-only root."""
    return {
        "security_context": k8s.V1PodSecurityContext(
            run_as_non_root=True,
            run_as_user=_USER,
            run_as_group=_USER,
            fs_group=_USER,
            seccomp_profile=k8s.V1SeccompProfile(type="RuntimeDefault"),
        ),
        "container_security_context": k8s.V1SecurityContext(
            allow_privilege_escalation=False,
            read_only_root_filesystem=True,
            capabilities=k8s.V1Capabilities(drop=["ALL"]),
        ),
    }
