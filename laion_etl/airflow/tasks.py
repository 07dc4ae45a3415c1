"""Shared by the tasks of all our DAGs: retries and alerts, settings of a run, assets."""

import difflib
from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Any

from airflow.sdk import DAG, Asset, Param, get_current_context
from airflow.sdk.definitions.param import ParamsDict
from airflow.sdk.exceptions import AirflowFailException
from airflow.sdk.execution_time.context import InletEventsAccessor

from laion_etl.airflow.alerts import TaskFailed, TaskSucceeded
from laion_etl.airflow.forms import FOLDER, LANGUAGES, WAT_FILES
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

# The products of a crawl, for other DAGs: `schedule=Asset("laion_dataset", uri="x-laion-etl://dataset")`,
# with exactly this URI, because Airflow identifies assets by it. All crawls share them; the event names the
# crawl and the location of the result.
PAIRS = Asset("laion_pairs", uri="x-laion-etl://pairs")
SHARDS = Asset("laion_shards", uri="x-laion-etl://shards")
DATASET = Asset("laion_dataset", uri="x-laion-etl://dataset")
_EVENTS_READ = 1_000  # latest events of an asset, of all crawls


class Section(StrEnum):
    """The section of a parameter in the form of a run."""

    WHAT = "What"
    HOW_MANY = "How many"
    WHERE = "Where"
    RULES = "Rules"


def optional_text(section: Section, title: str, description: str, form: str, **more: Any) -> Param:
    """An optional text in a format of forms.py: None by default; "" means the same.

    With type "string" an empty default would be an empty required field, and the form could not be submitted.
    """
    return Param(
        None,
        type=["null", "string"],
        format=form,
        section=section.value,
        title=title,
        description=description,
        **more,
    )


def wat_files_param(description: str) -> Param:
    """A selection of WAT files, as `--wat-files` takes it."""
    return optional_text(
        Section.WHAT,
        "WAT files",
        description,
        WAT_FILES,
        examples=["0:2", "100:200", "7"],
    )


def _similarity(title: str, description: str) -> Param:
    return Param(
        None,
        type=["null", "number"],
        minimum=0,
        maximum=1,
        section=Section.RULES.value,
        title=title,
        description=f"{description} Leave it empty to use the configured threshold.",
    )


# Parameters of a run that become settings of its own commands only; empty ones change nothing.
RUN_SETTINGS = {
    "runner": (
        "LAION_ETL_RUNNER",
        Param(
            "default",
            type="string",
            enum=["default", "local", "venv", "kubernetes"],
            section=Section.WHERE.value,
            title="Runner",
            description="Where the commands run: on Airflow's workers (local), there in another Python "
            "(venv), or in pods (kubernetes); the default is LAION_ETL_RUNNER.",
        ),
    ),
    "sample": (
        "LAION_ETL_WAT_FILES_SAMPLE",
        Param(
            None,
            type=["null", "integer"],
            minimum=1,
            section=Section.WHAT.value,
            title="Every n-th WAT file",
            description="Take only every n-th of the chosen WAT files, for a sample spread over the whole "
            "crawl; 1 takes them all. Leave it empty to use the configured value.",
        ),
    ),
    "languages": (
        "LAION_ETL_PARSE_LANGUAGES",
        optional_text(
            Section.RULES,
            "Languages",
            "Keep only captions in these languages: codes separated by commas, such as en,de,none, where "
            "none stands for captions whose language is not recognized. Leave it empty to use the "
            "configured ones.",
            LANGUAGES,
            examples=["en", "en,de,none"],
        ),
    ),
    "threshold_en": (
        "LAION_ETL_CLIP_THRESHOLD_EN",
        _similarity(
            "Similarity threshold, English",
            "Drop English pairs whose caption and image are less similar than this (0 to 1).",
        ),
    ),
    "threshold_other": (
        "LAION_ETL_CLIP_THRESHOLD_OTHER",
        _similarity(
            "Similarity threshold, other languages",
            "Drop pairs in any other language, or without one, that are less similar than this (0 to 1).",
        ),
    ),
}
_AS_SET = (None, "", "default")
_KEYS_OF_AIRFLOW = ("openlineage",)  # which its provider adds to the conf of runs that tasks trigger
RUN_PARAMS = {name: param for name, (_, param) in RUN_SETTINGS.items()} | {
    "store_prefix": optional_text(
        Section.WHERE,
        "Folder in the store",
        "Keep all files of this run in this folder of the store, such as trials/first; only for a crawl "
        "that no other run works on, because the database knows each crawl once. Leave it empty to use the "
        "store itself.",
        FOLDER,
        examples=["trials/first"],
    )
}


def run_settings(context: Mapping[str, Any]) -> dict[str, str]:
    """The LAION_ETL_* settings given by the parameters of a task's run."""
    params = context.get("params", {})
    chosen = {variable: params.get(name) for name, (variable, _) in RUN_SETTINGS.items()}
    if params.get("store_prefix"):
        chosen["LAION_ETL_STORE"] = f"{SETTINGS.store_uri.rstrip('/')}/{params['store_prefix']}"
    return {name: str(value) for name, value in chosen.items() if value not in _AS_SET}


def check_conf(context: Mapping[str, Any]) -> None:
    """Raise AirflowFailException for a key of the run's configuration that is not a parameter of its DAG.

    Airflow accepts any key. A misspelled one would leave its parameter at the default: all WAT files.
    """
    run = context.get("dag_run")
    conf = (run and run.conf) or {}
    known = sorted(context["dag"].params) if conf else []
    for key in conf:
        if key not in known and key not in _KEYS_OF_AIRFLOW:
            close = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}?" if close else f"the parameters are {', '.join(known)};"
            raise AirflowFailException(
                f"cannot start this run: {str(key)[:40]!r} in its configuration is not a parameter; {hint} "
                "Trigger the DAG again with the right name"
            )


def checked(params: dict[str, Param]) -> ParamsDict:
    """Params with validated schemas and defaults; raises ParamValidationError."""
    found = ParamsDict(params)
    found.validate()
    return found


def set_params(dag: DAG, params: ParamsDict) -> None:
    """Gives a DAG its params, which were validated once.

    `DAG(params=...)` would validate them for every DAG and copy them into every task: three quarters of the
    parsing time with 150 crawls.
    """
    object.__setattr__(dag, "params", params)


def produced(asset: Asset, crawl: str, **what: Any) -> None:
    """Sends an asset event for the product of a crawl, unless the crawl's last event is the same.

    The last event decides, not whether this try did the work: a try that was killed between its work and its
    end has sent no event.
    """
    extra = {"crawl": crawl, **what}
    earlier = InletEventsAccessor(asset.name, asset.uri).ascending(False).limit(_EVENTS_READ)
    last = next((event.extra for event in earlier if event.extra.get("crawl") == crawl), None)
    if last == extra:
        nothing_produced(asset)
    else:
        get_current_context()["outlet_events"][asset].extra = extra


def nothing_produced(asset: Asset) -> None:
    """Suppress the event that Airflow sends for each outlet of a successful task."""
    task = get_current_context()["task"]
    task.outlets = [outlet for outlet in task.outlets if outlet != asset]
