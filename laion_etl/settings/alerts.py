"""Settings of alerts."""

from dataclasses import dataclass
from typing import ClassVar

from laion_etl.settings.checks import by_stage, each, factory, mail_server, optional, url
from laion_etl.settings.fields import Group, setting


@dataclass(frozen=True, slots=True)
class AlertSettings(Group):
    """Who is notified of failed and late tasks, and when a task is late. The log always has all alerts."""

    GROUP: ClassVar[str] = "alerts"

    smtp: str = setting(
        "", "Mail server, host or host:port. Empty: no mail.", changes=None, check=optional(mail_server)
    )
    smtp_tls: str = setting(
        "starttls",
        "Encryption: starttls, tls (from the first byte), or none.",
        changes=None,
        choices=("starttls", "tls", "none"),
    )
    smtp_user: str = setting("", "User of the mail server. Empty: no login.", changes=None)
    smtp_password: str = setting(
        "", "The user's password; set it from a secret rather than in a file.", changes=None, secret=True
    )
    mail_from: str = setting("laion_etl@localhost", "Sender of mails.", changes=None)
    mail_to: tuple[str, ...] = setting((), "Recipients of mails. Empty: no mail.", changes=None)
    webhook: str = setting(
        "",
        "URL to which alerts are posted as JSON: Slack's incoming webhooks and others that show `text`.",
        changes=None,
        secret=True,
        check=optional(url("https", "http")),
    )
    channels: tuple[str, ...] = setting(
        (),
        "Custom channels, as module:factory, that get alerts as well (docs/library.md).",
        changes=None,
        or_factory=True,
        check=each(factory),
    )
    late_after: tuple[str, ...] = setting(
        ("discover=10m", "parse=4h", "load=1h", "plan=3h", "download=7d", "score=3d", "publish=6h"),
        "Tasks of a stage that take longer than this are late; stage=number and s, m, h or d.",
        changes=None,
        check=by_stage(r"\d+(\.\d+)?[smhd]", "parse=90m", others=False),
    )
    stalled_after_s: float = setting(
        3_600.0,
        "With LAION_ETL_FLEET=keda: a queue is stalled when no batch has finished for this long.",
        changes=None,
        unit="s",
        minimum=0,
    )
    run_days: float = setting(
        21.0,
        "A run that has not ended this long after its start is late.",
        changes=None,
        unit="days",
        minimum=0,
    )
    max_alike: int = setting(
        3,
        "Most alerts sent per run with the same stage and cause; the digest counts all.",
        changes=None,
        unit="alerts",
        minimum=0,
        former="LAION_ETL_ALERTS_MOST_ALIKE",
    )
