"""Airflow's own forms and grid, as an operator uses them: a whole Airflow, a real Chromium.

The parameters of a run, and its outcome, are read from the REST API.
"""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import urllib3
from playwright.sync_api import Browser, Locator, Page, expect

from laion_etl.crawl import released
from tests.airflow.shared import SharedAirflow
from tests.airflow.started import LONGEST_S, until

pytestmark = [pytest.mark.airflow, pytest.mark.browser]

MONTHLY = "new_crawls"
WAIT_MS = 1_000 * LONGEST_S
expect.set_options(timeout=WAIT_MS)


@pytest.fixture(scope="module")
def page(shared_airflow: SharedAirflow, browser: Browser) -> Iterator[Page]:
    """Of a user who opened a crawl's page, was asked to log in, and was led back there."""
    api, address = shared_airflow.api, shared_airflow.api.page(shared_airflow.mended.dag)
    context = browser.new_context(viewport={"width": 1400, "height": 1100})
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    page.goto(address)
    page.locator("input[name=username]").fill(api.login.user)
    page.locator("input[name=password]").fill(api.login.password)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(address)
    yield page
    context.close()


@pytest.fixture(scope="module")
def run(shared_airflow: SharedAirflow, page: Page) -> str:
    """A run started by the Trigger form as it opens; it fails, because the crawl's WAT files are missing."""
    for file in shared_airflow.mended.wat_files:
        file.rename(set_aside(file))
    return triggered(page, shared_airflow, shared_airflow.mended.dag)


def set_aside(wat_file: Path) -> Path:
    return wat_file.with_suffix(".missing")


def opened_form(page: Page, shared: SharedAirflow, dag: str) -> Locator:
    """The Trigger form of a DAG, once the sections of its parameters are there."""
    page.goto(shared.api.page(dag))
    page.get_by_test_id("trigger-dag-button").click()
    form = page.get_by_role("dialog").first
    expect(sections(form).nth(1)).to_be_visible()  # one section, Airflow's own, is always there
    return form


def sections(form: Locator) -> Locator:
    return form.locator("[data-part=item-trigger]")


def triggered(page: Page, shared: SharedAirflow, dag: str) -> str:
    """The run that one press of the Trigger button starts; Airflow leads to its page."""
    opened_form(page, shared, dag).get_by_test_id("trigger-dag-submit").click()
    page.wait_for_url(f"**/dags/{dag}/runs/**")
    return unquote(urlsplit(page.url).path.split("/runs/")[1].split("/")[0])


def picked(page: Page, form: Locator, number: int, day: str) -> None:
    """Types a day into the first or second date of the backfill form."""
    form.get_by_test_id("datetime-input").nth(number).click()
    field = page.get_by_placeholder("YYYY/MM/DD")
    field.fill(day)
    field.press("Enter")
    field.press("Escape")
    expect(field).to_have_count(0)


def test_the_list_of_dags_says_in_a_line_what_each_is(shared_airflow: SharedAirflow, page: Page) -> None:
    page.goto(f"{shared_airflow.api.url}/dags")
    names = page.get_by_test_id("dag-id")
    for crawl in (shared_airflow.mended, shared_airflow.backfilled, shared_airflow.recent):
        expect(names.filter(has_text=f"{crawl.id}: image-text dataset")).to_be_visible()
    expect(names.filter(has_text="New crawls: found and started monthly")).to_be_visible()


@pytest.mark.parametrize("which", ["crawl", "monthly"])
def test_a_form_has_nothing_to_correct_when_it_opens(
    shared_airflow: SharedAirflow, page: Page, which: str
) -> None:
    dag = {"crawl": shared_airflow.mended.dag, "monthly": MONTHLY}[which]
    form = opened_form(page, shared_airflow, dag)

    for section in sections(form).all():
        expect(section.locator("svg")).to_have_count(1)  # its arrow; a second one marks an error
    expect(form.locator("[data-invalid], [aria-invalid=true]")).to_have_count(0)
    expect(form.get_by_test_id("trigger-dag-submit")).to_be_enabled()


def test_trigger_starts_a_run_of_all_wat_files(shared_airflow: SharedAirflow, page: Page, run: str) -> None:
    crawl = shared_airflow.mended
    [started] = shared_airflow.runs(crawl.dag)
    assert (started["dag_run_id"], started["run_type"]) == (run, "manual")
    assert started["conf"]["wat_files"] is None

    def partitions() -> set[int]:
        return {index for task, index in shared_airflow.tasks(crawl.dag, run) if task == "partition.parse"}

    page.goto("about:blank")
    until(lambda: partitions() != {-1} and partitions(), "the partitions")
    assert partitions() == set(range(len(crawl.wat_files)))


def test_a_failed_partition_is_cleared_from_the_grid_and_runs_again(
    shared_airflow: SharedAirflow, run: str, page: Page
) -> None:
    dag = shared_airflow.mended.dag
    # Airflow clears no task of which one downstream is at work.
    page.goto("about:blank")  # the grid refreshes itself all the time, which takes half a core
    assert shared_airflow.started.ended(dag, run) == "failed"
    for file in shared_airflow.mended.wat_files:
        set_aside(file).rename(file)

    page.goto(shared_airflow.api.page(dag))
    page.get_by_test_id("expand-all-button").click()
    page.locator(f"[id='grid-{run}-partition.parse']").click()
    page.mouse.move(0, 0)  # away from the cell, whose tooltip lies over the list
    row = page.get_by_role("row").filter(has_text="partition 0")
    expect(row).to_contain_text("Failed")
    row.get_by_role("button", name="Clear Task Instance").click()
    dialog = page.get_by_role("dialog")
    for cleared in ("partition.parse", "partition.load", "plan", "publish", "verdict"):  # with downstream
        expect(dialog.get_by_role("cell", name=cleared, exact=True)).to_have_count(1)
    dialog.get_by_role("button", name="Confirm").click()

    def states() -> list[str | None]:
        tasks = shared_airflow.tasks(dag, run)
        return [tasks[f"partition.{stage}", number].state for stage in ("parse", "load") for number in (0, 1)]

    until(lambda: states()[2] == "success", "the load of the fixed partition")
    assert states() == ["success", "failed", "success", "upstream_failed"]  # the other one is not cleared
    expect(row).to_contain_text("Success")
    page.goto("about:blank")
    shared_airflow.end(dag, run)


def test_the_monthly_dag_starts_the_new_crawl_with_all_wat_files(
    shared_airflow: SharedAirflow, page: Page
) -> None:
    crawl = shared_airflow.recent
    run = triggered(page, shared_airflow, MONTHLY)
    page.goto("about:blank")
    try:
        assert shared_airflow.started.ended(MONTHLY, run) == "success"
        [started] = until(lambda: shared_airflow.runs(crawl.dag), f"a run of {crawl.id}")
        assert started["conf"].get("wat_files") is None
        shared_airflow.end(crawl.dag, started["dag_run_id"])
    finally:
        shared_airflow.pause(MONTHLY)  # as it was


def test_a_backfill_over_its_release_date_runs_a_crawl(shared_airflow: SharedAirflow, page: Page) -> None:
    crawl, day = shared_airflow.backfilled, released(shared_airflow.backfilled.id)
    form = opened_form(page, shared_airflow, crawl.dag)
    form.get_by_text("Backfill", exact=True).click()
    picked(page, form, 0, f"{day:%Y/%m}/01")
    picked(page, form, 1, f"{day:%Y/%m}/28")
    expect(form).to_contain_text("1 run will be triggered")
    form.get_by_role("button", name="Run Backfill").click()

    expect(page.locator("[id^='grid-backfill__'][id$='-discover']")).to_be_visible()
    page.goto("about:blank")
    [run] = shared_airflow.runs(crawl.dag)
    assert (run["run_type"], run["partition_key"]) == ("backfill", crawl.id)
    shared_airflow.end(crawl.dag, run["dag_run_id"])


def asked(shared: SharedAirflow, method: str, path: str, **request: object) -> urllib3.BaseHTTPResponse:
    return urllib3.request(
        method, shared.api.url + path, redirect=False, retries=False, timeout=LONGEST_S, **request
    )


def test_there_is_no_token_without_the_password(shared_airflow: SharedAirflow) -> None:
    user = shared_airflow.api.login.user
    for answer in (
        asked(shared_airflow, "GET", "/auth/token"),
        asked(shared_airflow, "GET", "/auth/token/login"),
        asked(shared_airflow, "POST", "/auth/token", json={}),
        asked(shared_airflow, "POST", "/auth/token", json={"username": user, "password": ""}),
        asked(shared_airflow, "POST", "/auth/token", json={"username": user, "password": "admin"}),
        asked(shared_airflow, "POST", "/auth/token/cli", json={"username": user, "password": "admin"}),
    ):
        assert answer.status in (400, 401, 403, 422)
        assert b"access_token" not in answer.data
        assert "Set-Cookie" not in answer.headers
    for path in ("/api/v2/dags", "/api/v2/connections", "/laion/"):
        assert asked(shared_airflow, "GET", path).status == 401


@pytest.mark.parametrize("path", ["/auth/token", "/api/v2/dags", "/execution/health", "/laion/", "/"])
def test_airflow_answers_at_its_own_address_only(shared_airflow: SharedAirflow, path: str) -> None:
    """With the right password, too."""
    login = shared_airflow.api.login
    user = {"username": login.user, "password": login.password}
    method, request = ("POST", {"json": user}) if path == "/auth/token" else ("GET", {})
    port = shared_airflow.api.url.rpartition(":")[2]
    for host in ("evil.example", f"evil.example:{port}"):
        assert asked(shared_airflow, method, path, headers={"Host": host}, **request).status == 400
    assert asked(shared_airflow, method, path, **request).status != 400
