"""A run with a failed partition, task by task through Airflow, the commands replaced by a stand-in.

The DAG is not the one whose runs test_timetable.py counts.
"""

import json

import pytest

from tests.airflow.conftest import Airflow

pytestmark = pytest.mark.airflow

RUN = """
import json, sys
from laion_etl.airflow import operators
from airflow.sdk.exceptions import AirflowFailException

FAILS = json.loads(sys.argv[1])
RANGES = sys.argv[3:]
ANSWERS = {
    "discover": {"partitions": [0, 1, 2]},
    "plan": {"batches": [0], "plan": "f"},
    "download": {"input": 2, "kept": 1, "done": 1, "plan": "f"},
    "publish": {
        "dataset": "dataset",
        "report": "report",
        "fingerprint": "f",
        "unit": "laion/1",
        "input": 900,
        "kept": 816,
        "ranges": [],
    },
    "estimate": {"crawl": "CC-MAIN-2024-42", "samples": 1234, "stored_bytes": 5_000_000_000},
}
commands = []

def stand_in(command):
    arguments = command.arguments
    commands.append(list(arguments))
    if arguments[0] == "parse" and int(arguments[4]) in FAILS:
        raise AirflowFailException("damaged")
    if RANGES and "--prepare" in arguments:
        return {"ranges": RANGES}
    return ANSWERS.get(arguments[0], {"input": 2, "kept": 1, "more": "not for XCom"})

operators.run_here = stand_in
from airflow.dag_processing.dagbag import DagBag
dag = DagBag().dags["crawl_CC-MAIN-2024-42"]
dag.deadline = None  # dag.test looks a deadline up by its id, which only DAGs read from the database have
run = dag.test(logical_date=None, run_conf=json.loads(sys.argv[2]))
print(json.dumps({
    "state": str(run.state),
    "tasks": {
        f"{ti.task_id}[{ti.rendered_map_index or ti.map_index}]": str(ti.state)
        for ti in run.get_task_instances()
    },
    "commands": commands,
}, default=str))
"""


CONF = {"wat_files": "0:3", "download_workers": 2, "score_groups": 2}


def test_a_failed_partition_blocks_only_itself_and_fails_the_run(migrated_airflow: Airflow) -> None:
    run = migrated_airflow.python(RUN, "[1]", json.dumps(CONF))

    assert run["state"] == "failed"
    assert {name: state for name, state in run["tasks"].items() if state != "success"} == {
        "partition.parse[partition 1]": "failed",
        "partition.load[1]": "upstream_failed",
        "publish_range[-1]": "skipped",  # the crawl has only one range
        "publish_finish[-1]": "skipped",
        "verdict[-1]": "upstream_failed",
    }
    crawl = ["--crawl", "CC-MAIN-2024-42"]
    for command in (
        ["discover", *crawl, "--wat-files=0:3"],
        ["parse", *crawl, "--partition", "2", "--wat-files=0:3"],
        ["load", *crawl, "--partition", "2"],
        ["score", *crawl, "--group", "1/2", "--allow-missing", "0.0"],
        ["publish", *crawl, "--prepare", "--expect", "0-2", "--allow-missing", "0.0"],
    ):
        assert command in run["commands"]
    assert run["commands"].count(["download", *crawl]) == 1  # one batch, so one of the two workers


def test_a_crawl_of_many_batches_is_published_range_by_range(migrated_airflow: Airflow) -> None:
    run = migrated_airflow.python(RUN, "[]", json.dumps(CONF), "1/2", "2/2")

    assert run["state"] == "success"
    assert set(run["tasks"].values()) == {"success"}
    assert {name for name in run["tasks"] if name.startswith("publish")} == {
        "publish[-1]",
        "publish_range[range 1 of 2]",
        "publish_range[range 2 of 2]",
        "publish_finish[-1]",
    }
    crawl = ["publish", "--crawl", "CC-MAIN-2024-42"]
    assert [command[3:] for command in run["commands"] if command[:3] == crawl][1:] == [
        ["--range", "1/2"],
        ["--range", "2/2"],
        ["--finish"],
    ]


def test_a_run_without_any_good_partition_publishes_nothing(migrated_airflow: Airflow) -> None:
    run = migrated_airflow.python(RUN, "[0, 1, 2]", json.dumps(CONF))

    assert run["state"] == "failed"
    assert {command[0] for command in run["commands"]} == {"discover", "parse"}


def test_a_dry_run_estimates_and_does_nothing_else(migrated_airflow: Airflow) -> None:
    run = migrated_airflow.python(RUN, "[]", json.dumps({**CONF, "dry_run": True}))

    assert run["commands"] == [["estimate", "--crawl", "CC-MAIN-2024-42", "--wat-files=0:3"]]
    states = run["tasks"]
    assert {name for name, state in states.items() if state == "success"} == {"digest[-1]"}
    assert set(states.values()) == {"success", "skipped"}
    assert run["state"] == "success"
