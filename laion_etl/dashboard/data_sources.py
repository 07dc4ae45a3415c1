"""The data sources of the dashboard: the configured store and database, reopened for each read."""

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
    """`load` returns the current settings, `url` their database, '' for the embedded one.

    Nothing is migrated or written: the role laion_reader is enough.
    """

    load: Callable[[], Settings]
    url: Callable[[Settings], str] = lambda settings: settings.core.first_url
    _embedded: ExitStack = field(default_factory=ExitStack)
    _embedded_url: str = ""
    _lock: Lock = field(default_factory=Lock)

    def store(self) -> Store:
        """Open the store. Raises SettingsError or StorageError."""
        return open_store(self.load().store_uri)

    def max_pixels(self) -> int:
        """Return the size limit of images that may be decoded."""
        return self.load().clip.max_pixels

    @contextmanager
    def database(self) -> Iterator[Database]:
        """Open a short-lived connection without retries: the page polls again in seconds."""
        settings = self.load()
        patience = replace(settings.database, retry_for_s=0.0, statement_timeout_s=_STATEMENT_TIMEOUT_S)
        database = Database(self.url(settings) or self._embedded_server(settings), patience)
        try:
            yield database
        finally:
            database.close()

    def close(self) -> None:
        """Release the embedded server, if it was used."""
        with self._lock:
            self._embedded.close()
            self._embedded_url = ""

    def _embedded_server(self, settings: Settings) -> str:
        with self._lock:
            if not self._embedded_url:
                self._embedded_url = self._embedded.enter_context(database_url(settings))
            return self._embedded_url
