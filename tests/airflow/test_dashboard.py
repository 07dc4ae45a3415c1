"""The dashboard inside Airflow's UI, as a user sees it: a real API server, a real Chromium."""

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
import urllib3
from playwright.sync_api import Browser, BrowserContext, FrameLocator, Page, expect

from laion_etl.database.embedded import EmbeddedServer
from laion_etl.demo.airflow import environment, reserved_port
from laion_etl.demo.login import Login, new_login
from laion_etl.settings import CoreSettings, Settings
from tests.airflow.components import Components
from tests.airflow.conftest import ROOT, Airflow, write_catalogue
from tests.airflow.started import LONGEST_S, component_arguments
from tests.airflow.test_failed_partition import CONF, RUN
from tests.dashboard.world import write_crawl
from tests.publish.world import CRAWL

pytestmark = pytest.mark.airflow

DAG = f"crawl_{CRAWL}"
WAIT_MS = 1_000 * LONGEST_S  # for a hang
expect.set_options(timeout=WAIT_MS)
# Chromium warns of every frame that may run scripts and has the page's origin; Airflow makes it so.
SANDBOX = "An iframe which has both allow-scripts and allow-same-origin"
REPORT_VIOLATIONS = """
addEventListener("securitypolicyviolation", (event) => console.error("CSP: " + event.violatedDirective));
"""


@dataclass(frozen=True)
class Server:
    """An API server with a run whose partition 1 failed, and a user."""

    url: str
    token: str
    run: str

    def get(self, path: str, token: str = "") -> urllib3.BaseHTTPResponse:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return urllib3.request("GET", self.url + path, headers=headers, retries=False, timeout=LONGEST_S)

    def states(self) -> dict[tuple[str, int], str | None]:
        path = f"/api/v2/dags/{DAG}/dagRuns/{quote(self.run)}/taskInstances?limit=100"
        tasks = self.get(path, self.token).json()["task_instances"]
        return {(task["task_id"], task["map_index"]): task["state"] for task in tasks}


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with reserved_port() as port:
        yield port


@pytest.fixture(scope="module")
def server(
    migrated_airflow: Airflow,
    postgres: EmbeddedServer,
    tmp_path_factory: pytest.TempPathFactory,
    port: int,
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("dashboard")
    database = postgres.url(f"test_{uuid4().hex}")
    write_crawl(Settings(core=CoreSettings(data_dir=str(folder), database_url=database)))
    login = new_login(folder)
    metadata = migrated_airflow.environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
    variables = {
        **migrated_airflow.environment,
        **environment(folder, metadata, port, ROOT, login),
        "LAION_ETL_CATALOGUE": str(write_catalogue(folder / "catalogue.json", [CRAWL])),
        "LAION_ETL_DATA_DIR": str(folder),
        "LAION_ETL_DATABASE_URL": database,
    }
    airflow = migrated_airflow.with_settings(**variables)
    with Components(airflow.server, variables, folder) as components:
        components.start("api-server", component_arguments(port)["api-server"])
        run = airflow.python(RUN.replace("CC-MAIN-2024-42", CRAWL), "[1]", json.dumps(CONF))
        assert run["state"] == "failed"
        yield _signed_in(f"http://127.0.0.1:{port}", login, components)


def _signed_in(url: str, login: Login, components: Components) -> Server:
    """Once the server is up."""
    user = {"username": login.user, "password": login.password}
    answer = None
    while answer is None:
        components.check()
        with suppress(urllib3.exceptions.HTTPError):
            answer = urllib3.request("POST", f"{url}/auth/token", json=user, retries=False, timeout=LONGEST_S)
        time.sleep(0.5)
    token = str(answer.json()["access_token"])
    runs = Server(url, token, "").get(f"/api/v2/dags/{DAG}/dagRuns", token).json()["dag_runs"]
    return Server(url, token, str(runs[0]["dag_run_id"]))


def opened(browser: Browser, server: Server, theme: str, complaints: list[str], **more: Any) -> Page:
    """A page of a signed-in user whose Airflow has a theme; errors in its console are collected."""
    context: BrowserContext = browser.new_context(**more)
    context.set_default_timeout(WAIT_MS)
    context.add_cookies([{"name": "_token", "value": server.token, "url": server.url}])
    context.add_init_script(f"localStorage.setItem('theme', '{theme}'); {REPORT_VIOLATIONS}")
    page = context.new_page()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console",
        lambda message: (
            complaints.append(message.text)
            if message.type in ("error", "warning") and not message.text.startswith(SANDBOX)
            else None
        ),
    )
    return page


def test_strangers_see_nothing(server: Server) -> None:
    for path in ("/laion/", f"/laion/crawl/{CRAWL}", "/laion/api/overview", f"/laion/api/crawl/{CRAWL}"):
        assert server.get(path).status == 401
        assert server.get(path, "forged").status in (401, 403)
        assert server.get(path, server.token).status in (200, 202)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_failed_partition_is_found_from_the_menu(server: Server, browser: Browser, theme: str) -> None:
    complaints: list[str] = []
    page = opened(browser, server, theme, complaints, color_scheme="light")
    page.goto(f"{server.url}/plugin/laion")
    frame = page.frame_locator("iframe")
    frame.get_by_role("link", name=CRAWL).click()

    cell = frame.get_by_role("button", name="partition 1: parse failed")
    expect(cell).to_have_class("cell k-failed")
    expect(frame.locator("html")).to_have_attribute("data-theme", theme)
    cell.click()
    panel = frame.locator("#panel")
    expect(panel.get_by_role("heading", name="Partition 1", exact=True)).to_be_visible()
    expect(panel.locator(".error")).to_contain_text("damaged")
    expect(panel.locator(".tasks")).to_contain_text("upstream failed")
    frame.locator("body").press("Escape")
    expect(panel).to_be_hidden()
    expect(cell).to_be_focused()
    cell.press("ArrowRight")
    expect(frame.get_by_role("button", name="partition 2: loaded")).to_be_focused()
    _samples_are_images(frame)
    expect(frame.locator("#failures")).to_contain_text("<img src=x onerror=")  # text, not an element
    assert page.title() != "owned"
    assert complaints == []
    page.context.close()


def _samples_are_images(frame: FrameLocator) -> None:
    frame.get_by_role("button", name="Show samples").click()
    image = frame.locator("#samples img").first
    image.scroll_into_view_if_needed()
    expect(image).to_have_js_property("naturalWidth", 128)


def test_it_is_a_tab_of_the_dag_and_leads_to_the_log(server: Server, browser: Browser) -> None:
    complaints: list[str] = []
    page = opened(browser, server, "light", complaints, viewport={"width": 1280, "height": 900})
    page.goto(f"{server.url}/dags/{DAG}/runs/{quote(server.run, safe='')}/plugin/laion_run")
    frame = page.frame_locator("iframe")
    expect(frame.locator("#run select")).to_have_value(server.run)
    frame.get_by_role("button", name="partition 1: parse failed").click()
    frame.locator("#panel").get_by_role("link", name="log and task").first.click()
    page.wait_for_url("**/tasks/partition.parse/mapped/1**")
    assert complaints == []
    page.context.close()


def test_on_a_phone_nothing_is_wider_than_the_screen(server: Server, browser: Browser) -> None:
    page = opened(browser, server, "light", [], viewport={"width": 360, "height": 740})
    page.goto(f"{server.url}/laion/crawl/{CRAWL}")
    page.get_by_role("button", name="partition 1: parse failed").click()
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    page.context.close()


def test_a_retry_says_what_runs_again_and_clears_it(server: Server, browser: Browser) -> None:
    page = opened(browser, server, "light", [])
    page.goto(f"{server.url}/laion/crawl/{CRAWL}")
    page.get_by_role("button", name="partition 1: parse failed").click()
    panel = page.locator("#panel")
    panel.get_by_role("button", name="Retry").click()
    expect(panel).to_contain_text("Runs again: ")
    before = server.states()
    assert before["partition.parse", 1] == "failed"  # asking has changed nothing
    panel.get_by_role("button", name="Clear").click()
    expect(panel).to_contain_text("to be run again")

    after = server.states()
    cleared = {task for task, state in after.items() if state != before[task]}
    assert cleared == {
        ("partition.parse", 1),
        ("partition.load", 1),
        *((task, -1) for task in ("plan", "plan_range", "workers", "score_workers", "shards", "publish")),
        *((task, -1) for task in ("publish_range", "publish_finish", "digest", "verdict")),
        *((task, index) for task, index in before if task in ("download", "score")),
    }
    page.context.close()
