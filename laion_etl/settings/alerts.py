"""Settings of alerts."""

from dataclasses import dataclass
from typing import ClassVar

from laion_etl.settings.checks import by_stage, each, factory, mail_server, optional, url
from laion_etl.settings.fields import Group, setting


@dataclass(frozen=True, slots=True)
class AlertSettings(Group):
    """Who is notified of failed and late partitions, and when they are late. The log always has them."""

    GROUP: ClassVar[str] = "alerts"

    smtp: str = setting(
        "", "Mail server, host or host:port. Empty: no mail.", changes=None, check=optional(mail_server)
    )
    smtp_tls: str = setting(
        "starttls",
        "starttls, tls (from the first byte), or none.",
        changes=None,
        choices=("starttls", "tls", "none"),
    )
    smtp_user: str = setting("", "User of the mail server. Empty: no login.", changes=None)
    smtp_password: str = setting(
        "", "The user's password; better from a secret than from a file.", changes=None, secret=True
    )
    mail_from: str = setting("laion_etl@localhost", "Sender of mails.", changes=None)
    mail_to: tuple[str, ...] = setting((), "Who gets mail. Empty: no mail.", changes=None)
    webhook: str = setting(
        "",
        "URL that gets alerts as JSON by POST: Slack's incoming webhooks and others that show `text`.",
        changes=None,
        secret=True,
        check=optional(url("https", "http")),
    )
    channels: tuple[str, ...] = setting(
        (),
        "Custom channels, as module:factory, that get alerts as well (docs/library.md).",
        changes=None,
        check=each(factory),
    )
    late_after: tuple[str, ...] = setting(
        ("discover=10m", "parse=4h", "load=1h", "plan=3h", "download=7d", "score=3d", "publish=6h"),
        "A task of these stages that takes longer is late; stage=number and s, m, h or d.",
        changes=None,
        check=by_stage(r"\d+(\.\d+)?[smhd]", "parse=90m", others=False),
    )
    run_days: float = setting(
        21.0,
        "A run that is not done this long after its start is late.",
        changes=None,
        unit="days",
        minimum=0,
    )
    max_alike: int = setting(
        3,
        "Alerts of a run with the same stage and cause that are sent; the digest counts all.",
        changes=None,
        unit="alerts",
        minimum=0,
        former="LAION_ETL_ALERTS_MOST_ALIKE",
    )
