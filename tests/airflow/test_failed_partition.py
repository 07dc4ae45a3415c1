"""A run with a failed partition, task by task through Airflow, the commands replaced by a stand-in.

What it runs, its state, and the alerts of its own tasks, contexts and exceptions. The DAG is not the one
whose runs test_timetable.py counts.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from laion_etl.alerts import unresolved_names
from tests.airflow.conftest import Airflow

pytestmark = pytest.mark.airflow

RUN = """
import json, sys
from laion_etl.airflow import operators
from airflow.sdk.exceptions import AirflowFailException

FAILS = json.loads(sys.argv[1])
RANGES = json.loads(sys.argv[3]) if sys.argv[3:] else {}
ANSWERS = {
    "discover": {"partitions": [0, 1, 2]},
    "plan": {"batches": 1, "plan": "f", "ranges": RANGES.get("plan", [])},
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
    if arguments[0] == "plan" and "--range" in arguments:
        if arguments[4] in FAILS:
            raise AirflowFailException("damaged")
        return {"input": 2, "kept": 2, "plan": ""}
    if arguments[0] == "publish" and "publish" in RANGES and "--prepare" in arguments:
        return {"ranges": RANGES["publish"]}
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


CONF = {"wat_files": "0:3", "download_workers": 2, "score_workers": 2}


CRAWL = "CC-MAIN-2024-42"


@dataclass(frozen=True)
class Run:
    """State, tasks and commands of a run, and the digest that it left in its store."""

    found: Any
    store: Path
    digest: dict[str, Any]


def ended(
    airflow: Airflow,
    store: Path,
    fails: Sequence[int | str],
    ranges: Mapping[str, Sequence[str]] | None = None,
    **conf: object,
) -> Run:
    """A run in which these partitions or ranges of the plan fail; `ranges` are all of plan and publish."""
    chosen = json.dumps({**CONF, **conf})
    found = airflow.python(
        RUN,
        json.dumps(fails),
        chosen,
        json.dumps(ranges or {}),
        LAION_ETL_STORE=str(store),
        PYTHONWARNINGS="ignore",
    )
    return Run(found, store, digests(store)[-1])


def digests(store: Path) -> list[dict[str, Any]]:
    """The oldest first."""
    paths = sorted((store / "alerts").rglob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    return [alert for path in paths if (alert := json.loads(path.read_text()))["kind"] == "digest"]


def broken(store: Path) -> list[tuple[str, str, str]]:
    records = [json.loads(path.read_text()) for path in (store / unresolved_names(CRAWL)).rglob("*.json")]
    return [(record["stage"], record["unit"], record["reason"]) for record in records]


@pytest.fixture(scope="module")
def one_failed(migrated_airflow: Airflow, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Partition 1 of three has failed."""
    return ended(migrated_airflow, tmp_path_factory.mktemp("store"), [1])


@pytest.fixture(scope="module")
def dry(migrated_airflow: Airflow, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return ended(migrated_airflow, tmp_path_factory.mktemp("store"), [], dry_run=True)


def test_a_failed_partition_blocks_only_itself_and_fails_the_run(one_failed: Run) -> None:
    run = one_failed.found

    assert run["state"] == "failed"
    assert {name: state for name, state in run["tasks"].items() if state != "success"} == {
        "partition.parse[partition 1]": "failed",
        "partition.load[1]": "upstream_failed",
        "plan_range[-1]": "skipped",  # `plan` has done everything
        "publish_range[-1]": "skipped",  # and so has `publish`
        "publish_finish[-1]": "skipped",
        "verdict[-1]": "upstream_failed",
    }
    assert run["tasks"]["publish[-1]"] == "success"
    crawl = ["--crawl", CRAWL]
    for command in (
        ["discover", *crawl, "--wat-files=0:3"],
        ["parse", *crawl, "--partition", "2", "--wat-files=0:3"],
        ["load", *crawl, "--partition", "2"],
        ["score", *crawl, "--allow-missing", "0.0"],
        ["publish", *crawl, "--prepare", "--expect", "0-2", "--allow-missing", "0.0"],
    ):
        assert command in run["commands"]
    assert run["commands"].count(["download", *crawl]) == 1  # one batch, so one of the two workers


def test_a_failed_range_of_the_plan_stops_no_download_and_fails_the_run(
    migrated_airflow: Airflow, tmp_path: Path
) -> None:
    run = ended(migrated_airflow, tmp_path, ["2/2"], {"plan": ["1/2", "2/2"]}).found

    assert run["state"] == "failed"
    planned = {name: state for name, state in run["tasks"].items() if name.startswith("plan")}
    assert planned == {
        "plan[-1]": "success",
        "plan_range[range 1 of 2]": "success",
        "plan_range[range 2 of 2]": "failed",
    }
    assert run["tasks"]["verdict[-1]"] == "upstream_failed"
    crawl = ["--crawl", CRAWL]
    assert ["plan", *crawl, "--prepare"] in run["commands"]
    assert ["plan", *crawl, "--range", "1/2"] in run["commands"]
    assert ["download", *crawl] in run["commands"]


def test_a_crawl_of_many_batches_is_published_range_by_range(
    migrated_airflow: Airflow, tmp_path: Path
) -> None:
    run = ended(migrated_airflow, tmp_path, [], {"publish": ["1/2", "2/2"]}).found

    assert run["state"] == "success"
    assert {name for name, state in run["tasks"].items() if state != "success"} == {"plan_range[-1]"}
    assert {name for name in run["tasks"] if name.startswith("publish")} == {
        "publish[-1]",
        "publish_range[range 1 of 2]",
        "publish_range[range 2 of 2]",
        "publish_finish[-1]",
    }
    crawl = ["publish", "--crawl", CRAWL]
    _, *ranges, last = [command[3:] for command in run["commands"] if command[:3] == crawl]
    assert sorted(ranges) == [["--range", "1/2"], ["--range", "2/2"]]  # at the same time
    assert last == ["--finish"]


def test_a_run_without_any_good_partition_publishes_nothing(
    migrated_airflow: Airflow, tmp_path: Path
) -> None:
    run = ended(migrated_airflow, tmp_path, [0, 1, 2]).found

    assert run["state"] == "failed"
    assert {command[0] for command in run["commands"]} == {"discover", "parse"}


def test_a_dry_run_estimates_and_does_nothing_else(dry: Run) -> None:
    run = dry.found

    assert run["commands"] == [["estimate", "--crawl", "CC-MAIN-2024-42", "--wat-files=0:3"]]
    states = run["tasks"]
    assert {name for name, state in states.items() if state == "success"} == {"digest[-1]"}
    assert set(states.values()) == {"success", "skipped"}
    assert run["state"] == "success"


def test_the_digest_of_a_dry_run_has_the_estimate(dry: Run) -> None:
    assert len(digests(dry.store)) == 1
    assert dry.digest["outcome"] == "dry run, about 1,234 samples expected"
    assert "  stored: 5.00 GB" in dry.digest["details"]
    assert not any("skipped" in line for line in dry.digest["details"])


def test_what_failed_is_listed_until_a_later_run_succeeds(migrated_airflow: Airflow, one_failed: Run) -> None:
    store = one_failed.store
    assert broken(store) == [("parse", "partition 1", "damaged")]
    assert len(digests(store)) == 1
    assert one_failed.digest["outcome"] == "failure, 816 rows published"
    assert "  parse: 2 of 3 done, 1 failed" in one_failed.digest["details"]
    assert "  1 x parse (partition 1): damaged" in one_failed.digest["details"]

    good = ended(migrated_airflow, store, []).digest
    assert broken(store) == []
    assert good["outcome"] == "success, 816 rows published"
    assert f"/dags/crawl_{CRAWL}/runs/" in good["run_url"]
    assert [line.split(":")[0].strip() for line in good["details"]] == [
        "version", "dataset", "report", "stages",
        "discover", "parse", "load", "plan", "download", "score", "publish",
    ]  # fmt: skip
