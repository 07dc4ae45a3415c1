"""What the tasks of all our DAGs share: retries and alerts, a run's own settings, assets."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Asset, Param, get_current_context
from airflow.sdk.definitions.param import ParamsDict
from airflow.sdk.execution_time.context import InletEventsAccessor

from laion_alerts import TaskFailed, TaskSucceeded
from laion_etl.settings import load_settings

SETTINGS = load_settings()

DEFAULTS: dict[str, Any] = {
    "owner": "laion_etl",
    "retries": SETTINGS.core.task_retries,
    "retry_delay": timedelta(seconds=SETTINGS.core.task_retry_delay_s),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=30),
    "on_failure_callback": TaskFailed(),
    "on_success_callback": TaskSucceeded(),
    "on_skipped_callback": TaskSucceeded(),
}

# What a crawl has produced, for DAGs of others: `schedule=Asset("laion_dataset")`. One of each for all dumps;
# the event says which dump it was, and where the result is.
PAIRS = Asset("laion_pairs", uri="x-laion-etl://pairs")
SHARDS = Asset("laion_shards", uri="x-laion-etl://shards")
DATASET = Asset("laion_dataset", uri="x-laion-etl://dataset")
_EVENTS_READ = 1_000  # of an asset, the latest: of all crawls


def wat_files_param(description: str) -> Param:
    """A selection of WAT files, as `--wat-files` takes it."""
    return Param(
        "", type="string", pattern=r"^(\d+|\d+:\d*|:\d+)?$", title="WAT files", description=description
    )


def _similarity(title: str, description: str) -> Param:
    described = f"{description} Empty: the setting."
    return Param(None, type=["null", "number"], minimum=0, maximum=1, title=title, description=described)


# Parameters of a run that are settings of its commands, and of no other run's; empty ones change nothing.
RUN_SETTINGS = {
    "runner": (
        "LAION_ETL_RUNNER",
        Param(
            "default",
            type="string",
            enum=["default", "local", "venv", "kubernetes"],
            title="Runner",
            description="Where commands run: beside Airflow, in another Python, in pods. "
            "Default: what LAION_ETL_RUNNER says.",
        ),
    ),
    "sample": (
        "LAION_ETL_WAT_FILES_SAMPLE",
        Param(
            None,
            type=["null", "integer"],
            minimum=1,
            title="Every n-th WAT file",
            description="Of the WAT files chosen, only those whose number is a multiple of this; 1 for all. "
            "Empty: the setting.",
        ),
    ),
    "languages": (
        "LAION_ETL_PARSE_LANGUAGES",
        Param(
            "",
            type="string",
            pattern=r"^([a-z]{2,4}(,[a-z]{2,4})*)?$",
            title="Languages",
            description="Languages of texts to keep, such as en,de,none (no language). Empty: the setting.",
        ),
    ),
    "threshold_en": (
        "LAION_ETL_CLIP_THRESHOLD_EN",
        _similarity("Similarity, English", "English pairs of a lower one to their image are dropped."),
    ),
    "threshold_other": (
        "LAION_ETL_CLIP_THRESHOLD_OTHER",
        _similarity("Similarity, others", "The same for pairs of other languages, or of none."),
    ),
}
_AS_SET = (None, "", "default")
RUN_PARAMS = {name: param for name, (_, param) in RUN_SETTINGS.items()} | {
    "store_prefix": Param(
        "",
        type="string",
        pattern=r"^([A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*)?$",
        title="Folder in the store",
        description="All data of this run go below it. For a dump that no other run works on: "
        "Postgres knows each dump once.",
    )
}


def run_settings(context: Mapping[str, Any]) -> dict[str, str]:
    """The LAION_ETL_* that the parameters of a task's run stand for."""
    params = context.get("params", {})
    chosen = {variable: params.get(name) for name, (variable, _) in RUN_SETTINGS.items()}
    if params.get("store_prefix"):
        chosen["LAION_ETL_STORE"] = f"{SETTINGS.store_uri.rstrip('/')}/{params['store_prefix']}"
    return {name: str(value) for name, value in chosen.items() if value not in _AS_SET}


def checked(params: dict[str, Param]) -> ParamsDict:
    """Params whose schemas and defaults are sound; raises ParamValidationError."""
    found = ParamsDict(params)
    found.validate()
    return found


def set_params(dag: DAG, params: ParamsDict) -> None:
    """Gives a DAG its params, checked before.

    `DAG(params=...)` would check them for every DAG and copy them into every task: three quarters of the
    time that parsing takes with 150 dumps.
    """
    object.__setattr__(dag, "params", params)


def produced(asset: Asset, crawl: str, **what: Any) -> None:
    """Announces what a task has made of a crawl, unless the crawl's last event says the same.

    The event decides, and not whether this try of the task did the work: one that was killed between its work
    and its end has announced nothing.
    """
    extra = {"crawl": crawl, **what}
    earlier = InletEventsAccessor(asset.name, asset.uri).ascending(False).limit(_EVENTS_READ)
    last = next((event.extra for event in earlier if event.extra.get("crawl") == crawl), None)
    if last == extra:
        nothing_produced(asset)
    else:
        get_current_context()["outlet_events"][asset].extra = extra


def nothing_produced(asset: Asset) -> None:
    """No event of an asset of the running task: Airflow sends one for each outlet of a success."""
    task = get_current_context()["task"]
    task.outlets = [outlet for outlet in task.outlets if outlet != asset]
