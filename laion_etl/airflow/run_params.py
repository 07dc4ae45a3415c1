"""Parameters of a run: those that become settings of its own commands, and the check of its configuration."""

import difflib
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from airflow.sdk import Context, Param

from laion_etl.airflow.forms import FOLDER, LANGUAGES, WAT_FILES
from laion_etl.core.errors import SettingsError
from laion_etl.settings import load_settings


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
            "none stands for captions whose language is not recognised. Leave it empty to use the "
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


def run_settings(context: Context) -> dict[str, str]:
    """Return the LAION_ETL_* settings given by the parameters of a task's run."""
    params: Mapping[str, Any] = context.get("params", {})
    chosen = {variable: params.get(name) for name, (variable, _) in RUN_SETTINGS.items()}
    if params.get("store_prefix"):
        chosen["LAION_ETL_STORE"] = f"{load_settings().store_uri.rstrip('/')}/{params['store_prefix']}"
    return {name: _as_text(value) for name, value in chosen.items() if value not in _AS_SET}


def _as_text(value: object) -> str:
    """Return a value as settings have it: for JSON schema 2.0 is an integer, too."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def check_conf(context: Context) -> None:
    """Raise SettingsError for a key of the run's configuration that is not a parameter of its DAG.

    Airflow accepts any key. A misspelled one would leave its parameter at the default: all WAT files.
    """
    run = context.get("dag_run")
    conf = (run.conf if run else None) or {}
    known = sorted(context["dag"].params) if conf else []
    for key in conf:
        if key not in known and key not in _KEYS_OF_AIRFLOW:
            close = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}?" if close else f"the parameters are {', '.join(known)};"
            raise SettingsError(
                f"cannot start this run: {str(key)[:40]!r} in its configuration is not a parameter; {hint} "
                "Trigger the DAG again with the right name"
            )
