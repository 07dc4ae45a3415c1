"""Real parts for the tests: a Postgres server, an S3 API, stores, and the folder of shared real data."""

import gc
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import hypothesis
import pytest
from moto.server import ThreadedMotoServer
from playwright.sync_api import Browser, sync_playwright
from psycopg import Connection

from laion_etl.core.programs import python_module
from laion_etl.database.connection import Database, open_database
from laion_etl.database.embedded import EmbeddedServer
from laion_etl.download import decoders
from laion_etl.io import storage
from laion_etl.io.storage import LocalStore, Store, open_store
from laion_etl.minicrawl.build import MiniCrawl, build_minicrawl
from laion_etl.minicrawl.web import MiniWeb
from laion_etl.score import preparer
from laion_etl.settings import CoreSettings, Settings
from tests.database.templates import copied, freeze
from tests.forked_command import installed
from tests.preloaded_commands import command_server
from tests.preloaded_confined import ConfinedProgram
from tests.prompt_web import PromptWeb
from tests.runs import FinishedRun, finish_run, run_environment
from tests.scheduling import Scheduling, rank
from tests.shared_folder import FirstProcess, SharedFolder, shared_folder

# The models of the tests are tiny: beside other work a second thread only waits for a core, at full speed.
# torch reads this when it is imported, also in the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Each run tries the same examples, however slowly they are made: the first one of a test may have to compile
# the kernels it uses. New examples are tried by --hypothesis-profile random.
slow = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
hypothesis.settings.register_profile("random", **slow, print_blob=True)
hypothesis.settings.register_profile("laion_etl", **slow, derandomize=True)
hypothesis.settings.load_profile("laion_etl")

# For a hang. A machine that does much else takes minutes for what Airflow does in seconds.
AIRFLOW_TIMEOUT_S = 1_800

CONFINED = {
    preparer: "laion_etl.score.preprocess_worker",
    decoders: "laion_etl.download.decoder_process",
}

# Chromium's address bar of each page is two pages of its own, in processes that take a third of the
# CPU time of a test's page. No test types into it.
CHROMIUM = ("--no-sandbox", "--disable-gpu", "--disable-features=WebUIOmniboxPopup,WebUIOmniboxAimPopup")

HERE = Path(__file__).parent.resolve()
SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.hookimpl(tryfirst=True)  # before pytest chooses the place for `tmp_path`
def pytest_configure(config: Any) -> None:
    if not hasattr(config, "workerinput"):
        config.first_process = FirstProcess()
        config.option.basetemp = config.option.basetemp or config.first_process.temporary_files


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """pytest-xdist's: before a worker starts."""
    node.workerinput["shared_folder"] = str(shared_folder(node.config).folder)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: Any, log: Any) -> Any:
    """pytest-xdist's, for --dist loadfile."""
    return Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """Collects without a look for garbage: all modules and tests stay, and none is looked at again later.

    A worker first compiles its share of all files: in a new checkout each worker would compile all of them.
    """
    gc.disable()
    worker = getattr(session.config, "workerinput", None)
    if worker is not None and [Path(name).resolve() for name in session.config.args] == [HERE]:
        names = sorted(".".join(path.relative_to(HERE.parent).parts) for path in HERE.rglob("test_*.py"))
        for name in names[int(worker["workerid"].removeprefix("gw")) :: worker["workercount"]]:
            with suppress(Exception):  # which the collection raises again, and reports
                import_module(name.removesuffix(".py"))
    yield
    gc.freeze()
    gc.enable()


def pytest_unconfigure(config: Any) -> None:
    if first := getattr(config, "first_process", None):
        first.end()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        assert isinstance(item, pytest.Function)
        fixtures = set(item.fixturenames)
        if "browser" in fixtures:
            item.add_marker("browser")
        if "postgres" in fixtures or "s3_endpoint" in fixtures or _on_s3(item):
            item.add_marker("service")
        if item.get_closest_marker("airflow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(AIRFLOW_TIMEOUT_S))
    items.sort(key=rank)


def _on_s3(item: pytest.Function) -> bool:
    """Whether `any_store` is one on S3 for it."""
    return hasattr(item, "callspec") and item.callspec.params.get("any_store") == "s3"


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
def shared(request: pytest.FixtureRequest) -> SharedFolder:
    """What all workers of this run share."""
    return shared_folder(request.config)


@pytest.fixture(scope="session")
def postgres(shared: SharedFolder) -> EmbeddedServer:
    """One embedded server for the run."""

    def start(folder: Path) -> EmbeddedServer:
        place = shared.start_server("tests.database.server", folder, "--short-lived")
        return EmbeddedServer(Path(place))

    return shared.once("pg", start)


@pytest.fixture(scope="session")
def migrated_template(shared: SharedFolder, postgres: EmbeddedServer) -> str:
    """A database with our tables and nothing in them, to be copied: that is faster than to migrate one."""

    def migrated(_: Path) -> str:
        name = "laion_template"
        with open_database(Settings(core=CoreSettings(database_url=postgres.url(name)))):
            pass
        freeze(postgres, name)
        return name

    return shared.once("laion_template", migrated)


@pytest.fixture
def settings(postgres: EmbeddedServer, migrated_template: str, tmp_path: Path) -> Settings:
    """Settings with a database of the test's own."""
    url = copied(postgres, migrated_template, f"test_{uuid4().hex}")
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
def minicrawl(shared: SharedFolder) -> MiniCrawl:
    """Built, and its images drawn, once."""

    def build(folder: Path) -> MiniCrawl:
        crawl = build_minicrawl(folder)
        with MiniWeb(crawl):
            return crawl

    return shared.once("minicrawl", build)


@pytest.fixture(scope="session")
def miniweb(minicrawl: MiniCrawl) -> Iterator[MiniWeb]:
    with PromptWeb(minicrawl) as web:
        yield web


@pytest.fixture(scope="session")
def finished_run(
    shared: SharedFolder, postgres: EmbeddedServer, minicrawl: MiniCrawl, miniweb: MiniWeb
) -> FinishedRun:
    """A run of two WAT files that nothing disturbed; store and database are to be copied, not changed."""

    def run(store: Path) -> FinishedRun:
        database = f"undisturbed_{uuid4().hex}"
        settings = run_environment(store, postgres.url(database), str(minicrawl.folder), miniweb.connect_to)
        finish_run(minicrawl.crawl, settings)
        freeze(postgres, database)
        return FinishedRun(store, database)

    return shared.once("undisturbed", run)


@pytest.fixture(scope="session", autouse=True)
def forked_processes(shared: SharedFolder) -> Iterator[None]:
    """Preparers and decoders are forks, too."""
    with pytest.MonkeyPatch.context() as patch:
        for module, program in CONFINED.items():
            patch.setattr(module, "PROGRAM", ConfinedProgram(shared, program))
        yield


@pytest.fixture
def real_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Preparers and decoders are new processes, as users have them: for tests of these."""
    for module, program in CONFINED.items():
        monkeypatch.setattr(module, "PROGRAM", python_module(program))


@pytest.fixture(scope="session")
def undisturbed_run(finished_run: FinishedRun) -> Path:
    """The store of `finished_run`: what disturbed runs must come to, too."""
    return finished_run.store


@pytest.fixture
def forked_scoring(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shared: SharedFolder) -> None:
    """Processes that score are forks of one that has imported torch: each would do so for five seconds."""
    from laion_etl.score import multi_gpu

    assert python_module("laion_etl") == multi_gpu.PROGRAM
    program = installed(tmp_path / "bin", command_server(shared, os.environ))
    monkeypatch.setattr(multi_gpu, "PROGRAM", (str(program),))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium, the machine's own."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM)
        yield browser
        browser.close()
