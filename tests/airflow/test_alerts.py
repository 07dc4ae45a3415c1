"""A real scheduler, API server, DAG processor and triggerer: failures and lateness reach mail and webhook."""

import json
import re
from pathlib import Path

import pytest

from laion_etl.alerts import unresolved_names
from tests.airflow.shared import SharedAirflow
from tests.airflow.started import until
from tests.sinks import Sink

pytestmark = pytest.mark.airflow

FAILED_TASK = "partition.parse (partition 0)"


def test_failed_and_late_partitions_and_the_end_of_a_run_are_reported(shared_airflow: SharedAirflow) -> None:
    crawl, api = shared_airflow.reported, shared_airflow.api
    crawl.wat_files[0].unlink()  # partition 0 fails, partition 1 does not
    chosen = {"wat_files": "0:2", "download_workers": 1, "score_workers": 1, "allow_missing_percent": 50}
    chosen["languages"] = "en,none"  # a setting of this run; commands by hand need it, too
    dag = crawl.dag
    run = api.trigger(dag, crawl.id, chosen)
    state = shared_airflow.started.ended(dag, run)
    tasks = {task.name: task.state for task in api.task_instances(dag, run)}
    events = {
        event["name"]: event["extra"] for event in api.asset_events() if event["extra"]["crawl"] == crawl.id
    }
    alerts = wait_for_kinds(shared_airflow.webhook, run, {"failed", "late", "run late", "digest"})
    [red] = [task for task in api.task_instances(dag, run) if task.name == FAILED_TASK]
    log = api.log_tail(dag, run, red, 15)
    listed = unresolved(shared_airflow.store, crawl.id)
    assert state == "failed", tasks
    assert tasks[FAILED_TASK] == "failed"
    assert tasks["partition.load (partition 1)"] == "success"
    assert (tasks["publish"], tasks["digest"], tasks["verdict"]) == ("success", "success", "upstream_failed")

    assert events["laion_dataset"]["crawl"] == crawl.id
    assert Path(events["laion_dataset"]["report"]).is_file()
    assert events["laion_pairs"]["batches"] > 0
    assert "laion_shards" in events

    [failed] = alerts["failed"]
    assert (failed["stage"], failed["unit"], failed["attempt"]) == ("parse", "partition 0", 2)
    assert failed["reason"].endswith("(laion-etl stage parse ended with exit code 1)")
    assert failed["text"].splitlines()[1].startswith("cause: ")
    assert "Exception" not in failed["text"]
    assert failed["command"].startswith(
        f"LAION_ETL_PARSE_LANGUAGES=en,none laion-etl stage parse --crawl {crawl.id} --partition 0"
    )
    # The last lines of the task's log name the cause, too; later lines are Airflow's own.
    assert any(line.startswith("cause: ") for line in log)
    assert f"/dags/{dag}/runs/" in failed["log_url"]
    [late] = alerts["late"]
    assert (late["stage"], late["unit"]) == ("load", "partition 1")
    assert "nothing was stopped" in late["text"]
    assert late["log_url"] in late["text"]
    assert "laion-etl stage load" not in late["text"]
    [run_late] = alerts["run late"]
    assert run_late["run"] == run
    [digest] = alerts["digest"]
    assert re.fullmatch(r"failure, [\d,]+ rows published", digest["outcome"])
    assert "parse: 1 of 2 done, 1 failed" in digest["text"]
    assert "1 x parse (partition 0): " in digest["text"]
    assert digest["run_url"] in digest["text"]
    assert listed == [("failed", "parse", "partition 0")]
    posted = [post["text"].splitlines()[0] for posts in alerts.values() for post in posts]
    subjects = [str(mail["Subject"]) for mail in shared_airflow.mails.mails if crawl.id in mail["Subject"]]
    assert sorted(subjects) == sorted(posted)


def unresolved(store: Path, crawl: str) -> list[tuple[str, str, str]]:
    """Kind, stage and unit of everything broken or late after the run."""
    found = [json.loads(path.read_text()) for path in (store / unresolved_names(crawl)).rglob("*.json")]
    return sorted((record["kind"], record["stage"], record["unit"]) for record in found)


def wait_for_kinds(sink: Sink, run: str, kinds: set[str]) -> dict[str, list[dict[str, str]]]:
    """The alerts of a run by kind, once there are some of all: the scheduler checks deadlines at times."""

    def received() -> dict[str, list[dict[str, str]]]:
        found = {
            kind: [post for post in sink.posts if (post["kind"], post["run"]) == (kind, run)]
            for kind in kinds
        }
        return found if all(found.values()) else {}

    return until(received, "alerts of all kinds")
