"""A dump at work, once for all tests of the dashboard, and its pages as an HTTP client sees them."""

from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
from fastapi import Header, HTTPException
from fastapi.testclient import TestClient

from laion_etl.dashboard.app import dashboard_app
from laion_etl.dashboard.data_sources import Sources
from laion_etl.database.embedded import EmbeddedServer
from laion_etl.settings import CoreSettings, Settings
from tests.dashboard.world import write_dump


@pytest.fixture(scope="package")
def dump(postgres: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of a store and a database with a dump at work."""
    url = postgres.url(f"test_{uuid4().hex}")
    settings = Settings(core=CoreSettings(data_dir=str(tmp_path_factory.mktemp("dump")), database_url=url))
    write_dump(settings)
    return settings


def somebody(user: str = Header("")) -> Callable[[str], bool]:
    """Who sends no name is a stranger; 'guest' may see no dump."""
    if not user:
        raise HTTPException(401, "Not authenticated")
    return lambda _: user != "guest"


def client_of(settings: Settings) -> TestClient:
    app = dashboard_app(Sources(lambda: settings), somebody)
    return TestClient(app, headers={"user": "operator"}, raise_server_exceptions=False)


@pytest.fixture(scope="package")
def client(dump: Settings) -> Iterator[TestClient]:
    with client_of(dump) as client:
        yield client
