"""Settings of places and of what runs where."""

from dataclasses import dataclass

from laion_etl.settings.fields import secret_setting, setting

DEFAULT_CRAWL_SOURCE = "https://data.commoncrawl.org"


@dataclass(frozen=True, slots=True)
class CoreSettings:
    """Where things are and where stages run."""

    store: str = setting("", "Folder or s3://bucket/prefix of all data files. Empty: the data folder.")
    data_dir: str = setting("data", "Local folder for the embedded Postgres and demo state.")
    database_url: str = secret_setting("", "postgresql:// URL. Empty: an embedded server in the data folder.")
    crawl_source: str = setting(
        DEFAULT_CRAWL_SOURCE,
        "Where crawl-data/<crawl>/wat.paths.gz is: https://, s3:// or a folder.",
    )
    collinfo: str = setting(
        "", "URL of collinfo.json. Empty: index.commoncrawl.org, or <crawl source>/collinfo.json."
    )
    catalogue: str = setting("", "JSON file of known crawls for DAGs. Empty: the shipped list.")
    registered: str = setting(
        "",
        "JSON file of dumps found since, kept by `laion-etl crawls --refresh --register` and the DAG "
        "new_dumps; where Airflow's parts have folders of their own, on one they share. Empty: crawls.json "
        "in the data folder.",
    )
    runner: str = setting(
        "local",
        "Where Airflow runs stage commands: local (a process beside the task), venv (another Python) or "
        "kubernetes (a pod each). A run may choose another one by its parameter.",
    )
    wat_files_sample: int = setting(
        1, "Of the WAT files of a crawl only every one whose number is a multiple of this; 1: all."
    )
    run_id: str = setting(
        "",
        "Stands before every log line of a command, to join lines with a task of Airflow, which sets it: "
        "run, task and map index.",
    )
    statsd: str = setting(
        "",
        "host:port of a StatsD server that gets over UDP what each unit of a stage counted and how long it "
        "took, and every five seconds the numbers of download workers. Empty: none.",
    )
    statsd_tags: tuple[str, ...] = setting(
        ("crawl",),
        "What stage metrics are tagged with, as DogStatsD does: crawl, run (LAION_ETL_RUN_ID: a time series "
        "for every task), comma separated. Servers of the plain protocol want none.",
    )
    task_retries: int = setting(3, "Further tries of a task that failed, in Airflow.")
    task_retry_delay_s: float = setting(
        30.0, "Wait before the first of them, seconds; each later wait is twice as long, to half an hour."
    )
    wat_files_per_partition: int = setting(
        100, "WAT files handled by one task; 100 makes about 900 partitions of a dump."
    )
