"""Serves the dashboard without Airflow, on loopback, for all users of this machine."""

import socket
from collections.abc import Callable
from typing import Annotated

import uvicorn
from fastapi import Header, HTTPException
from rich.console import Console

from laion_etl.core.errors import SettingsError
from laion_etl.dashboard.app import dashboard_app
from laion_etl.dashboard.data_sources import Sources
from laion_etl.settings import load_settings

_LOOPBACK = ("127.0.0.1", "localhost")


def serve(port: int, console: Console) -> None:
    """Serve until Ctrl-C or SIGTERM. Raises SettingsError if the port is in use."""
    load_settings()
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
            listener.listen()  # the printed address answers, if only when the server is ready
        except OSError as error:
            raise SettingsError(
                f"cannot bind port {port}: {error}; choose another one with --port"
            ) from error
        console.print(f"dashboard: http://127.0.0.1:{listener.getsockname()[1]}/", highlight=False)
        app = dashboard_app(Sources(load_settings), local_viewer)
        uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[listener])


def local_viewer(host: Annotated[str, Header()] = "") -> Callable[[str], bool]:
    """Allow users of this machine, but not a web page whose host name resolves to it (DNS rebinding)."""
    if host.rpartition(":")[0] not in _LOOPBACK:
        raise HTTPException(421, "this dashboard is served as 127.0.0.1 only")
    return lambda _: True
