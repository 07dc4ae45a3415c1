"""The dashboard in Airflow's UI: a menu page for all crawls, and a page of its crawl on each DAG and run."""

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from airflow.configuration import conf
from airflow.sdk.exceptions import AirflowNotFoundException

from laion_etl.airflow.connections import database_url
from laion_etl.core.errors import SettingsError
from laion_etl.settings import Settings, load_settings

_PREFIX = "/laion"
_ROOT = urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/") + "/"


def _app() -> Any:
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.models.resource_details import DagDetails
    from airflow.api_fastapi.core_api.security import GetUserDep

    from laion_etl.dashboard.app import AirflowPlace, dashboard_app
    from laion_etl.dashboard.data_sources import Sources

    async def viewer(user: GetUserDep) -> Callable[[str], bool]:
        """Answers 401 to requests without a login; shows a crawl to users who may read its DAG."""
        manager = get_auth_manager()
        return lambda crawl: manager.is_authorized_dag(
            method="GET", details=DagDetails(id=f"crawl_{crawl}"), user=user
        )

    return dashboard_app(Sources(load_settings, _database_url), viewer, AirflowPlace(_ROOT))


def _database_url(settings: Settings) -> str:
    """The database of the Airflow connection, if the settings name one."""
    try:
        return database_url(settings)
    except AirflowNotFoundException as error:
        raise SettingsError(str(error)) from error


class Apps:
    """The web application, for `fastapi_apps`.

    It is created on demand: tasks and scheduler also load plugins, and need no web server.
    """

    def __iter__(self) -> Iterator[dict[str, Any]]:
        yield {"app": _app(), "url_prefix": _PREFIX, "name": "laion_etl dashboard"}


def _view(name: str, route: str, href: str, destination: str, **more: str) -> dict[str, Any]:
    address = f"{_ROOT.rstrip('/')}{_PREFIX}{href}"
    return {"name": name, "href": address, "url_route": route, "destination": destination, **more}


VIEWS = (
    _view("Crawls", "laion", "/", "nav", category="browse"),
    _view("Crawl", "laion_dump", "/dag?dag={DAG_ID}", "dag"),
    _view("Crawl", "laion_run", "/dag?dag={DAG_ID}&run={RUN_ID}", "dag_run"),
)
