"""A mini web on which no link waits for a time limit of the downloader.

A limit that ends a silent link soon ends good links, too, on a busy machine. Here the server ends silent and
slow connections itself, with bytes that are not HTTP, and the limits are for hangs.
"""

import asyncio
from typing import ClassVar

from laion_etl.core.funnel import DownloadStatus
from laion_etl.minicrawl.answers import HANDLERS, Answer
from laion_etl.minicrawl.behaviours import Behaviour
from laion_etl.minicrawl.web import MiniWeb

_HELD_S = 3.0  # there is time to disturb a download that waits for them
_ENDED_BY_SERVER = (Behaviour.SILENT, Behaviour.SLOW)
LONGEST_S = 120.0  # for a client that hangs
LIMITS = ("connect_timeout_s", "tls_timeout_s", "first_byte_timeout_s", "idle_timeout_s", "timeout_s")
LONG_LIMITS = {f"LAION_ETL_DOWNLOAD_{limit}".upper(): str(LONGEST_S) for limit in LIMITS}


async def _given_up(answer: Answer) -> bool:
    """Not HTTP: the end of a connection alone would be asked for again."""
    await asyncio.sleep(_HELD_S)
    answer.writer.write(b"too late\r\n")
    await answer.writer.drain()
    return False


def ended_by_server(status: DownloadStatus) -> DownloadStatus:
    """The status that a link gets here in place of the one it has on the mini web itself."""
    return DownloadStatus.BAD_RESPONSE if status is DownloadStatus.TIMEOUT else status


class PromptWeb(MiniWeb):
    handlers: ClassVar = {**HANDLERS, **dict.fromkeys(_ENDED_BY_SERVER, _given_up)}
