"""Settings of the pods of runner kubernetes."""

from dataclasses import dataclass

from laion_etl.settings.fields import setting


@dataclass(frozen=True, slots=True)
class KubernetesSettings:
    """Runner kubernetes: a pod for each task, started through Airflow's connection.

    Lists by stage are `stage=value` entries, comma separated; `other` is for the stages not named.
    """

    conn_id: str = setting("kubernetes_default", "Airflow connection to the cluster.")
    namespace: str = setting(
        "", "Namespace of the pods. Empty: the connection's, else the one Airflow is in."
    )
    image: str = setting("", "Image of the pods, with its tag or digest. No default.")
    gpu_image: str = setting("", "Image of score pods with a GPU. Empty: the same.")
    image_pull_secrets: tuple[str, ...] = setting((), "Secrets to pull images with, comma separated.")
    service_account: str = setting(
        "",
        "Service account of the pods; with an IAM role (IRSA) they need no S3 keys. Empty: the namespace's "
        "default. No token for the cluster's API is mounted.",
    )
    secrets: tuple[str, ...] = setting(
        (),
        "Secrets whose entries become environment variables of the pods: LAION_ETL_DATABASE_URL, "
        "AWS_ACCESS_KEY_ID ... Secrets come to pods in no other way.",
    )
    config_maps: tuple[str, ...] = setting(
        (),
        "ConfigMaps whose entries become environment variables of the pods. What is set for Airflow itself "
        "and is no secret is passed on anyway, and wins.",
    )
    cpu: tuple[str, ...] = setting(
        ("parse=4", "download=2", "score=4", "publish=4", "other=1"), "Cores requested, by stage."
    )
    cpu_limit: tuple[str, ...] = setting(
        (),
        "Most cores, by stage; stages not named: what they request. A command starts as many processes as "
        "it may use cores.",
    )
    memory: tuple[str, ...] = setting(
        ("parse=4Gi", "download=4Gi", "score=8Gi", "publish=8Gi", "other=2Gi"), "Memory requested, by stage."
    )
    memory_limit: tuple[str, ...] = setting(
        (), "Most memory, by stage, above which a pod is killed; stages not named: what they request."
    )
    scratch: tuple[str, ...] = setting(
        ("download=8Gi", "score=8Gi", "publish=40Gi", "other=4Gi"),
        "Most disk, by stage: an emptyDir at /tmp. The rest of a pod's file system is read-only.",
    )
    gpus: int = setting(0, "GPUs of a score pod.")
    gpu_resource: str = setting("nvidia.com/gpu", "What the cluster calls a GPU.")
    gpu_node_selector: tuple[str, ...] = setting(
        (), "Labels of nodes for score pods with a GPU, label=value, comma separated."
    )
    gpu_tolerations: tuple[str, ...] = setting(
        ("nvidia.com/gpu:NoSchedule",),
        "Taints that score pods with a GPU stand: key:effect or key=value:effect, comma separated.",
    )
    node_selector: tuple[str, ...] = setting((), "Labels of nodes for the other pods.")
    tolerations: tuple[str, ...] = setting((), "Taints that the other pods stand.")
    schedule_timeout_s: int = setting(
        3_600, "A pod that has no node after this long is given up and tried again later, seconds."
    )
    startup_timeout_s: int = setting(
        900, "A pod that has not begun this long after it got a node is given up, seconds."
    )
    poll_s: float = setting(10.0, "How often the triggerer looks at a pod, seconds.")
    logs_s: int = setting(30, "How often new lines of a pod's log are fetched into the task's, seconds.")
    price_hour: float = setting(0.0, "Price of an hour of a pod, for estimates. 0: none is shown.")
    gpu_price_hour: float = setting(0.0, "Price of an hour of a score pod with a GPU.")
