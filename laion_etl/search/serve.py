"""Serves the search page on this machine until Ctrl-C."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import uvicorn
from rich.console import Console

from laion_etl.core.errors import SettingsError
from laion_etl.io.storage import Store
from laion_etl.score.model import load_model
from laion_etl.search.query import SearchIndex, check_model
from laion_etl.search.query_encoder import QueryEncoder
from laion_etl.search.web import SearchBackend, build_app
from laion_etl.settings import Settings

_HOST = "127.0.0.1"
_END_S = 2  # for requests in progress at shutdown


def serve(index: SearchIndex, settings: Settings, store: Store, port: int, console: Console) -> None:
    """Print the address and serve until Ctrl-C. Raises SettingsError if the port is in use."""
    with _bound(port) as listening, open_backend(index, settings, store) as found:
        console.print(f"{index.stats.unit}: {index.stats.kept:,} images", highlight=False)
        console.print(f"http://{_HOST}:{listening.getsockname()[1]}  (Ctrl-C ends it)", highlight=False)
        config = uvicorn.Config(
            build_app(found), log_level="warning", timeout_graceful_shutdown=_END_S, server_header=False
        )
        with suppress(KeyboardInterrupt):  # uvicorn raises it again when it is done
            uvicorn.Server(config).run(sockets=[listening])


@contextmanager
def open_backend(index: SearchIndex, settings: Settings, store: Store) -> Iterator[SearchBackend]:
    """Open an index together with the model for its queries."""
    model = load_model(settings.clip)
    check_model(index, model.name, model.weights_sha256)
    with QueryEncoder(model, settings) as encoder:
        yield SearchBackend(index, encoder, settings, store)


@contextmanager
def _bound(port: int) -> Iterator[socket.socket]:
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((_HOST, port))
            listening.listen()  # the printed address answers, if only when the server is ready
        except OSError as error:
            raise SettingsError(
                f"cannot bind port {port}: {error.strerror}; omit --port to use a free one"
            ) from error
        yield listening
