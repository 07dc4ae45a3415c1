"""Alerts: what they say, who gets them, and that nobody gets the same one twice."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from laion_etl.alerts import Alert, Kind, deliver, late_after_s, run_folder, summary
from laion_etl.settings import AlertSettings, CoreSettings, Settings
from laion_etl.storage import LocalStore
from tests.sinks import mail_server, webhook

CRAWL, RUN = "CC-MAIN-2024-38", "manual__2024"
FAILED = Alert(
    Kind.FAILED,
    CRAWL,
    RUN,
    stage="parse",
    unit="partition 7",
    reason="InputError: part 00123.wat.gz can't be read at byte 4711",
    attempt=4,
    log_url="http://airflow/dags/crawl/runs/x",
    command="laion-etl parse --crawl CC-MAIN-2024-38 --partition 7",
)


def settings(folder: Path, **alerts: object) -> Settings:
    return Settings(core=CoreSettings(store=str(folder)), alerts=AlertSettings(**alerts))  # type: ignore[arg-type]


def test_a_mail_says_what_failed_and_what_to_do(tmp_path: Path) -> None:
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
    text = str(mail.get_payload())
    for part in (
        RUN,
        "try: 4",
        "byte 4711",
        "http://airflow/dags",
        "by hand: laion-etl parse",
        "retry: clear",
    ):
        assert part in text


def test_a_webhook_gets_text_and_fields(tmp_path: Path) -> None:
    with webhook() as sink:
        assert deliver(FAILED, settings(tmp_path, webhook=f"http://127.0.0.1:{sink.port}/x")) == ("webhook",)
    [post] = sink.posts
    assert post["text"] == FAILED.text
    assert (post["kind"], post["crawl"], post["unit"]) == ("failed", CRAWL, "partition 7")


def test_the_same_alert_is_sent_once_and_another_try_again(tmp_path: Path) -> None:
    with webhook() as sink:
        wanted = settings(tmp_path, webhook=f"http://127.0.0.1:{sink.port}/x")
        for _ in range(3):
            deliver(FAILED, wanted)
        deliver(replace(FAILED, attempt=8), wanted)
        late = replace(FAILED, kind=Kind.LATE, reason="still at work after 4:00:00")
        deliver(late, wanted)
        deliver(replace(late, attempt=5), wanted)
    assert [(post["kind"], post["attempt"]) for post in sink.posts] == [
        ("failed", 4),
        ("failed", 8),
        ("late", 4),
    ]


def test_a_cause_that_strikes_many_is_told_a_few_times_and_counted(tmp_path: Path) -> None:
    with webhook() as sink:
        wanted = settings(tmp_path, webhook=f"http://127.0.0.1:{sink.port}/x", max_alike=2)
        for number in range(5):
            reason = f"InputError: part 00{number}.wat.gz can't be read at byte {number * 31}"
            deliver(replace(FAILED, unit=f"partition {number}", reason=reason), wanted)
        deliver(replace(FAILED, unit="partition 9", reason="StorageError: access denied"), wanted)
    assert [post["unit"] for post in sink.posts] == ["partition 0", "partition 1", "partition 9"]
    states = {f"partition.parse_{n}": "failed" if n < 5 else "success" for n in range(8)} | {
        "plan": "success"
    }
    digest = summary(CRAWL, RUN, states, wanted)
    assert "parse: 5 failed, 3 success" in digest.text
    assert "5 x failed: parse InputError" in digest.text
    assert "1 x failed: parse StorageError" in digest.text
    kept = LocalStore(tmp_path).list(run_folder(CRAWL, RUN))
    records = [json.loads(LocalStore(tmp_path).read(name)) for name in kept]
    assert sum(record["held_back"] for record in records) == 3


def test_who_cannot_be_reached_fails_nothing_and_no_secret_is_logged(
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
    assert "could not be sent by mail" in caplog.text
    assert "could not be sent by webhook: OSError" in caplog.text
    assert "top-secret" not in caplog.text


def test_a_store_that_cannot_be_written_does_not_silence_alerts(tmp_path: Path) -> None:
    (tmp_path / "alerts").write_text("in the way")
    with webhook() as sink:
        assert deliver(FAILED, settings(tmp_path, webhook=f"http://127.0.0.1:{sink.port}/x")) == ("webhook",)
    assert len(sink.posts) == 1


def test_limits_are_read_by_stage() -> None:
    limits = AlertSettings(late_after=("parse=90m", "load=1.5h", "score=2d"))
    assert late_after_s(limits, "parse") == 5_400
    assert late_after_s(limits, "load") == 5_400
    assert late_after_s(limits, "score") == 172_800
    assert late_after_s(limits, "publish") is None
