"""Errors and log lines as terminals and log files may have them."""

import logging

from laion_etl.core.hidden_secrets import hide_secrets
from laion_etl.core.one_line import one_line


class ShownLines(logging.Formatter):
    """Formats records of a log like its base, as `shown` has them."""

    def format(self, record: logging.LogRecord) -> str:
        return shown(super().format(record))


def shown(text: str) -> str:
    """Return text of which every line is printable, and has no secrets of URLs.

    A server's answer in it must not control the terminal, and the address in it may have a password.
    """
    return "\n".join(map(one_line, hide_secrets(text).split("\n")))
