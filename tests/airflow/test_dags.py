"""The DAG files: they parse fast and independently, and define the order of the tasks."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.airflow.conftest import ROOT, Airflow, write_catalogue
from tests.documented_code import code_blocks

pytestmark = pytest.mark.airflow

EVERYTHING = [
    *("download", "partition.load", "plan_range"),
    *("publish", "publish_compare", "publish_finish", "publish_hashes", "publish_range", "score"),
]

PARSE = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
SLOW = {"duckdb", "kubernetes", "numpy", "pyarrow", "torch"}
for name in [name for name in sys.modules if name.split(".")[0] in SLOW or ".cncf." in name]:
    del sys.modules[name]  # this is a fork of a process that has imported some
bag = DagBag()
print(json.dumps({
    "errors": bag.import_errors,
    "slow imports": sorted(SLOW & set(sys.modules)),
    "dags": {
        dag.dag_id: {
            "tags": sorted(dag.tags),
            "doc": dag.doc_md,
            "description": dag.description,
            "schedule": getattr(dag.timetable, "summary", ""),
            "params": {
                name: {**param.schema, "description": param.description}
                for name, param in ((name, dag.params.get_param(name)) for name in dag.params)
            },
            "defaults": dag.params.dump(),
            "tasks": {
                task.task_id: {
                    "after": sorted(task.upstream_task_ids),
                    "rule": str(getattr(task.trigger_rule, "value", task.trigger_rule)),
                    "mapped": task.get_closest_mapped_task_group() is not None or task.is_mapped,
                    "retries": task.retries,
                    "doc": (task.partial_kwargs if task.is_mapped else vars(task)).get("doc_md"),
                    "pool": task.pool,
                    "timeout": task.execution_timeout is not None,
                }
                for task in dag.tasks
            },
        }
        for dag in bag.dags.values()
    },
}))
"""


@pytest.fixture(scope="module")
def parsed(airflow: Airflow) -> Any:
    """The DAG files, read once, by an operator who has pools and publishes no image twice."""
    return airflow.python(
        PARSE,
        LAION_ETL_AIRFLOW_PARSE_POOL="laion_parse",
        LAION_ETL_AIRFLOW_LOAD_POOL="laion_load",
        LAION_ETL_AIRFLOW_PLAN_POOL="laion_plan",
        LAION_ETL_AIRFLOW_DOWNLOAD_POOL="laion_download",
        LAION_ETL_AIRFLOW_SCORE_POOL="laion_gpu",
        LAION_ETL_AIRFLOW_PUBLISH_POOL="laion_publish",
        LAION_ETL_PUBLISH_DUPLICATES="near",
    )


def test_the_reference_of_dags_is_current(airflow: Airflow) -> None:
    output, _ = airflow.run(["-m", "scripts.docs.dags"])
    lines = [
        line for line in output.splitlines(keepends=True) if "airflow.sdk.definitions.deadline" not in line
    ]
    assert (ROOT / "docs" / "dags.md").read_text() == "".join(lines), "run `make docs`"


def test_every_known_crawl_has_its_dag_of_mapped_stages(parsed: Any) -> None:
    assert parsed["errors"] == {}
    assert sorted(parsed["dags"]) == [
        "crawl_CC-MAIN-2024-38",
        "crawl_CC-MAIN-2024-42",
        "crawl_CC-MAIN-2024-46",
        "new_crawls",
    ]
    dag = parsed["dags"]["crawl_CC-MAIN-2024-38"]
    tasks = dag["tasks"]
    assert {name: task["after"] for name, task in tasks.items()} == {
        "estimate": [],
        "discover": ["estimate"],
        "partition.parse": ["discover"],
        "partition.load": ["discover", "partition.parse"],
        "plan": ["partition.load"],
        "plan_range": ["plan"],
        "workers": ["plan", "plan_range"],
        "download": ["workers"],
        "score_workers": ["workers"],
        "shards": ["download"],
        "score": ["score_workers"],
        "publish": ["score"],
        "publish_hashes": ["publish"],  # only where equal images are looked for
        "publish_compare": ["publish_hashes"],  # only where nearly equal ones are
        "publish_range": ["publish", "publish_compare", "publish_hashes"],
        "publish_finish": ["publish_range"],
        "digest": EVERYTHING,
        "verdict": EVERYTHING,
    }
    mapped = {name for name, task in tasks.items() if task["mapped"]}
    assert mapped == {
        "partition.parse",
        "partition.load",
        "plan_range",
        "download",
        "score",
        "publish_hashes",
        "publish_range",
    }
    assert all(task["retries"] == 3 for task in tasks.values())
    helpers = ("workers", "score_workers", "shards", "verdict")
    assert all(task["timeout"] for name, task in tasks.items() if name not in helpers)
    assert "CC-MAIN-2024-38" in dag["doc"]
    assert dag["tags"] == ["2024", "crawl", "laion_etl"]
    assert dag["schedule"] == "crawl of 2024-09-16"


def test_failed_units_block_nothing_but_the_verdict(parsed: Any) -> None:
    tasks = parsed["dags"]["crawl_CC-MAIN-2024-38"]["tasks"]

    going_on = {name for name, task in tasks.items() if task["rule"] == "all_done_min_one_success"}
    assert going_on == {"plan", "shards", "publish"}
    assert tasks["workers"]["rule"] == "all_done"
    assert tasks["verdict"]["rule"] == "none_failed_min_one_success"  # a crawl of one range skips tasks


def test_tasks_wait_in_the_pools_that_the_settings_name(parsed: Any) -> None:
    tasks = parsed["dags"]["crawl_CC-MAIN-2024-38"]["tasks"]

    pools = {name: task["pool"] for name, task in tasks.items() if task["pool"] != "default_pool"}
    assert pools == {
        "partition.parse": "laion_parse",
        "partition.load": "laion_load",
        "plan_range": "laion_plan",
        "download": "laion_download",
        "score": "laion_gpu",
        "publish_compare": "laion_publish",
        "publish_hashes": "laion_publish",
        "publish_range": "laion_publish",
    }
    shipped = json.loads((ROOT / "docker" / "pools.json").read_text())
    assert set(pools.values()) == set(shipped)
    assert all(pool["include_deferred"] for pool in shipped.values())  # or pods would not count


def test_params_are_bounded_by_their_schema(parsed: Any) -> None:
    dag = parsed["dags"]["crawl_CC-MAIN-2024-38"]

    assert dag["defaults"] == {
        "wat_files": None,
        "download_workers": 4,
        "score_workers": 2,
        "dry_run": False,
        "allow_missing_percent": 0,
        "runner": "default",
        "sample": None,
        "languages": None,
        "threshold_en": None,
        "threshold_other": None,
        "store_prefix": None,
    }
    for name in ("download_workers", "score_workers"):
        assert (dag["params"][name]["minimum"], dag["params"][name]["maximum"]) == (1, 512)


def test_no_param_is_a_required_field_that_the_form_shows_empty(parsed: Any) -> None:
    """Airflow disables Trigger and Run Backfill where a param without null in its type is empty."""
    for name, dag in parsed["dags"].items():
        for param, default in dag["defaults"].items():
            optional = "null" in dag["params"][param]["type"]
            assert default not in ("", None) or (optional and default is None), (name, param)


def test_every_param_has_a_title_a_sentence_and_a_section(parsed: Any) -> None:
    for name, dag in parsed["dags"].items():
        for param, schema in dag["params"].items():
            assert schema["section"] in ("What", "How many", "Where", "Rules"), (name, param)
            assert schema["title"], (name, param)
            assert schema["description"].endswith("."), (name, param)


def test_a_hundred_and_fifty_crawls_parse_without_slow_imports(airflow: Airflow, tmp_path: Path) -> None:
    crawls = [f"CC-MAIN-{year}-{week:02d}" for year in range(2012, 2027) for week in range(5, 55, 5)]
    catalogue = write_catalogue(tmp_path / "catalogue.json", crawls)

    parsed = airflow.python(PARSE, LAION_ETL_CATALOGUE=str(catalogue))

    assert len(parsed["dags"]) == 151
    assert parsed["slow imports"] == []


def test_a_task_process_builds_only_its_own_dag(airflow: Airflow) -> None:
    script = """
import json
from airflow.sdk.definitions.context import AirflowParsingContext
import airflow.sdk
airflow.sdk.get_parsing_context = lambda: AirflowParsingContext("crawl_CC-MAIN-2024-42", "discover")
import crawl
from airflow.sdk import DAG
print(json.dumps([dag.dag_id for dag in vars(crawl).values() if isinstance(dag, DAG)]))
"""
    assert airflow.python(script) == ["crawl_CC-MAIN-2024-42"]


def test_every_task_and_every_dag_says_what_it_does(parsed: Any) -> None:
    """Including mapped tasks, whose docstrings Airflow does not copy."""
    for name, dag in parsed["dags"].items():
        assert dag["description"], name
        for task, facts in dag["tasks"].items():
            assert facts["doc"], (name, task)


def test_the_dag_files_of_the_how_to_pages_make_dags(airflow: Airflow, tmp_path: Path) -> None:
    [of_crawls] = code_blocks("how-to/airflow.md", "Airflow with an installed package", "python")
    [own] = code_blocks("how-to/own-dags.md", "Your own DAGs", "python")
    (tmp_path / "crawls_dag.py").write_text(of_crawls)
    (tmp_path / "own_dag.py").write_text(own)
    found = airflow.python(PARSE, AIRFLOW__CORE__DAGS_FOLDER=str(tmp_path))
    assert found["errors"] == {}
    assert found["dags"].keys() > {"new_crawls", "search_index"}
    assert found["dags"]["search_index"]["tasks"].keys() == {"index"}
