"""Servers of this machine in a thread of the test."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.types import ASGIApp

from laion_etl.io.local_server import Limits, LocalServer, listening


@contextmanager
def served(app: ASGIApp, limits: Limits | None = None) -> Iterator[LocalServer]:
    """The application behind its token, on a free port."""
    with listening(0) as made:
        server = LocalServer(app, made, limits)
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            yield server
        finally:
            server.stop()
            thread.join()
