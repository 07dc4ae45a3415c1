"""One built mini crawl and one running web server for the tests of this folder."""

from collections.abc import Iterator

import pytest

from laion_etl.minicrawl.build import MiniCrawl, build_minicrawl
from laion_etl.minicrawl.web import MiniWeb


@pytest.fixture(scope="session")
def minicrawl(tmp_path_factory: pytest.TempPathFactory) -> MiniCrawl:
    return build_minicrawl(tmp_path_factory.mktemp("minicrawl"))


@pytest.fixture(scope="session")
def miniweb(minicrawl: MiniCrawl) -> Iterator[MiniWeb]:
    with MiniWeb(minicrawl) as web:
        yield web
