"""Serves the search page on this machine until Ctrl-C."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from rich.console import Console

from laion_etl.core.quantities import quantity
from laion_etl.io.local_server import LocalServer, listening
from laion_etl.io.storage import Store
from laion_etl.score.model import load_model
from laion_etl.search.current_index import CurrentIndex
from laion_etl.search.query import check_model
from laion_etl.search.query_encoder import QueryEncoder
from laion_etl.search.web import SearchBackend, build_app
from laion_etl.settings import Settings


def serve(source: CurrentIndex, settings: Settings, store: Store, port: int, console: Console) -> None:
    """Print the address and serve until Ctrl-C. Raises SettingsError if the port is in use."""
    with listening(port) as made, ExitStack() as stack:
        console.print(f"loading the model {settings.clip.model} ...", highlight=False, markup=False)
        found = stack.enter_context(open_backend(source, settings, store))
        stats = source.get().stats
        server = LocalServer(build_app(found), made)
        console.print(f"{stats.unit}: {quantity(stats.kept, 'image')}", highlight=False)
        console.print(f"{server.address}  (Ctrl-C ends it)", highlight=False, soft_wrap=True)
        with suppress(KeyboardInterrupt):  # uvicorn raises it again when it is done
            server.run()


@contextmanager
def open_backend(source: CurrentIndex, settings: Settings, store: Store) -> Iterator[SearchBackend]:
    """Open the model for the queries of an index."""
    model = load_model(settings.clip)
    check_model(source.get(), model.name, model.weights_sha256)
    with QueryEncoder(model, settings) as encoder:
        yield SearchBackend(source, encoder, settings, store)
