"""Mail and webhook. Mentions, links and markup are made inert in text from outside."""

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
_NOT_JOINED = "\u200b"  # a zero-width space: the text reads the same
# @here and @channel, which Mattermost acts on as plain text, and Markdown links and images.
_ACTIVE = re.compile(r"@(?=\w)|\](?=\()")
_SLACK = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_FOREIGN = ("crawl", "run", "stage", "unit", "reason")


def send(alert: Alert, settings: AlertSettings) -> tuple[str, ...]:
    """Send a cleaned alert to every configured channel; return those that accepted it. Never raises."""
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
            # A webhook's URL is its secret, and errors contain URLs.
            shown = error if name == "mail" else type(error).__name__
            log.warning("cannot send the alert by %s: %s; see this log or the store for it", name, shown)
        else:
            sent.append(name)
    return tuple(sent)


def webhook_text(alert: Alert) -> str:
    """Return the escaped text of an alert: nothing in it notifies a channel, mentions a user or hides a link.

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
    """Post JSON: Slack, Mattermost and others show `text`; programs read the other fields."""
    answer = urllib3.request(
        "POST",
        settings.webhook,
        json={**alert.to_plain(), "text": webhook_text(alert)},
        timeout=_SEND_TIMEOUT_S,
        retries=urllib3.Retry(connect=2, read=0, redirect=0, status=0, backoff_factor=0.5),
    )
    if answer.status >= 300:
        raise OSError(f"the server answered {answer.status}")
