"""Snapshots: JSON documents built in the background, cached for a few seconds and shared by all clients.

Whatever the number of clients and the size of the crawl, a document is built by one thread at a time, at most
once per maximum age, and only while it is requested. A request gets the latest document immediately, or waits
briefly for the first one; a slow store or database makes a page older, never slower.
"""

import hashlib
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from laion_etl.core.errors import LaionEtlError

log = logging.getLogger(__name__)

_MAX_KEPT = 24
_MAX_BYTES = 32_000_000  # of documents that are kept; the latest is kept in any case
_THREADS = 2
# A document that takes long to build is built less often.
_REST_FACTOR = 5.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A document as it is sent."""

    body: bytes
    etag: str
    made_at: float
    took_s: float

    @property
    def age_s(self) -> float:
        return time.monotonic() - self.made_at


@dataclass(slots=True)
class _Entry:
    last: Snapshot | None = None
    making: "Future[Snapshot] | None" = None


@dataclass(slots=True)
class Snapshots:
    """Documents by key; the least recently used one is dropped."""

    max_age_s: float = 5.0
    _entries: "OrderedDict[str, _Entry]" = field(default_factory=OrderedDict)
    _lock: Lock = field(default_factory=Lock)
    _pool: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(_THREADS, thread_name_prefix="dashboard")
    )

    def get(self, key: str, make: Callable[[], dict[str, Any]], patience_s: float) -> Snapshot | None:
        """Return the latest snapshot; None if the first one is not ready after `patience_s`.

        An exception of `make` is raised here, once, in the next call.
        """
        with self._lock:
            entry = self._entry(key)
            if entry.making is None and self._is_old(entry.last):
                entry.making = self._pool.submit(_made, make)
            making = entry.making
        if making is None:
            return entry.last
        wait([making], patience_s)
        return self._settled(entry, making)

    def close(self) -> None:
        """Shut down; no new document is started."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _settled(self, entry: _Entry, making: "Future[Snapshot]") -> Snapshot | None:
        if not making.done():
            return entry.last
        with self._lock:
            if entry.making is making:
                entry.making = None
        entry.last = making.result()
        with self._lock:
            self._drop()
        return entry.last

    def _is_old(self, last: Snapshot | None) -> bool:
        return last is None or last.age_s > max(self.max_age_s, _REST_FACTOR * last.took_s)

    def _entry(self, key: str) -> _Entry:
        entry = self._entries.setdefault(key, _Entry())
        self._entries.move_to_end(key)
        self._drop()
        return entry

    def _drop(self) -> None:
        """Drop the least recently used documents beyond the limits."""
        held = sum(len(entry.last.body) for entry in self._entries.values() if entry.last)
        while len(self._entries) > _MAX_KEPT or (held > _MAX_BYTES and len(self._entries) > 1):
            _, entry = self._entries.popitem(last=False)
            held -= len(entry.last.body) if entry.last else 0


def _made(make: Callable[[], dict[str, Any]]) -> Snapshot:
    start = time.monotonic()
    try:
        body = json.dumps(make(), separators=(",", ":"), default=str).encode()
    except LaionEtlError as error:  # an outage, or a crawl without results: its message says all
        log.warning("%s", error)
        raise
    except Exception:
        log.exception("a page of the dashboard could not be made")
        raise
    now = time.monotonic()
    return Snapshot(body, f'"{hashlib.sha256(body).hexdigest()[:24]}"', now, now - start)
