"""Alerts: their text, their channels, deduplication, and the list of unresolved units."""

import json
import logging
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

import pytest

from laion_etl.alerts import (
    Alert,
    Kind,
    RunEnd,
    Unit,
    deliver,
    late_after_s,
    resolve,
    run_digest,
    run_folder,
    unresolved_names,
    wrapped,
)
from laion_etl.alerts.channels import webhook_text
from laion_etl.alerts.unresolved import failed_crawls
from laion_etl.core.errors import SettingsError
from laion_etl.database.parked import ParkedCause
from laion_etl.io.storage import LocalStore, Store
from laion_etl.settings import AlertSettings, CoreSettings, Settings, load_settings
from tests.sinks import mail_server, webhook

CRAWL, RUN = "CC-MAIN-2024-38", "manual__2024"
RUN_URL = "http://airflow/dags/crawl_CC-MAIN-2024-38/runs/manual__2024"
FAILED = Alert(
    Kind.FAILED,
    CRAWL,
    RUN,
    stage="parse",
    unit="partition 7",
    reason="part 00123.wat.gz can't be read at byte 4711",
    attempt=4,
    log_url="http://airflow/dags/crawl/runs/x",
    command="LAION_ETL_PARSE_LANGUAGES=en laion-etl stage parse --crawl CC-MAIN-2024-38 --partition 7",
    task="partition.parse_7",
    run_url=RUN_URL,
)
LATE = replace(FAILED, kind=Kind.LATE, reason="still at work after 4:00:00", command="")


def settings(folder: Path, **alerts: object) -> Settings:
    return Settings(core=CoreSettings(store=str(folder)), alerts=AlertSettings(**alerts))  # type: ignore[arg-type]


def unresolved(folder: Path) -> list[tuple[str, str, str]]:
    """Return stage, unit and kind of the units listed as failed or late."""
    store = LocalStore(folder)
    records = [json.loads(store.read(name)) for name in store.list(unresolved_names(CRAWL))]
    return sorted((record["stage"], record["unit"], record["kind"]) for record in records)


def test_a_mail_says_the_cause_first_then_what_to_do(tmp_path: Path) -> None:
    with mail_server() as sink:
        wanted = settings(
            tmp_path,
            smtp=f"127.0.0.1:{sink.port}",
            smtp_tls="none",
            mail_from="etl@example.org",
            mail_to=("ops@example.org", "dev@example.org"),
        )
        assert deliver(FAILED, wanted) == ("mail",)
    [mail] = sink.mails
    assert mail["Subject"] == "laion_etl failed: CC-MAIN-2024-38 parse partition 7"
    assert mail["To"] == "ops@example.org, dev@example.org"
    text = mail.get_payload(decode=True).decode()  # type: ignore[union-attr]
    title, cause, todo, log, command, more, run, page, attempt = text.splitlines()
    assert title == mail["Subject"]
    assert cause == "cause: part 00123.wat.gz can't be read at byte 4711"
    assert todo.startswith("what to do: fix the cause, then clear the task with Downstream")
    assert log == "log: http://airflow/dags/crawl/runs/x"
    assert command == f"by hand: {FAILED.command}"
    assert more == "more: docs/how-to/failed-partition.md"
    assert (run, page, attempt) == (f"run: {RUN}", f"run's page: {RUN_URL}", "try: 4")


@pytest.mark.parametrize(
    ("reason", "command", "advice"),
    [
        (
            "LAION_ETL_CLIP_MODEL: no model 'x'",
            "laion-etl stage score --crawl C",
            "correct LAION_ETL_CLIP_MODEL in the environment of Airflow's services, then clear",
        ),
        (
            "LAION_ETL_PARSE_LANGUAGES: 'xx' is no language",
            "LAION_ETL_PARSE_LANGUAGES=xx laion-etl stage parse --crawl C",
            "LAION_ETL_PARSE_LANGUAGES comes from a parameter of this run, and a run keeps its parameters; "
            "trigger a new run",
        ),
        (
            "1 of 6 partitions is missing",
            "laion-etl stage publish --crawl C",
            "first correct what the cause names",
        ),
    ],
)
def test_a_cause_that_clearing_leaves_as_it_is_gets_other_advice(
    reason: str, command: str, advice: str
) -> None:
    alert = replace(FAILED, reason=reason, command=command, retry_helps=False)
    [line] = [line for line in alert.text.splitlines() if line.startswith("what to do: ")]
    assert "cannot help" in line
    assert advice in line


def test_what_is_late_goes_on_and_is_not_to_be_started_a_second_time() -> None:
    for alert in (LATE, Alert(Kind.RUN_LATE, CRAWL, RUN, reason="not done after 21 days", run_url=RUN_URL)):
        assert "late, still running" in alert.title
        assert "nothing was stopped" in alert.text
        assert "a second time" in alert.text
        assert f"look here: {alert.log_url or RUN_URL}" in alert.text
        assert "by hand" not in alert.text
        assert "laion-etl " not in alert.text


def test_a_webhook_gets_text_and_fields(tmp_path: Path) -> None:
    with webhook() as sink:
        assert deliver(FAILED, settings(tmp_path, webhook=f"http://127.0.0.1:{sink.port}/x")) == ("webhook",)
    [post] = sink.posts
    assert post["text"] == FAILED.text
    assert (post["kind"], post["crawl"], post["unit"]) == ("failed", CRAWL, "partition 7")


HOSTILE = (
    "no\r\nBcc: all@example.org\x1b[2J\u202e\u2028 <!channel> <@U123> @here [x](http://evil) "
    "![](http://evil) [y][z] [z]: //evil"
)


@pytest.mark.parametrize("field", ["reason", "unit", "run", "stage"])
def test_texts_of_strangers_add_no_line_and_notify_no_channel(tmp_path: Path, field: str) -> None:
    alert = replace(FAILED, **{field: HOSTILE})
    with mail_server() as mail, webhook() as hook:
        wanted = settings(
            tmp_path,
            smtp=f"127.0.0.1:{mail.port}",
            smtp_tls="none",
            mail_to=("ops@example.org",),
            webhook=f"http://127.0.0.1:{hook.port}/x",
        )
        assert deliver(alert, wanted) == ("mail", "webhook")
    [message], [post] = mail.mails, hook.posts
    assert message["Bcc"] is None
    unfolded = re.sub(r"\r?\n(?=[ \t])", "", str(message["Subject"]))  # RFC 5322 2.2.3
    assert unfolded.isprintable()
    body = message.get_payload(decode=True).decode()  # type: ignore[union-attr]
    assert len(body.splitlines()) == len(FAILED.text.splitlines())
    assert len(post["text"].split("\n")) == len(FAILED.text.splitlines())
    for active in ("<!", "<@", "@here", "](", "][", "]:", "\x1b", "\u202e"):
        assert active not in post["text"]
    assert "&lt;!channel&gt;" in post["text"]


def test_a_long_cause_keeps_its_beginning_and_its_advice(tmp_path: Path) -> None:
    deliver(
        replace(FAILED, reason="cannot read " + 9_000 * "x" + "; give it more memory"), settings(tmp_path)
    )
    store = LocalStore(tmp_path)
    [name] = store.list(unresolved_names(CRAWL))
    kept = json.loads(store.read(name))["reason"]
    assert kept.startswith("cannot read x")
    assert kept.endswith("x; give it more memory")
    assert len(kept) < 2_100


def test_a_long_cause_is_lines_of_a_log_with_names_in_one_piece() -> None:
    name = "s3://bucket/" + 30 * "CC-MAIN-2024-38/"
    lines = wrapped(f"cause: cannot read {name}: " + 40 * "no access ")
    assert name + ":" in lines
    assert all(len(line) <= 110 for line in lines if name not in line)


def test_the_same_alert_is_sent_once_and_another_try_again(tmp_path: Path) -> None:
    with webhook() as sink:
        wanted = settings(tmp_path, webhook=f"http://127.0.0.1:{sink.port}/x")
        for _ in range(3):
            deliver(FAILED, wanted)
        deliver(replace(FAILED, attempt=8), wanted)
        deliver(LATE, wanted)
        deliver(replace(LATE, attempt=5), wanted)
    assert [(post["kind"], post["attempt"]) for post in sink.posts] == [
        ("failed", 4),
        ("failed", 8),
        ("late", 4),
    ]


def test_a_cause_that_strikes_many_is_sent_a_few_times_and_counted(tmp_path: Path) -> None:
    with webhook() as sink:
        wanted = settings(tmp_path, webhook=f"http://127.0.0.1:{sink.port}/x", max_alike=2)
        for number in range(5):
            reason = f"part 00{number}.wat.gz can't be read at byte {number * 31}"
            unit = {"unit": f"partition {number}", "task": f"partition.parse_{number}"}
            deliver(replace(FAILED, **unit, reason=reason), wanted)  # type: ignore[arg-type]
        deliver(replace(FAILED, unit="partition 9", task="partition.parse_9", reason="denied"), wanted)
    assert [post["unit"] for post in sink.posts] == ["partition 0", "partition 1", "partition 9"]
    kept = LocalStore(tmp_path).list(run_folder(CRAWL, RUN))
    records = [json.loads(LocalStore(tmp_path).read(name)) for name in kept]
    assert sum(record["held_back"] for record in records) == 3
    states = {f"partition.parse_{n}": "failed" if n < 5 or n == 9 else "success" for n in range(10)}
    text = run_digest(RunEnd(CRAWL, RUN, states), wanted).text
    assert "5 x parse (partition 0, partition 1, partition 2, partition 3, partition 4): part 000" in text
    assert "1 x parse (partition 9): denied" in text


def ended(states: dict[str, str], **more: object) -> RunEnd:
    return RunEnd(CRAWL, RUN, states, RUN_URL, **more)  # type: ignore[arg-type]


GREEN = {
    # Not in the order of the data: Airflow gives them as its database does.
    "publish": "success",
    "score_1": "success",
    "score_0": "success",
    "plan_range": "skipped",
    "workers": "success",
    "shards": "success",
    "verdict": "success",
    "partition.load_0": "success",
    "partition.parse_0": "success",
    "plan": "success",
    "download_0": "success",
    "discover": "success",
    "estimate": "success",
}
PUBLISHED = {
    "rows": 1_234_567,
    "version": "laion/CC-MAIN-2024-38.2",
    "dataset": "s3://b/dataset/laion/CC-MAIN-2024-38.2",
    "report": "s3://b/dataset/laion/CC-MAIN-2024-38.2/report.html",
}


def test_a_digest_of_a_good_run_says_rows_and_place_and_stages_in_order(tmp_path: Path) -> None:
    digest = run_digest(ended(GREEN, published=PUBLISHED), settings(tmp_path))
    assert digest.title == "laion_etl CC-MAIN-2024-38: success, 1,234,567 rows published"
    assert digest.text.splitlines()[1:] == [
        f"run: {RUN}",
        f"run's page: {RUN_URL}",
        "version: laion/CC-MAIN-2024-38.2",
        "dataset: s3://b/dataset/laion/CC-MAIN-2024-38.2",
        "report: s3://b/dataset/laion/CC-MAIN-2024-38.2/report.html",
        "stages:",
        "  discover: 1 of 1 done",
        "  parse: 1 of 1 done",
        "  load: 1 of 1 done",
        "  plan: 1 of 1 done",
        "  download: 1 of 1 done",
        "  score: 2 of 2 done",
        "  publish: 1 of 1 done",
    ]


def test_a_digest_of_a_failed_run_names_what_is_broken_and_not_what_was_fixed(tmp_path: Path) -> None:
    wanted = settings(tmp_path)
    deliver(FAILED, wanted)
    deliver(replace(FAILED, unit="partition 8", task="partition.parse_8", reason="s3 was away"), wanted)
    deliver(replace(LATE, stage="download", unit="worker 0", task="download_0"), wanted)
    states = GREEN | {
        "partition.parse_7": "failed",
        "partition.load_7": "upstream_failed",
        "partition.parse_8": "success",
        "score_1": "failed",  # killed: no alert
        "publish": "upstream_failed",
        "verdict": "upstream_failed",
    }
    digest = run_digest(ended(states), wanted)
    assert digest.title == "laion_etl CC-MAIN-2024-38: failure, nothing published"
    lines = digest.text.splitlines()
    assert "  parse: 2 of 3 done, 1 failed" in lines
    assert "  load: 1 of 2 done, 1 not run, because an earlier task failed" in lines
    assert lines[lines.index("still broken:") + 1 :] == [
        "  1 x parse (partition 7): part 00123.wat.gz can't be read at byte 4711",
        "  1 without a reported cause (score_1): see the run's page",
        "more: docs/how-to/failed-partition.md, docs/how-to/damaged-shard.md",
        "failed at first, fixed by a retry: 1",
        "late: download worker 0",
    ]


def test_a_partial_dataset_is_a_failure_with_rows(tmp_path: Path) -> None:
    states = GREEN | {"partition.parse_1": "failed"}
    digest = run_digest(ended(states, published=PUBLISHED), settings(tmp_path))
    assert digest.title == "laion_etl CC-MAIN-2024-38: failure, 1,234,567 rows published"


def test_a_digest_counts_parked_batches_by_cause(tmp_path: Path) -> None:
    now = datetime(2026, 11, 29, tzinfo=UTC)
    parked = [ParkedCause(f"cause {n}", 900 - n, now, f"cause {n}\n[b]of batch {n}[/b]") for n in range(7)]
    lines = run_digest(ended(GREEN, parked=tuple(parked)), settings(tmp_path)).text.splitlines()
    assert lines[-7:] == [
        f"batches parked: 6,279; fix the cause, then run laion-etl db requeue --crawl {CRAWL}; "
        "more: docs/how-to/failed-batch.md",
        *(f"  {900 - n} x cause {n} [b]of batch {n}[/b]" for n in range(5)),
        "  and 1,789 by other causes",
    ]


def test_the_digest_of_a_dry_run_is_its_estimate(tmp_path: Path) -> None:
    states = dict.fromkeys(GREEN, "skipped")
    estimate = {"crawl": CRAWL, "samples": 1_234, "stored_bytes": 5_600_000_000, "score_hours": 1.5}
    digest = run_digest(ended(states, estimate=estimate), settings(tmp_path))
    assert digest.title == "laion_etl CC-MAIN-2024-38: dry run, about 1,234 samples expected"
    assert digest.text.splitlines()[3:] == [
        "estimate (nothing else was done):",
        f"  crawl: {CRAWL}",
        "  samples: 1,234",
        "  stored: 5.60 GB",
        "  score hours: 1.5",
    ]


def test_a_dry_run_that_failed_is_a_failure(tmp_path: Path) -> None:
    states = dict.fromkeys(GREEN, "upstream_failed") | {"estimate": "failed"}
    assert run_digest(ended(states), settings(tmp_path)).outcome == "failure, nothing published"


def test_a_digest_is_sent_once_for_each_end_of_a_run(tmp_path: Path) -> None:
    with webhook() as sink:
        wanted = settings(tmp_path, webhook=f"http://127.0.0.1:{sink.port}/x")
        for states in (GREEN | {"score_1": "failed"}, GREEN | {"score_1": "failed"}, GREEN):
            deliver(run_digest(ended(states), wanted), wanted)
    assert [post["outcome"] for post in sink.posts] == [
        "failure, nothing published",
        "success, nothing published",
    ]


def test_a_failure_is_listed_until_its_unit_succeeds_in_whatever_run(tmp_path: Path) -> None:
    wanted, store = settings(tmp_path), LocalStore(tmp_path)
    deliver(LATE, wanted)
    assert unresolved(tmp_path) == [("parse", "partition 7", "late")]
    assert failed_crawls(store.list("unresolved")) == set()
    deliver(FAILED, wanted)
    deliver(replace(FAILED, unit="partition 8"), wanted)
    deliver(replace(FAILED, stage="discover", unit=""), wanted)
    assert failed_crawls(store.list("unresolved")) == {CRAWL}
    resolve(Unit(CRAWL, "another run", "parse", "partition 7", 3), store)
    assert unresolved(tmp_path) == [("discover", "", "failed"), ("parse", "partition 8", "failed")]
    resolve(Unit(CRAWL, "another run", "discover", ""), store)
    resolve(Unit(CRAWL, RUN, "parse", "partition 8", 8), store)
    assert unresolved(tmp_path) == []


def test_workers_are_known_by_their_run_and_a_later_run_resolves_those_of_earlier_ones(
    any_store: Store, tmp_path: Path
) -> None:
    wanted = replace(settings(tmp_path), core=CoreSettings(store=any_store.uri()))
    for unit in ("worker 0", "worker 1"):
        deliver(replace(FAILED, stage="download", unit=unit), wanted)
    resolve(Unit(CRAWL, RUN, "download", "worker 0", 0), any_store)
    resolve(Unit(CRAWL, RUN, "download", "worker 2", 2), any_store)
    assert len(any_store.list(unresolved_names(CRAWL))) == 1
    resolve(Unit(CRAWL, "another run", "download", "worker 2", 2), any_store)
    assert any_store.list(unresolved_names(CRAWL)) == []


def test_a_killed_task_known_by_its_index_only_is_resolved_by_its_retry(tmp_path: Path) -> None:
    deliver(replace(FAILED, unit="[3]"), settings(tmp_path))
    resolve(Unit(CRAWL, RUN, "parse", "partition 7", 3), LocalStore(tmp_path))
    assert unresolved(tmp_path) == []


def test_a_channel_that_does_not_answer_fails_nothing_and_no_secret_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with webhook(status=500) as sink, caplog.at_level(logging.WARNING):
        wanted = settings(
            tmp_path,
            smtp="127.0.0.1:1",
            smtp_tls="none",
            mail_to=("ops@example.org",),
            webhook=f"http://127.0.0.1:{sink.port}/top-secret",
        )
        assert deliver(FAILED, wanted) == ()
    assert "cannot send the alert by mail" in caplog.text
    assert "cannot send the alert by webhook: OSError" in caplog.text
    assert "top-secret" not in caplog.text


def test_a_store_that_cannot_be_written_does_not_silence_alerts(tmp_path: Path) -> None:
    (tmp_path / "alerts").write_text("in the way")
    (tmp_path / "unresolved").write_text("in the way")
    with webhook() as sink:
        assert deliver(FAILED, settings(tmp_path, webhook=f"http://127.0.0.1:{sink.port}/x")) == ("webhook",)
    assert len(sink.posts) == 1


def test_limits_are_read_by_stage() -> None:
    limits = AlertSettings(late_after=("parse=90m", "load=1.5h", "score=2d"))
    assert late_after_s(limits, "parse") == 5_400
    assert late_after_s(limits, "load") == 5_400
    assert late_after_s(limits, "score") == 172_800
    assert late_after_s(limits, "publish") is None


def test_an_alert_is_read_back_whatever_version_wrote_it() -> None:
    plain = json.loads(json.dumps({**FAILED.to_plain(), "sent": [], "of a later version": 1}))
    assert Alert.from_plain(plain) == FAILED
    assert Alert.from_plain({"kind": "late", "crawl": CRAWL, "run": RUN}) == Alert(Kind.LATE, CRAWL, RUN)
    assert webhook_text(FAILED) == FAILED.text


class Pager:
    """A channel as LAION_ETL_ALERTS_CHANNELS names it; `pages` is what it was asked to send."""

    name = "pager"
    pages: ClassVar[list[Alert]] = []

    def __init__(self, settings: AlertSettings) -> None:
        assert isinstance(settings, AlertSettings)

    def send(self, alert: Alert) -> None:
        if alert.unit == "partition 13":
            raise RuntimeError(f"https://pager.example/key-4711 refused {alert.unit}")
        self.pages.append(alert)


def not_a_channel(_: AlertSettings) -> object:
    return object()


def test_a_custom_channel_gets_alerts_next_to_the_others(tmp_path: Path) -> None:
    Pager.pages.clear()
    with webhook() as sink:
        url = f"http://127.0.0.1:{sink.port}/hook"
        wanted = settings(tmp_path, webhook=url, channels=(f"{__name__}:Pager",))
        assert deliver(replace(FAILED, reason="two\nlines"), wanted) == ("webhook", "pager")
    assert [page.reason for page in Pager.pages] == ["two lines"]
    assert len(sink.posts) == 1


@pytest.mark.parametrize(
    ("name", "unit", "logged"),
    [
        ("Pager", "partition 13", "cannot send the alert by pager: RuntimeError"),
        ("not_a_channel", "partition 7", "the factory returned an object without `name`"),
        ("missing", "partition 7", "has no function missing"),
    ],
)
def test_a_custom_channel_that_fails_stops_no_other_and_shows_no_secret(
    name: str, unit: str, logged: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Pager.pages.clear()
    wanted = settings(tmp_path, channels=(f"{__name__}:{name}", f"{__name__}:Pager"))
    took = deliver(replace(FAILED, unit=unit), wanted)
    assert took == (() if name == "Pager" else ("pager",))
    assert logged in caplog.text
    assert "key-4711" not in caplog.text


def test_the_name_of_a_channel_is_checked_when_settings_are_loaded() -> None:
    with pytest.raises(SettingsError, match="LAION_ETL_ALERTS_CHANNELS=pager: 'pager' is not module"):
        load_settings({"LAION_ETL_ALERTS_CHANNELS": "pager"})
