"""Settings of the pods of runner kubernetes."""

from dataclasses import dataclass
from typing import ClassVar

from laion_etl.settings.checks import by_stage, each, names_by_stage, not_empty, pattern
from laion_etl.settings.fields import Group, setting

_CORES = r"\d+(\.\d+)?|\d+m"
_BYTES = r"\d+(\.\d+)?([kMGTPE]|[KMGTPE]i|m|e\d+)?"
_EFFECT = r"(NoSchedule|PreferNoSchedule|NoExecute)?"
_labels = each(pattern(r"[^=\s]+=[^=\s]*", "label=value"))
_taints = each(pattern(rf"[^=:\s]+(=[^=:\s]*)?:{_EFFECT}", "key:NoSchedule or key=value:NoSchedule"))


@dataclass(frozen=True, slots=True)
class KubernetesSettings(Group):
    """Runner kubernetes: one pod per task, started through Airflow's connection.

    Lists by stage are `stage=value` entries; `other` is for stages that are not named.
    """

    GROUP: ClassVar[str] = "kubernetes"

    conn_id: str = setting(
        "kubernetes_default",
        "Airflow connection to the cluster.",
        changes=None,
        check=not_empty,
    )
    namespace: str = setting(
        "",
        "Namespace of the pods. Empty: the connection's, else Airflow's own.",
        changes=None,
    )
    image: str = setting(
        "",
        "Image of the pods, with its tag or digest. No default.",
        changes=None,
    )
    gpu_image: str = setting(
        "",
        "Image of score pods with a GPU. Empty: LAION_ETL_KUBERNETES_IMAGE.",
        changes=None,
    )
    image_pull_secrets: tuple[str, ...] = setting(
        (),
        "Secrets for pulling images.",
        changes=None,
    )
    service_account: tuple[str, ...] = setting(
        (),
        "Service account of the pods: NAME for all of them, STAGE=NAME for one stage, other=NAME for stages "
        "that are not named; if it has an IAM role (IRSA) they need no S3 keys. Empty: the namespace's "
        "default. No token for the cluster's API is mounted.",
        changes=None,
        check=names_by_stage(most_per_stage=1),
    )
    secrets: tuple[str, ...] = setting(
        (),
        "Secrets whose entries become environment variables of the pods: LAION_ETL_DATABASE_URL, "
        "AWS_ACCESS_KEY_ID ... NAME for all pods, STAGE=NAME for those of one stage, other=NAME for stages "
        "that are not named. Pods get secrets in no other way.",
        changes=None,
        check=names_by_stage(most_per_stage=0),
    )
    config_maps: tuple[str, ...] = setting(
        (),
        "ConfigMaps whose entries become environment variables of the pods. Settings of Airflow itself that "
        "are not secret are passed on anyway and take precedence.",
        changes=None,
    )
    cpu: tuple[str, ...] = setting(
        ("parse=4", "download=2", "score=4", "publish=2", "other=1"),
        "Cores requested, by stage.",
        changes=None,
        check=by_stage(_CORES, "parse=4", others=True),
    )
    cpu_limit: tuple[str, ...] = setting(
        (),
        "Core limit, by stage; for stages that are not named it is what they request, and for score pods "
        "with GPUs what feeds those (16 per GPU with ViT-B/32, 8 with ViT-B/16, 4 with larger models). A "
        "command starts as many processes as it may use cores.",
        changes=None,
        check=by_stage(_CORES, "parse=4", others=True),
    )
    memory: tuple[str, ...] = setting(
        ("parse=4Gi", "download=4Gi", "score=8Gi", "publish=8Gi", "other=2Gi"),
        "Memory requested, by stage.",
        changes=None,
        check=by_stage(_BYTES, "parse=4Gi", others=True),
    )
    memory_limit: tuple[str, ...] = setting(
        (),
        "Memory limit, by stage, above which a pod is killed; stages that are not named: what they request.",
        changes=None,
        check=by_stage(_BYTES, "parse=4Gi", others=True),
    )
    scratch: tuple[str, ...] = setting(
        ("download=8Gi", "score=8Gi", "publish=40Gi", "other=4Gi"),
        "Disk limit, by stage: an emptyDir at /tmp. The rest of a pod's file system is read-only.",
        changes=None,
        check=by_stage(_BYTES, "parse=4Gi", others=True),
    )
    gpus: int = setting(
        0,
        "GPUs of a score pod.",
        changes=None,
        unit="GPUs",
        minimum=0,
        maximum=64,
    )
    gpu_resource: str = setting(
        "nvidia.com/gpu",
        "Resource name of a GPU in the cluster.",
        changes=None,
        check=not_empty,
    )
    gpu_node_selector: tuple[str, ...] = setting(
        (),
        "Node labels required by score pods with a GPU, label=value.",
        changes=None,
        check=_labels,
    )
    gpu_tolerations: tuple[str, ...] = setting(
        ("nvidia.com/gpu:NoSchedule",),
        "Taints that score pods with a GPU tolerate: key:effect or key=value:effect.",
        changes=None,
        check=_taints,
    )
    weights_cache: str = setting(
        "",
        "Where score pods keep weights from the hub: a folder of the node (/PATH, writable for user 10001; "
        "refused by the Pod Security Standards) or claim:NAME, a PersistentVolumeClaim. Empty: in the pod, "
        "so each pod downloads them.",
        changes=None,
        check=pattern(r"(/\S+|claim:[a-z0-9]([-a-z0-9.]*[a-z0-9])?)?", "/path/of/the/node or claim:name"),
    )
    node_selector: tuple[str, ...] = setting(
        (),
        "Node labels required by the other pods.",
        changes=None,
        check=_labels,
    )
    tolerations: tuple[str, ...] = setting(
        (),
        "Taints that the other pods tolerate.",
        changes=None,
        check=_taints,
    )
    create_timeout_s: int = setting(
        86_400,
        "A task whose pod the cluster refuses to create (quota used up, too many requests, server errors) "
        "requests it again for this long before its try fails. This wait does not count against the time "
        "limit of the task.",
        changes=None,
        unit="s",
        minimum=0,
    )
    schedule_timeout_s: int = setting(
        3_600,
        "A pod without a node after this long is abandoned and retried later.",
        changes=None,
        unit="s",
        minimum=1,
    )
    startup_timeout_s: int = setting(
        900,
        "A pod that has not started this long after it got a node is abandoned.",
        changes=None,
        unit="s",
        minimum=1,
    )
    poll_s: float = setting(
        10.0,
        "How often the triggerer polls a pod.",
        changes=None,
        unit="s",
        minimum=0.1,
    )
    queue_poll_s: float = setting(
        60.0,
        "With LAION_ETL_FLEET=keda: how often the triggerer reads and logs the depth of the queue.",
        changes=None,
        unit="s",
        minimum=0.1,
    )
    logs_s: int = setting(
        30,
        "How often new lines of a pod's log are copied into the task's log.",
        changes=None,
        unit="s",
        minimum=1,
    )
    price_hour: float = setting(
        0.0,
        "Price of a pod per hour, for bills and estimates. 0: that of its cores, LAION_ETL_PRICES_CORE_HOUR.",
        changes=None,
        unit="money/h",
        minimum=0,
    )
    gpu_price_hour: float = setting(
        0.0,
        "Price of a score pod with GPUs per hour. 0: that of its GPUs, LAION_ETL_PRICES_GPU_HOUR.",
        changes=None,
        unit="money/h",
        minimum=0,
    )
