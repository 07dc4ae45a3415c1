"""Where alerts go: mail, webhook and custom channels.

Mentions, links and markup are made inert in text from outside.
"""

import logging
import re
import smtplib
import ssl
from collections.abc import Iterator
from dataclasses import replace
from email.message import EmailMessage
from typing import Any, Protocol

import urllib3

from laion_etl.alerts.alert import Alert
from laion_etl.core.errors import SettingsError
from laion_etl.core.import_factory import load_factory
from laion_etl.settings import AlertSettings

log = logging.getLogger(__name__)

VARIABLE = "LAION_ETL_ALERTS_CHANNELS"
_SEND_TIMEOUT_S = 10.0
_SUBJECT_CHARS = 200
_NOT_JOINED = "\u200b"  # a zero-width space: the text reads the same
# @here and @channel, which Mattermost acts on as plain text, and Markdown links, references and images.
_ACTIVE = re.compile(r"@(?=\w)|\](?=[(\[:])")
_SLACK = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_FOREIGN = ("crawl", "run", "stage", "unit", "reason")


class AlertChannel(Protocol):
    """A way to notify people; docs/library.md shows how to write one."""

    name: str  # as logs and the record of the alert name it

    def send(self, alert: Alert) -> None:
        """Send an alert, within seconds. Raise whatever there is to raise when it was not sent.

        Every field of the alert is one printable line. Where the channel acts on marks in texts, as chats do
        on @here, send `webhook_text(alert)`.
        """
        ...


def send(alert: Alert, settings: AlertSettings) -> tuple[str, ...]:
    """Send a cleaned alert to every configured channel; return those that accepted it. Never raises."""
    sent = []
    for channel in _channels(settings):
        try:
            channel.send(alert)
        except Exception as error:  # noqa: BLE001 - code of others, and a failure is being reported here
            # A webhook's URL is its secret, and errors contain URLs.
            shown = error if isinstance(channel, Mail) else type(error).__name__
            log.warning(
                "cannot send the alert by %s: %s; see this log or the store for it", channel.name, shown
            )
        else:
            sent.append(channel.name)
    return tuple(sent)


def _channels(settings: AlertSettings) -> Iterator[AlertChannel]:
    """Make the channels that are set; one that cannot be made is logged and left out."""
    if settings.smtp and settings.mail_to:
        yield Mail(settings)
    if settings.webhook:
        yield Webhook(settings)
    for name in settings.channels:
        try:
            yield load_channel(name, settings)
        except Exception as error:  # noqa: BLE001 - as in `send`
            shown = error if isinstance(error, SettingsError) else type(error).__name__
            log.warning("cannot use the alert channel %s: %s; the other channels are used", name, shown)


def load_channel(name: str, settings: AlertSettings) -> AlertChannel:
    """Return a custom channel. Raises SettingsError for one that cannot be used."""
    channel: AlertChannel = load_factory(name, VARIABLE, "a channel")(settings)
    if not callable(getattr(channel, "send", None)) or not isinstance(getattr(channel, "name", None), str):
        raise SettingsError(
            f"cannot use {VARIABLE}={name!r}: the factory returned an object without `name` and "
            "`send(alert)`; return an AlertChannel (docs/library.md)"
        )
    return channel


def webhook_text(alert: Alert) -> str:
    """Return the escaped text of an alert: nothing in it notifies a channel, mentions a user or hides a link.

    https://docs.slack.dev/messaging/formatting-message-text#escaping
    """
    quiet: dict[str, Any] = {name: _quiet(getattr(alert, name)) for name in _FOREIGN}
    details = tuple(map(_quiet, alert.details))
    return replace(alert, **quiet, details=details).text.translate(_SLACK)


def _quiet(text: str) -> str:
    return _ACTIVE.sub(lambda found: found[0] + _NOT_JOINED, text)


class Mail:
    """Mail to all of `mail_to`."""

    name = "mail"

    def __init__(self, settings: AlertSettings) -> None:
        self._settings = settings

    def send(self, alert: Alert) -> None:
        """Send a mail. Raises OSError, SMTPException or ValueError."""
        settings = self._settings
        message = EmailMessage()
        message["Subject"] = alert.title[:_SUBJECT_CHARS]
        message["From"] = settings.mail_from
        message["To"] = ", ".join(settings.mail_to)
        message.set_content(alert.text)
        with self._server() as server:
            if settings.smtp_tls == "starttls":
                server.starttls(context=ssl.create_default_context())
            if settings.smtp_user:
                server.login(settings.smtp_user, settings.smtp_password)
            server.send_message(message)

    def _server(self) -> smtplib.SMTP:
        host, _, port = self._settings.smtp.partition(":")
        if self._settings.smtp_tls == "tls":
            secure = ssl.create_default_context()
            return smtplib.SMTP_SSL(host, int(port or 465), timeout=_SEND_TIMEOUT_S, context=secure)
        return smtplib.SMTP(host, int(port or 25), timeout=_SEND_TIMEOUT_S)


class Webhook:
    """A POST of JSON. Slack, Mattermost and others show `text`; programs read the rest."""

    name = "webhook"

    def __init__(self, settings: AlertSettings) -> None:
        self._url = settings.webhook

    def send(self, alert: Alert) -> None:
        """Post an alert. Raises OSError or HTTPError."""
        answer = urllib3.request(
            "POST",
            self._url,
            json={**alert.to_plain(), "text": webhook_text(alert)},
            timeout=_SEND_TIMEOUT_S,
            retries=urllib3.Retry(connect=2, read=0, redirect=0, status=0, backoff_factor=0.5),
        )
        if answer.status >= 300:
            raise OSError(f"the server answered {answer.status}")
