"""Where the dashboard looks: the store and the database of the settings, opened anew for each look."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from threading import Lock

from laion_etl.database.connection import Database, database_url
from laion_etl.io.storage import Store, open_store
from laion_etl.settings import Settings

_STATEMENT_TIMEOUT_S = 15.0


@dataclass(slots=True)
class Sources:
    """`load` gives the settings of now, `url` the database they mean, '' for the embedded one.

    Nothing is migrated or written: the role laion_reader is enough.
    """

    load: Callable[[], Settings]
    url: Callable[[Settings], str] = lambda settings: settings.core.database_url
    _embedded: ExitStack = field(default_factory=ExitStack)
    _embedded_url: str = ""
    _lock: Lock = field(default_factory=Lock)

    def store(self) -> Store:
        """The store; raises SettingsError or StorageError."""
        return open_store(self.load().store_uri)

    def max_pixels(self) -> int:
        """The largest image that may be decoded."""
        return self.load().clip.max_pixels

    @contextmanager
    def database(self) -> Iterator[Database]:
        """A connection for one look. A lost one is no reason to wait: the next look comes soon."""
        settings = self.load()
        patience = replace(settings.database, retry_for_s=0.0, statement_timeout_s=_STATEMENT_TIMEOUT_S)
        database = Database(self.url(settings) or self._embedded_server(settings), patience)
        try:
            yield database
        finally:
            database.close()

    def close(self) -> None:
        """Lets the embedded server go, if it was needed."""
        with self._lock:
            self._embedded.close()
            self._embedded_url = ""

    def _embedded_server(self, settings: Settings) -> str:
        with self._lock:
            if not self._embedded_url:
                self._embedded_url = self._embedded.enter_context(database_url(settings))
            return self._embedded_url
