"""Real parts for the tests: a Postgres server, an S3 API, stores, and the folder of shared real data."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import boto3
import hypothesis
import psycopg
import pytest
from moto.server import ThreadedMotoServer
from playwright.sync_api import Browser, sync_playwright
from psycopg import Connection

from laion_etl import storage
from laion_etl.database.connect import Database, open_database
from laion_etl.database.embedded import EmbeddedServer, running_server
from laion_etl.minicrawl.build import MiniCrawl, build_minicrawl
from laion_etl.minicrawl.web import MiniWeb
from laion_etl.settings import CoreSettings, Settings
from laion_etl.storage import LocalStore, Store, open_store
from tests.runs import finish_run, run_environment

# The models of the tests are tiny: beside other work a second thread only waits for a core, at full speed.
# torch reads this when it is imported, also in the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The first example of a test may have to compile the kernels it uses.
hypothesis.settings.register_profile("laion_etl", deadline=None)
hypothesis.settings.load_profile("laion_etl")

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def no_settings_of_the_developer() -> None:
    """The machine's own LAION_ETL_* must not change what the tests see."""
    for name in [name for name in os.environ if name.startswith("LAION_ETL_")]:
        del os.environ[name]


@pytest.fixture
def shared_data() -> Path:
    """Real inputs kept beside the project; absent in most checkouts."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the folder of real inputs beside the project is not here")
    return SHARED_DATA


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return LocalStore(tmp_path / "store")


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """moto's server on loopback; the environment points boto3 to it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    values = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        storage.s3_client.cache_clear()
        storage.s3_reader.cache_clear()
        yield values["AWS_ENDPOINT_URL"]
        storage.s3_client.cache_clear()
        storage.s3_reader.cache_clear()
    server.stop()


@pytest.fixture
def s3_store(s3_endpoint: str) -> Store:
    bucket = f"test-{uuid4().hex}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    return open_store(f"s3://{bucket}/laion")


@pytest.fixture(params=["local", "s3"])
def any_store(request: pytest.FixtureRequest) -> Store:
    """The same test on a folder and on S3."""
    fixture = {"local": "store", "s3": "s3_store"}[request.param]
    return request.getfixturevalue(fixture)


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedServer]:
    """One embedded server for the session, in a short path (Unix socket names are limited)."""
    with (
        tempfile.TemporaryDirectory(prefix="laion-pg-", dir="/tmp") as folder,
        running_server(Path(folder)) as server,
    ):
        # Dozens of short-lived databases: nothing here needs to survive a power cut.
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            connection.execute("alter system set fsync = off")
            connection.execute("select pg_reload_conf()")
        yield server


@pytest.fixture
def settings(postgres: EmbeddedServer, tmp_path: Path) -> Settings:
    """Settings with a database of the test's own."""
    url = postgres.url(f"test_{uuid4().hex}")
    return Settings(core=CoreSettings(data_dir=str(tmp_path), database_url=url))


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    with open_database(settings) as database:
        yield database


@pytest.fixture
def connection(database: Database) -> Connection:
    """For a look behind the scenes."""
    return database.connection


@pytest.fixture(scope="session")
def minicrawl(tmp_path_factory: pytest.TempPathFactory) -> MiniCrawl:
    return build_minicrawl(tmp_path_factory.mktemp("minicrawl"))


@pytest.fixture(scope="session")
def miniweb(minicrawl: MiniCrawl) -> Iterator[MiniWeb]:
    with MiniWeb(minicrawl) as web:
        yield web


@pytest.fixture(scope="session")
def undisturbed_run(
    tmp_path_factory: pytest.TempPathFactory, postgres: EmbeddedServer, minicrawl: MiniCrawl, miniweb: MiniWeb
) -> Path:
    """The store of a run of two WAT files that nothing disturbed: what disturbed ones must come to, too."""
    store = tmp_path_factory.mktemp("undisturbed")
    url = postgres.url(f"undisturbed_{uuid4().hex}")
    finish_run(minicrawl.crawl, run_environment(store, url, miniweb))
    return store


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium, the machine's own."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()
