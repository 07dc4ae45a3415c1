"""Settings of where data is and where commands run."""

from dataclasses import dataclass
from typing import ClassVar

from laion_etl.core.errors import SettingsError
from laion_etl.settings.checks import each, host_and_port, not_empty, optional, place, postgres_url
from laion_etl.settings.fields import PREFIX, Group, Stage, setting

DEFAULT_CRAWL_SOURCE = "https://data.commoncrawl.org"


@dataclass(frozen=True, slots=True)
class CoreSettings(Group):
    """Where data is and where stages run."""

    GROUP: ClassVar[str] = "core"

    store: str = setting(
        "",
        "Folder or s3://bucket/prefix of all data files. Empty: the data folder.",
        changes=None,
        check=place("s3", "file"),
    )
    data_dir: str = setting(
        "data", "Local folder for the embedded Postgres and demo state.", changes=None, check=not_empty
    )
    database_url: str = setting(
        "",
        "postgresql:// URL or libpq's host=... dbname=.... Empty: an embedded server in the data folder.",
        changes=None,
        secret=True,
        check=optional(postgres_url),
    )
    database_urls: tuple[str, ...] = setting(
        (),
        "URLs of several Postgres servers that share the pairs, key range r on server r mod n; the first "
        "also has the queue. LAION_ETL_DATABASE_URL must be empty or the first of them. Empty: the one "
        "server of LAION_ETL_DATABASE_URL (docs/scaling-postgres.md).",
        changes=None,
        secret=True,
        check=each(postgres_url),
    )
    receipt_key: str = setting(
        "",
        "File with the Ed25519 key (PEM) that signs receipts of removals. Empty: receipt-key.pem in the data "
        "folder, made when the first receipt is written.",
        changes=None,
    )
    crawl_source: str = setting(
        DEFAULT_CRAWL_SOURCE,
        "Where crawl-data/<crawl>/wat.paths.gz is found: https://, s3:// or a folder.",
        changes=None,
        check=place("https", "http", "s3", "file"),
    )
    crawl_retry_s: float = setting(
        1_800.0,
        "How long requests to the crawl source are repeated while it is busy (429, 503, 403 for too many "
        "requests) or cannot be reached, counted from the last byte that it sent of the file.",
        changes=None,
        unit="s",
        minimum=0,
        maximum=86_400,
    )
    crawl_requests_per_s: float = setting(
        5.0,
        "Most requests a second to the crawl source from all processes with the same data folder; 0: any "
        "number.",
        changes=None,
        unit="1/s",
        minimum=0,
        maximum=10_000,
    )
    collinfo: str = setting(
        "",
        "URL of collinfo.json. Empty: index.commoncrawl.org, or <crawl source>/collinfo.json.",
        changes=None,
        check=place("https", "http", "s3", "file"),
    )
    catalogue: str = setting("", "JSON file of known crawls for DAGs. Empty: the shipped list.", changes=None)
    registered: str = setting(
        "",
        "JSON file of crawls found since, written by `laion-etl crawl list --refresh --register` and the DAG "
        "new_crawls; it must be in a folder that all of Airflow's components share. Empty: crawls.json in "
        "the data folder.",
        changes=None,
    )
    runner: str = setting(
        "local",
        "Where Airflow runs stage commands: local (a process on Airflow's machine), venv (another Python) or "
        "kubernetes (a pod each). A run's parameter can override it.",
        changes=None,
        choices=("local", "venv", "kubernetes"),
    )
    fleet: str = setting(
        "tasks",
        "What starts download and score workers: tasks (the DAG, as many as its parameters say) or keda "
        "(ScaledObjects on the queue's depth, one for each of the two stages, docs/kubernetes.md; the DAG "
        "starts none and waits for the queue).",
        changes=None,
        choices=("tasks", "keda"),
    )
    wat_files_sample: int = setting(
        1,
        "Use only WAT files whose number is a multiple of this; 1: all.",
        changes=Stage.CRAWL,
        minimum=1,
    )
    keep_raw_shards: bool = setting(
        True,
        "Keep the tar of a downloaded shard when it is scored. false saves nine tenths of a crawl's storage; "
        "its images can then no longer be scored with another model.",
        changes=None,
    )
    run_id: str = setting(
        "",
        "Prefix of every log line of a command, to match lines with Airflow's tasks; Airflow sets it to run, "
        "task and map index.",
        changes=None,
    )
    statsd: str = setting(
        "",
        "host:port of a StatsD server. It gets, over UDP, the counts and duration of each finished unit, and "
        "every five seconds the figures of download workers. Empty: none.",
        changes=None,
        check=optional(host_and_port),
    )
    statsd_tags: tuple[str, ...] = setting(
        ("crawl",),
        "Tags of stage metrics, as in DogStatsD: crawl, run (LAION_ETL_RUN_ID: one time series per task). "
        "Leave empty for servers of the plain protocol.",
        changes=None,
        choices=("crawl", "run"),
    )
    task_retries: int = setting(
        3, "Retries of a failed task in Airflow.", changes=None, minimum=0, maximum=1_000
    )
    task_retry_delay_s: float = setting(
        30.0,
        "Delay before the first retry; it doubles with each further one, up to half an hour.",
        changes=None,
        unit="s",
        minimum=0,
        maximum=86_400,
    )
    task_restarts: int = setting(
        20,
        "How often within 24 hours a try of a task starts its command or pod again, without using up a "
        "retry: after a lost pod (preempted, evicted, deleted, node lost), an outage (exit code 75) or "
        "SIGTERM from elsewhere (130). 0: such an end fails the try.",
        changes=None,
        unit="restarts",
        minimum=0,
        maximum=10_000,
    )
    task_restart_delay_s: float = setting(
        30.0,
        "Delay before a task starts its command or pod again within its try; it doubles with each further "
        "time within an hour, up to ten minutes, and varies by half.",
        changes=None,
        unit="s",
        minimum=0,
        maximum=600,
    )
    wat_files_per_partition: int = setting(
        100,
        "WAT files handled by one task; 100 splits a crawl into about 900 partitions.",
        changes=Stage.CRAWL,
        unit="files",
        minimum=1,
    )

    def __post_init__(self) -> None:
        Group.__post_init__(self)
        if self.database_urls and self.database_url not in ("", self.database_urls[0]):
            raise SettingsError(
                f"cannot use {PREFIX}DATABASE_URLS: its first server is not that of {PREFIX}DATABASE_URL; "
                f"unset {PREFIX}DATABASE_URL, or make them the same"
            )

    @property
    def first_url(self) -> str:
        """URL of the Postgres server with the queue; '': the embedded server."""
        return self.server_urls[0] if self.server_urls else ""

    @property
    def server_urls(self) -> tuple[str, ...]:
        """URLs of the Postgres servers, the one with the queue first; none: the embedded server."""
        return self.database_urls or ((self.database_url,) if self.database_url else ())
