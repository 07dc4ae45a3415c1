"""Loads a blocklist, in a process of its own: that imports this module, which has few imports therefore."""

from multiprocessing import Queue
from pathlib import Path
from threading import Barrier

import pyarrow as pa

from laion_etl.blocklists import load_blocklists
from laion_etl.settings import ParseSettings


def load(source: str, folder: str, start: Barrier, answers: "Queue[object]") -> None:
    """Puts what the list blocks of three URLs, and its fingerprint; begins when all do."""
    start.wait(240)
    lists = load_blocklists(ParseSettings(blocked_urls=(source,)), Path(folder))
    urls = pa.array([f"https://site{n}.example/x" for n in (0, 19_999, 20_000)])
    answers.put((lists.urls_blocked(urls).tolist(), lists.fingerprint))
