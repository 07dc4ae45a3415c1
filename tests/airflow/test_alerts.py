"""A real scheduler, API server, DAG processor and triggerer: failures and lateness reach mail and webhook."""

import json
import os
import re
import time
from pathlib import Path

import pytest

from laion_etl.alerts import unresolved_names
from laion_etl.database.embedded import EmbeddedServer
from laion_etl.minicrawl.build import build_minicrawl
from tests.airflow.started import started_airflow
from tests.sinks import mail_server, webhook

pytestmark = pytest.mark.airflow

_TOO_LONG_S = 240
FAILED_TASK = "partition.parse (partition 0)"


def test_failed_and_late_partitions_and_the_end_of_a_run_are_reported(
    tmp_path: Path, postgres: EmbeddedServer
) -> None:
    crawl = build_minicrawl(tmp_path / "minicrawl")
    crawl.wat_files[0].unlink()  # partition 0 fails, partition 1 does not
    dag, database = f"crawl_{crawl.crawl}", f"alerts_{os.getpid()}"
    own = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "LAION_ETL"))}
    with mail_server() as mail, webhook() as hook:
        settings = {
            **own,
            **crawl.environment(1),  # nothing listens there: every download fails at once
            "LAION_ETL_CRAWL_SOURCE": str(crawl.folder),
            "LAION_ETL_STORE": str(tmp_path / "store"),
            "LAION_ETL_DATA_DIR": str(tmp_path),
            "LAION_ETL_DATABASE_URL": postgres.url(f"{database}_pairs"),
            "LAION_ETL_CLIP_MODEL": "laion-etl-tiny",
            "LAION_ETL_CLIP_PRETRAINED": "scenes",
            "LAION_ETL_WAT_FILES_PER_PARTITION": "1",
            "LAION_ETL_TASK_RETRIES": "1",
            "LAION_ETL_TASK_RETRY_DELAY_S": "1",
            "LAION_ETL_ALERTS_SMTP": f"127.0.0.1:{mail.port}",
            "LAION_ETL_ALERTS_SMTP_TLS": "none",
            "LAION_ETL_ALERTS_MAIL_TO": "ops@example.org",
            "LAION_ETL_ALERTS_WEBHOOK": f"http://127.0.0.1:{hook.port}/hook",
            "LAION_ETL_ALERTS_LATE_AFTER": "load=0.1s,plan=1h",
            "LAION_ETL_ALERTS_RUN_DAYS": "0.0001",
        }
        with started_airflow(tmp_path, postgres.url(database, "psycopg2"), settings) as airflow:
            api = airflow.api
            api.wait_for_dag(dag, _TOO_LONG_S)
            chosen = {"wat_files": "0:2", "download_workers": 1, "allow_missing_percent": 50}
            chosen["languages"] = "en,none"  # a setting of this run; commands by hand need it, too
            run = api.trigger(dag, crawl.crawl, chosen)
            state = airflow.ended(dag, run)
            tasks = {task.name: task.state for task in api.task_instances(dag, run)}
            events = {event["name"]: event["extra"] for event in api.asset_events()}
            alerts = wait_for_kinds(hook.posts, {"failed", "late", "run late", "digest"})
            [red] = [task for task in api.task_instances(dag, run) if task.name == FAILED_TASK]
            log = api.log_tail(dag, run, red, 15)
    listed = unresolved(tmp_path / "store", crawl.crawl)
    assert state == "failed", tasks
    assert tasks[FAILED_TASK] == "failed"
    assert tasks["partition.load (partition 1)"] == "success"
    assert (tasks["publish"], tasks["digest"], tasks["verdict"]) == ("success", "success", "upstream_failed")

    assert events["laion_dataset"]["crawl"] == crawl.crawl
    assert Path(events["laion_dataset"]["report"]).is_file()
    assert events["laion_pairs"]["batches"] > 0
    assert "laion_shards" in events

    [failed] = alerts["failed"]
    assert (failed["stage"], failed["unit"], failed["attempt"]) == ("parse", "partition 0", 2)
    assert failed["reason"].endswith("(laion-etl stage parse ended with exit code 1)")
    assert failed["text"].splitlines()[1].startswith("cause: ")
    assert "Exception" not in failed["text"]
    assert failed["command"].startswith(
        f"LAION_ETL_PARSE_LANGUAGES=en,none laion-etl stage parse --crawl {crawl.crawl} --partition 0"
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
    assert len(mail.mails) == len(hook.posts)


def unresolved(store: Path, crawl: str) -> list[tuple[str, str, str]]:
    """Kind, stage and unit of everything broken or late after the run."""
    found = [json.loads(path.read_text()) for path in (store / unresolved_names(crawl)).rglob("*.json")]
    return sorted((record["kind"], record["stage"], record["unit"]) for record in found)


def wait_for_kinds(posts: list[dict[str, str]], kinds: set[str]) -> dict[str, list[dict[str, str]]]:
    """The alerts received, by kind; the scheduler checks deadlines only now and then."""
    deadline = time.monotonic() + 60
    while {post["kind"] for post in posts} < kinds and time.monotonic() < deadline:
        time.sleep(0.5)
    return {kind: [post for post in posts if post["kind"] == kind] for kind in kinds}
