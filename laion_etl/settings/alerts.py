"""Settings of alerts."""

from dataclasses import dataclass

from laion_etl.settings.fields import secret_setting, setting


@dataclass(frozen=True, slots=True)
class AlertSettings:
    """Who is told of failed and late partitions, and when they are late. The log always is."""

    smtp: str = setting("", "Mail server, host:port. Empty: no mail.")
    smtp_tls: str = setting("starttls", "starttls, tls (from the first byte), or none.")
    smtp_user: str = setting("", "User of the mail server. Empty: none is asked for.")
    smtp_password: str = secret_setting("", "The user's password; better from a secret than from a file.")
    mail_from: str = setting("laion_etl@localhost", "Sender of mails.")
    mail_to: tuple[str, ...] = setting((), "Who gets mail, comma separated. Empty: nobody.")
    webhook: str = secret_setting(
        "", "URL that gets alerts as JSON by POST: Slack's incoming webhooks and others that show `text`."
    )
    late_after: tuple[str, ...] = setting(
        ("discover=10m", "parse=4h", "load=1h", "plan=3h", "download=7d", "score=3d", "publish=6h"),
        "A task of these stages that takes longer is late; stage=number and s, m, h or d, comma separated.",
    )
    run_days: float = setting(21.0, "A run that is not done this many days after its start is late.")
    most_alike: int = setting(
        3, "Alerts of a run with the same stage and cause that are sent; the digest counts all."
    )
