"""Delivers each alert once: it is held back if the same one, or enough similar ones, were sent before."""

import json
import logging
import textwrap
from datetime import UTC, datetime
from typing import Any

from laion_etl.alerts.alert import Alert, Kind
from laion_etl.alerts.channels import send
from laion_etl.alerts.unresolved import note
from laion_etl.core.errors import LaionEtlError
from laion_etl.io.storage import Store, open_store
from laion_etl.settings import AlertSettings, Settings

log = logging.getLogger(__name__)

_LOG_WIDTH = 110  # Airflow's UI does not wrap log lines by default


def deliver(alert: Alert, settings: Settings) -> tuple[str, ...]:
    """Send an alert unless it was sent before; return the channels that accepted it."""
    alert = alert.cleaned()
    try:
        store = open_store(settings.store_uri)
        note(alert, _record(alert), store)
        if store.exists(alert.name):
            return ()
        alike = len(store.list(alert.folder))
    except (LaionEtlError, OSError) as error:
        log.warning("cannot look up whether an alert was sent before: %s; it is sent now", error)
        return _send(alert, settings.alerts)
    held_back = alert.kind is not Kind.DIGEST and alike >= settings.alerts.max_alike
    sent = () if held_back else _send(alert, settings.alerts)
    _keep(alert, sent, held_back=held_back, store=store)
    return sent


def wrapped(sentence: str) -> list[str]:
    """Wrap a sentence into log lines; names and addresses stay whole."""
    return textwrap.wrap(sentence, _LOG_WIDTH, break_on_hyphens=False, break_long_words=False)


def _send(alert: Alert, settings: AlertSettings) -> tuple[str, ...]:
    for line in alert.text.splitlines():
        sentence = line.startswith(("cause: ", "what to do: "))  # a command or an address stays whole
        for part in wrapped(line) if sentence else [line]:
            log.warning("alert: %s", part)
    return send(alert, settings)


def _keep(alert: Alert, sent: tuple[str, ...], *, held_back: bool, store: Store) -> None:
    try:
        store.write(alert.name, _json(_record(alert) | {"sent": sent, "held_back": held_back}))
    except (LaionEtlError, OSError) as error:
        log.warning("cannot keep an alert: %s; the same one may be sent again", error)


def _record(alert: Alert) -> dict[str, Any]:
    return alert.to_plain() | {"at": datetime.now(UTC).isoformat(timespec="seconds")}


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, indent=1, ensure_ascii=False).encode()
