"""Mail and webhook. What a channel would act on is taken out of texts that come from outside."""

import logging
import re
import smtplib
import ssl
from collections.abc import Callable
from dataclasses import replace
from email.message import EmailMessage
from typing import Any

import urllib3

from laion_etl.alerts.alert import Alert
from laion_etl.settings import AlertSettings

log = logging.getLogger(__name__)

_SEND_TIMEOUT_S = 10.0
_SUBJECT_CHARS = 200
_NOT_JOINED = "\u200b"  # a space of no width: the text reads the same
# @here and @channel, which Mattermost takes as they stand, and links and images of Markdown.
_ACTIVE = re.compile(r"@(?=\w)|\](?=\()")
_SLACK = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_FOREIGN = ("crawl", "run", "stage", "unit", "reason")


def send(alert: Alert, settings: AlertSettings) -> tuple[str, ...]:
    """Send a cleaned alert by every channel that is set; return those that took it. Never raises."""
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
            log.warning("cannot send the alert by %s: %s; it is in this log and in the store", name, shown)
        else:
            sent.append(name)
    return tuple(sent)


def webhook_text(alert: Alert) -> str:
    """The text of an alert in which nothing notifies a channel, names a user or hides a link.

    https://docs.slack.dev/messaging/formatting-message-text#escaping
    """
    quiet: dict[str, Any] = {name: _quiet(getattr(alert, name)) for name in _FOREIGN}
    details = tuple(map(_quiet, alert.details))
    return replace(alert, **quiet, details=details).text.translate(_SLACK)


def _quiet(text: str) -> str:
    return _ACTIVE.sub(lambda found: found[0] + _NOT_JOINED, text)


def _mail(alert: Alert, settings: AlertSettings) -> None:
    message = EmailMessage()
    message["Subject"] = alert.title[:_SUBJECT_CHARS]
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
        json={**alert.to_plain(), "text": webhook_text(alert)},
        timeout=_SEND_TIMEOUT_S,
        retries=urllib3.Retry(connect=2, read=0, redirect=0, status=0, backoff_factor=0.5),
    )
    if answer.status >= 300:
        raise OSError(f"it answered {answer.status}")
