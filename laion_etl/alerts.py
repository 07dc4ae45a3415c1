"""Telling people: partitions that failed or are late, runs that are late, how a run ended.

An alert goes to the log, and by mail and to a webhook where these are set. Every alert is kept in the store
under `alerts/<crawl>/`, which is how the same one is known again and not sent twice. A cause that strikes
many partitions of a run sends its first alerts only; the others are kept, and counted in the run's digest.

Sending never raises: who is told of a failure must not fail of it.
"""

import json
import logging
import re
import smtplib
import ssl
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from email.message import EmailMessage
from enum import StrEnum
from typing import Any

import urllib3

from laion_etl.causes import cause_of
from laion_etl.errors import LaionEtlError, SettingsError
from laion_etl.settings import AlertSettings, Settings
from laion_etl.stats import fingerprint
from laion_etl.storage import Store, open_store

log = logging.getLogger(__name__)

_SEND_TIMEOUT_S = 10.0
_MOST_REASON_CHARS = 2_000
_LIMIT = re.compile(r"(\w+)=(\d+(?:\.\d+)?)([smhd])\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


class Kind(StrEnum):
    """What happened."""

    FAILED = "failed"
    LATE = "late"
    RUN_LATE = "run late"
    DIGEST = "digest"


@dataclass(frozen=True, slots=True)
class Alert:
    """What people are told; empty fields are not shown. `unit` is a partition, worker or group."""

    kind: Kind
    crawl: str
    run: str
    stage: str = ""
    unit: str = ""
    reason: str = ""
    attempt: int = 0
    log_url: str = ""
    command: str = ""

    @property
    def title(self) -> str:
        """One line: a mail's subject."""
        where = " ".join(part for part in (self.crawl, self.stage, self.unit) if part)
        return f"laion_etl {self.kind.value}: {where}"

    @property
    def text(self) -> str:
        """The title and what is known, a line each."""
        parts = {
            "run": self.run,
            "try": str(self.attempt) if self.attempt else "",
            "reason": self.reason,
            "log": self.log_url,
            "retry": "clear the task with its downstream in Airflow" if self.kind is Kind.FAILED else "",
            "by hand": self.command,
        }
        lines = [f"{name}: {value}" for name, value in parts.items() if value]
        return "\n".join([self.title, *lines])

    @property
    def folder(self) -> str:
        """Where alerts of this run and cause are kept; numbers in the reason do not make another cause."""
        cause = fingerprint(self.kind, self.stage, cause_of(self.reason))
        return f"{run_folder(self.crawl, self.run)}/{cause}"

    @property
    def name(self) -> str:
        """A late partition is late once a run; one that fails again after a retry fails anew."""
        attempt = self.attempt if self.kind is Kind.FAILED else 0
        return f"{self.folder}/{fingerprint(self.unit, attempt)}.json"


def run_folder(crawl: str, run: str) -> str:
    """Folder in the store of the alerts of a run."""
    return f"alerts/{crawl}/{fingerprint(run)}"


def late_after_s(settings: AlertSettings, stage: str) -> float | None:
    """Seconds after which a task of a stage is late; None for never. Raises SettingsError."""
    limits = {}
    for entry in settings.late_after:
        match = _LIMIT.match(entry)
        if match is None:
            raise SettingsError(f"LAION_ETL_ALERTS_LATE_AFTER: {entry!r} is not like parse=90m")
        limits[match[1]] = float(match[2]) * _SECONDS[match[3]]
    return limits.get(stage)


def deliver(alert: Alert, settings: Settings) -> tuple[str, ...]:
    """Sends an alert unless it was sent before; returns the channels that took it."""
    alert = replace(alert, reason=alert.reason[:_MOST_REASON_CHARS])
    try:
        store = open_store(settings.store_uri)
        if store.exists(alert.name):
            return ()
        alike = len(store.list(alert.folder))
    except (LaionEtlError, OSError) as error:
        log.warning("whether an alert was sent before can't be told: %s", error)
        return _send(alert, settings.alerts)
    held_back = alert.kind is not Kind.DIGEST and alike >= settings.alerts.max_alike
    sent = () if held_back else _send(alert, settings.alerts)
    try:
        store.write(alert.name, _record(alert, sent, held_back=held_back))
    except (LaionEtlError, OSError) as error:
        log.warning("an alert could not be kept: %s", error)
    return sent


def summary(crawl: str, run: str, states: Mapping[str, str], settings: Settings) -> Alert:
    """The digest of a run: its tasks by stage and state, and the alerts there were.

    `states` maps tasks, such as `partition.parse_7`, to Airflow's names of states.
    """
    counts: dict[str, dict[str, int]] = {}
    for task, state in states.items():
        stage = re.sub(r"_\d+\Z", "", task).rpartition(".")[2]
        row = counts.setdefault(stage, {})
        row[state] = row.get(state, 0) + 1
    lines = [
        f"{stage}: " + ", ".join(f"{count} {state}" for state, count in sorted(row.items()))
        for stage, row in counts.items()
    ]
    found = _kept(crawl, run, open_store(settings.store_uri))
    for (kind, stage, reason), number in sorted(found.items()):
        lines.append(f"{number} x {kind}: {stage} {reason}".rstrip())
    return Alert(Kind.DIGEST, crawl, run, reason="\n  ".join(["", *lines]))


def _kept(crawl: str, run: str, store: Store) -> dict[tuple[str, str, str], int]:
    """How many alerts of each kind, stage and cause a run had; the reason is one of theirs."""
    found: dict[str, tuple[tuple[str, str, str], int]] = {}
    for name in store.list(run_folder(crawl, run)):
        document = json.loads(store.read(name))
        if document["kind"] == Kind.DIGEST:
            continue
        folder = name.rpartition("/")[0]
        shown, number = found.get(folder, ((document["kind"], document["stage"], document["reason"]), 0))
        found[folder] = (shown, number + 1)
    return dict(found.values())


def _record(alert: Alert, sent: tuple[str, ...], *, held_back: bool) -> bytes:
    when = datetime.now(UTC).isoformat(timespec="seconds")
    document: dict[str, Any] = {**asdict(alert), "at": when, "sent": sent, "held_back": held_back}
    return json.dumps(document, indent=1, ensure_ascii=False).encode()


def _send(alert: Alert, settings: AlertSettings) -> tuple[str, ...]:
    log.warning("alert: %s", alert.text)
    channels: dict[str, Callable[[Alert, AlertSettings], None]] = {}
    if settings.smtp and settings.mail_to:
        channels["mail"] = _mail
    if settings.webhook:
        channels["webhook"] = _post
    sent = []
    for name, channel in channels.items():
        try:
            channel(alert, settings)
        except (OSError, smtplib.SMTPException, urllib3.exceptions.HTTPError, ValueError) as error:
            # A webhook's address is its key, and errors name addresses.
            shown = error if name == "mail" else type(error).__name__
            log.warning("the alert could not be sent by %s: %s", name, shown)
        else:
            sent.append(name)
    return tuple(sent)


def _mail(alert: Alert, settings: AlertSettings) -> None:
    message = EmailMessage()
    message["Subject"] = alert.title
    message["From"] = settings.mail_from
    message["To"] = ", ".join(settings.mail_to)
    message.set_content(alert.text)
    host, _, port = settings.smtp.partition(":")
    secure = ssl.create_default_context()
    if settings.smtp_tls == "tls":
        server: smtplib.SMTP = smtplib.SMTP_SSL(
            host, int(port or 465), timeout=_SEND_TIMEOUT_S, context=secure
        )
    else:
        server = smtplib.SMTP(host, int(port or 25), timeout=_SEND_TIMEOUT_S)
    with server:
        if settings.smtp_tls == "starttls":
            server.starttls(context=secure)
        if settings.smtp_user:
            server.login(settings.smtp_user, settings.smtp_password)
        server.send_message(message)


def _post(alert: Alert, settings: AlertSettings) -> None:
    """Slack, Mattermost and others show `text`; programs read the rest."""
    answer = urllib3.request(
        "POST",
        settings.webhook,
        json={"text": alert.text, **asdict(alert)},
        timeout=_SEND_TIMEOUT_S,
        retries=urllib3.Retry(connect=2, read=0, redirect=0, status=0, backoff_factor=0.5),
    )
    if answer.status >= 300:
        raise OSError(f"it answered {answer.status}")
