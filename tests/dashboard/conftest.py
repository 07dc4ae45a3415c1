"""A crawl in progress, shared by all tests of the dashboard, and its pages as seen by an HTTP client."""

from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
from fastapi import Header, HTTPException
from fastapi.testclient import TestClient

from laion_etl.dashboard.app import dashboard_app
from laion_etl.dashboard.data_sources import Sources
from laion_etl.database.embedded import EmbeddedServer
from laion_etl.settings import CoreSettings, Settings
from tests.dashboard.world import write_crawl


@pytest.fixture(scope="package")
def crawl_settings(postgres: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of a store and a database with a crawl in progress."""
    url = postgres.url(f"test_{uuid4().hex}")
    settings = Settings(core=CoreSettings(data_dir=str(tmp_path_factory.mktemp("crawl")), database_url=url))
    write_crawl(settings)
    return settings


def named_viewer(user: str = Header("")) -> Callable[[str], bool]:
    """A viewer: requests without a name are refused; the user 'guest' may not see any crawl."""
    if not user:
        raise HTTPException(401, "Not authenticated")
    return lambda _: user != "guest"


def open_client(settings: Settings) -> TestClient:
    app = dashboard_app(Sources(lambda: settings), named_viewer)
    return TestClient(app, headers={"user": "operator"}, raise_server_exceptions=False)


@pytest.fixture(scope="package")
def client(crawl_settings: Settings) -> Iterator[TestClient]:
    with open_client(crawl_settings) as client:
        yield client
