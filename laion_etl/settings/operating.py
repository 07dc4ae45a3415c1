"""Knobs of what the stages stand on: places, Postgres, alerts, Airflow, Kubernetes."""

from dataclasses import dataclass

from laion_etl.settings.knob import knob, secret

DEFAULT_CRAWL_SOURCE = "https://data.commoncrawl.org"


@dataclass(frozen=True, slots=True)
class CoreSettings:
    """Where things are and where stages run."""

    store: str = knob("", "Folder or s3://bucket/prefix of all data files. Empty: the data folder.")
    data_dir: str = knob("data", "Local folder for the embedded Postgres and demo state.")
    database_url: str = secret("", "postgresql:// URL. Empty: an embedded server in the data folder.")
    crawl_source: str = knob(
        DEFAULT_CRAWL_SOURCE,
        "Where crawl-data/<crawl>/wat.paths.gz is: https://, s3:// or a folder.",
    )
    collinfo: str = knob(
        "", "URL of collinfo.json. Empty: index.commoncrawl.org, or <crawl source>/collinfo.json."
    )
    catalogue: str = knob("", "JSON file of known crawls for DAGs. Empty: the shipped list.")
    registered: str = knob(
        "",
        "JSON file of dumps found since, kept by `laion-etl crawls --refresh --register` and the DAG "
        "new_crawls; where Airflow's parts have folders of their own, on one they share. Empty: crawls.json "
        "in the data folder.",
    )
    runner: str = knob(
        "local",
        "Where Airflow runs stage commands: local (a process beside the task), venv (another Python) or "
        "kubernetes (a pod each). A run may choose another one by its parameter.",
    )
    wat_files_sample: int = knob(
        1, "Of the WAT files of a crawl only every one whose number is a multiple of this; 1: all."
    )
    run_id: str = knob(
        "",
        "Stands before every log line of a command, to join lines with a task of Airflow, which sets it: "
        "run, task and map index.",
    )
    statsd: str = knob(
        "",
        "host:port of a StatsD server that gets over UDP what each unit of a stage counted and how long it "
        "took, and every five seconds the numbers of download workers. Empty: none.",
    )
    statsd_tags: tuple[str, ...] = knob(
        ("crawl",),
        "What stage metrics are tagged with, as DogStatsD does: crawl, run (LAION_ETL_RUN_ID: a time series "
        "for every task), comma separated. Servers of the plain protocol want none.",
    )
    task_retries: int = knob(3, "Further tries of a task that failed, in Airflow.")
    task_retry_delay_s: float = knob(
        30.0, "Wait before the first of them, seconds; each later wait is twice as long, to half an hour."
    )
    wat_files_per_partition: int = knob(
        100, "WAT files handled by one task; 100 makes about 900 partitions of a dump."
    )


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """The connection to Postgres, and how patient it is. See core for its URL."""

    statement_timeout_s: float = knob(60.0, "Longest statement of the queue and of status, seconds.")
    bulk_timeout_s: float = knob(
        21_600.0, "Longest statement of load, plan and forget, seconds; 0: no limit."
    )
    idle_timeout_s: float = knob(
        600.0, "A client silent this long within a transaction loses it, and its locks, seconds."
    )
    retry_for_s: float = knob(
        60.0, "How long a lost connection is opened again, and conflicts are tried again, seconds."
    )
    pair_leaves: int = knob(
        16, "Tables that table pair is cut into when the schema is made (docs/scaling-postgres.md)."
    )
    conn_id: str = knob(
        "", "Airflow connection whose Postgres the DAGs' commands use in place of LAION_ETL_DATABASE_URL."
    )
    sslmode: str = knob(
        "", "TLS of the connection: require, verify-ca, verify-full ...; empty: what the URL or libpq says."
    )
    sslrootcert: str = knob("", "File of the certificates that the server's is checked against, or system.")
    sslcert: str = knob("", "File of the client's certificate.")
    sslkey: str = knob("", "File of the client's key.")


@dataclass(frozen=True, slots=True)
class AlertSettings:
    """Who is told of failed and late partitions, and when they are late. The log always is."""

    smtp: str = knob("", "Mail server, host:port. Empty: no mail.")
    smtp_tls: str = knob("starttls", "starttls, tls (from the first byte), or none.")
    smtp_user: str = knob("", "User of the mail server. Empty: none is asked for.")
    smtp_password: str = secret("", "The user's password; better from a secret than from a file.")
    mail_from: str = knob("laion_etl@localhost", "Sender of mails.")
    mail_to: tuple[str, ...] = knob((), "Who gets mail, comma separated. Empty: nobody.")
    webhook: str = secret(
        "", "URL that gets alerts as JSON by POST: Slack's incoming webhooks and others that show `text`."
    )
    late_after: tuple[str, ...] = knob(
        ("discover=10m", "parse=4h", "load=1h", "plan=3h", "download=7d", "score=3d", "publish=6h"),
        "A task of these stages that takes longer is late; stage=number and s, m, h or d, comma separated.",
    )
    run_days: float = knob(21.0, "A run that is not done this many days after its start is late.")
    most_alike: int = knob(
        3, "Alerts of a run with the same stage and cause that are sent; the digest counts all."
    )


@dataclass(frozen=True, slots=True)
class AirflowSettings:
    """What the DAGs' tasks use of Airflow, and the other Python of the runner venv."""

    parse_pool: str = knob(
        "default_pool",
        "Pool of parse tasks. A pool has to exist, or its tasks wait for ever; docker/pools.json has "
        "laion_parse, laion_download and laion_gpu.",
    )
    download_pool: str = knob("default_pool", "Pool of download tasks, such as laion_download.")
    score_pool: str = knob("default_pool", "Pool of score tasks, such as laion_gpu.")
    s3_conn_id: str = knob(
        "",
        "Airflow connection (type aws) whose keys, region and endpoint commands get that run beside Airflow. "
        "Empty: what boto3 finds by itself. Pods have a Secret or a service account.",
    )
    venv: str = knob("", "Runner venv: path of that environment's python, or of its laion-etl. No default.")


@dataclass(frozen=True, slots=True)
class KubernetesSettings:
    """Runner kubernetes: a pod for each task, started through Airflow's connection.

    Lists by stage are `stage=value` entries, comma separated; `other` is for the stages not named.
    """

    conn_id: str = knob("kubernetes_default", "Airflow connection to the cluster.")
    namespace: str = knob("", "Namespace of the pods. Empty: the connection's, else the one Airflow is in.")
    image: str = knob("", "Image of the pods, with its tag or digest. No default.")
    gpu_image: str = knob("", "Image of score pods with a GPU. Empty: the same.")
    image_pull_secrets: tuple[str, ...] = knob((), "Secrets to pull images with, comma separated.")
    service_account: str = knob(
        "",
        "Service account of the pods; with an IAM role (IRSA) they need no S3 keys. Empty: the namespace's "
        "default. No token for the cluster's API is mounted.",
    )
    secrets: tuple[str, ...] = knob(
        (),
        "Secrets whose entries become environment variables of the pods: LAION_ETL_DATABASE_URL, "
        "AWS_ACCESS_KEY_ID ... Secrets come to pods in no other way.",
    )
    config_maps: tuple[str, ...] = knob(
        (),
        "ConfigMaps whose entries become environment variables of the pods. What is set for Airflow itself "
        "and is no secret is passed on anyway, and wins.",
    )
    cpu: tuple[str, ...] = knob(
        ("parse=4", "download=2", "score=4", "publish=4", "other=1"), "Cores requested, by stage."
    )
    cpu_limit: tuple[str, ...] = knob(
        (),
        "Most cores, by stage; stages not named: what they request. A command starts as many processes as "
        "it may use cores.",
    )
    memory: tuple[str, ...] = knob(
        ("parse=4Gi", "download=4Gi", "score=8Gi", "publish=8Gi", "other=2Gi"), "Memory requested, by stage."
    )
    memory_limit: tuple[str, ...] = knob(
        (), "Most memory, by stage, above which a pod is killed; stages not named: what they request."
    )
    scratch: tuple[str, ...] = knob(
        ("download=8Gi", "score=8Gi", "publish=40Gi", "other=4Gi"),
        "Most disk, by stage: an emptyDir at /tmp. The rest of a pod's file system is read-only.",
    )
    gpus: int = knob(0, "GPUs of a score pod.")
    gpu_resource: str = knob("nvidia.com/gpu", "What the cluster calls a GPU.")
    gpu_node_selector: tuple[str, ...] = knob(
        (), "Labels of nodes for score pods with a GPU, label=value, comma separated."
    )
    gpu_tolerations: tuple[str, ...] = knob(
        ("nvidia.com/gpu:NoSchedule",),
        "Taints that score pods with a GPU stand: key:effect or key=value:effect, comma separated.",
    )
    node_selector: tuple[str, ...] = knob((), "Labels of nodes for the other pods.")
    tolerations: tuple[str, ...] = knob((), "Taints that the other pods stand.")
    schedule_timeout_s: int = knob(
        3_600, "A pod that has no node after this long is given up and tried again later, seconds."
    )
    startup_timeout_s: int = knob(
        900, "A pod that has not begun this long after it got a node is given up, seconds."
    )
    poll_s: float = knob(10.0, "How often the triggerer looks at a pod, seconds.")
    logs_s: int = knob(30, "How often new lines of a pod's log are fetched into the task's, seconds.")
    price_hour: float = knob(0.0, "Price of an hour of a pod, for estimates. 0: none is shown.")
    gpu_price_hour: float = knob(0.0, "Price of an hour of a score pod with a GPU.")
