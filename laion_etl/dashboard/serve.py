"""Serves the dashboard without Airflow, on loopback, for the user who started it."""

from collections.abc import Callable

from rich.console import Console

from laion_etl.dashboard.app import dashboard_app
from laion_etl.dashboard.data_sources import Sources
from laion_etl.io.local_server import LocalServer, listening
from laion_etl.settings import load_settings


def serve(port: int, console: Console) -> None:
    """Serve until Ctrl-C or SIGTERM. Raises SettingsError if the port is in use."""
    load_settings()
    with listening(port) as made:
        server = LocalServer(dashboard_app(Sources(load_settings), local_viewer), made)
        console.print(f"dashboard: {server.address}", highlight=False, soft_wrap=True)
        server.run()


def local_viewer() -> Callable[[str], bool]:
    """Allow everything: LocalServer lets in only the user who has its address."""
    return lambda _: True
