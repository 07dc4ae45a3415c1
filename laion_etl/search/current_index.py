"""The index that a running search page uses: opened again when the dataset or its index has changed.

A removal publishes a version and masks the index; the page must not go on showing what was removed. Before a
request the ETags of two small files are compared, at most once in a few seconds.
"""

import time
from dataclasses import dataclass, field
from threading import Lock

from laion_etl.dataset.versions import Release, versions_name
from laion_etl.io.storage import Store
from laion_etl.search.layout import index_stats
from laion_etl.search.published_rows import find_published
from laion_etl.search.query import SearchIndex, open_index
from laion_etl.settings import Settings

CHECK_S = 2.0

_State = tuple[str | None, str | None]


@dataclass
class CurrentIndex:
    """The index of a version of a dataset; without a version, of the current one.

    `get` raises like `open_index` while the version has no index.
    """

    dataset: str
    version: str
    settings: Settings
    store: Store
    check_s: float = CHECK_S
    _index: SearchIndex | None = None
    _state: _State = (None, None)
    _checked: float = 0.0
    _lock: Lock = field(default_factory=Lock)

    def get(self) -> SearchIndex:
        """Return the index; its parts are opened again only after a change."""
        with self._lock:
            now = time.monotonic()
            if self._index is None or now - self._checked >= self.check_s:
                self._refresh()
                self._checked = now
            if self._index is None:
                raise AssertionError("it was opened, or an error was raised")
            return self._index

    def _refresh(self) -> None:
        if self._index is not None and self._read_state(self._index.release) == self._state:
            return
        self._index = None  # what it has may have been removed: never a fallback
        published = find_published(self.dataset, self.version, self.store)
        state = self._read_state(published.release)
        self._index = open_index(published, self.settings, self.store)
        self._state = state

    def _read_state(self, release: Release) -> _State:
        found = [
            self.store.read_with_etag(name) for name in (versions_name(self.dataset), index_stats(release))
        ]
        versions, index = (one[1] if one else None for one in found)
        return versions, index
