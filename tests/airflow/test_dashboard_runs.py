"""The runs on the dashboard, and their states, by Airflow's own REST API in a real Chromium."""

import json
import re
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
import urllib3
from playwright.sync_api import Browser, Page, Route, expect

from laion_etl.crawl import released
from tests.airflow.conftest import Airflow
from tests.airflow.started import LONGEST_S
from tests.airflow.test_dashboard import DAG, Server, opened, port, server
from tests.dashboard.world import FIRST_BATCH
from tests.publish.world import CRAWL

__all__ = ["port", "server"]
pytestmark = pytest.mark.airflow

UNSTARTED = "CC-MAIN-2024-46"


def post(server: Server, method: str, path: str, body: dict[str, Any]) -> Any:
    answer = urllib3.request(
        method,
        f"{server.url}/api/v2/{path}",
        json=body,
        headers={"Authorization": f"Bearer {server.token}"},
        retries=False,
        timeout=LONGEST_S,
    )
    assert answer.status < 300, answer.data
    return answer.json()


def triggered(server: Server, dag: str) -> str:
    key = dag.removeprefix("crawl_")
    body = {"logical_date": None, "partition_key": key, "conf": {}}
    return str(post(server, "POST", f"dags/{dag}/dagRuns", body)["dag_run_id"])


def begun_backfill(airflow: Airflow) -> str:
    """A backfill of the crawl, started as the scheduler starts it; its run_after lies in the past."""
    day = released(CRAWL)
    dates = ("--from-date", str(day - timedelta(days=1)), "--to-date", str(day + timedelta(days=1)))
    airflow.cli("backfill", "create", "--dag-id", DAG, *dates)
    url = airflow.environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("+psycopg2", "")
    with psycopg.connect(url) as connection:
        [(run,)] = connection.execute(
            "update dag_run set state = 'running', start_date = now() "
            "where dag_id = %s and run_type = 'backfill' returning run_id",
            [DAG],
        ).fetchall()
    return str(run)


def state_of(page: Page, crawl: str) -> Any:
    return page.locator("tr", has=page.get_by_role("link", name=crawl)).locator(".chip")


def test_a_failed_run_is_failed_in_the_list_also_before_it_had_data(server: Server, browser: Browser) -> None:
    run = triggered(server, f"crawl_{UNSTARTED}")
    post(server, "PATCH", f"dags/crawl_{UNSTARTED}/dagRuns/{quote(run)}", {"state": "failed"})
    page = opened(browser, server, "light", [])
    page.goto(f"{server.url}/laion/")
    expect(state_of(page, CRAWL)).to_have_text("failed")
    expect(state_of(page, UNSTARTED)).to_have_text("failed")
    page.context.close()


def test_what_a_retry_has_fixed_is_not_broken_and_the_rest_has_date_and_run(
    server: Server, browser: Browser
) -> None:
    def with_failures(route: Route) -> None:
        """Partition 2 has failed in this run by the store's records; by Airflow's it has succeeded since."""
        answer = route.fetch()
        if answer.status != 200:
            route.fulfill(response=answer)
            return
        document = answer.json()
        fixed, broken = (
            {
                "kind": "failed", "stage": stage, "reason": reason, "count": 1, "last_at": AT,
                "units": [{"unit": unit, "run": server.run, "task": task, "at": AT}],
            }
            for stage, reason, unit, task in (
                ("parse", "fixed meanwhile", "partition 2", "partition.parse_2"),
                ("parse", "cannot read: denied; ask for access", "partition 1", "partition.parse_1"),
            )
        )  # fmt: skip
        document["causes"] = [fixed, broken]
        route.fulfill(response=answer, body=json.dumps(document))

    page = opened(browser, server, "light", [])
    page.route(re.compile(rf"/laion/api/crawl/{CRAWL}$"), with_failures)
    page.goto(f"{server.url}/laion/crawl/{CRAWL}?run={quote(server.run, safe='')}")
    failures = page.locator("#failures")
    expect(failures.locator(".causes tbody tr")).to_have_count(1)
    expect(failures).to_contain_text("cannot read: denied; ask for access")
    expect(failures).to_contain_text("28 Nov 2026")
    expect(failures).to_contain_text("this run")
    page.context.close()


def test_a_cell_shows_the_number_of_a_batch_within_its_crawl(server: Server, browser: Browser) -> None:
    """All twelve digits do not fit; its name and its panel have them."""

    page = opened(browser, server, "light", [])
    page.goto(f"{server.url}/laion/crawl/{CRAWL}?run={quote(server.run, safe='')}")
    cell = page.get_by_role("button", name=f"batch {FIRST_BATCH + 23}: failed")
    expect(cell).to_have_attribute("data-number", "23")
    assert cell.evaluate("cell => cell.scrollWidth <= cell.clientWidth")
    page.context.close()


def test_a_panel_opened_before_airflow_has_answered_gets_its_tasks(server: Server, browser: Browser) -> None:
    page, held = opened(browser, server, "light", []), list[Route]()
    tasks_of_a_run = re.compile(r"/taskInstances\?")

    def hold(route: Route) -> None:
        held.append(route)

    page.route(tasks_of_a_run, hold)
    page.goto(f"{server.url}/laion/crawl/{CRAWL}?run={quote(server.run, safe='')}")
    page.get_by_role("button", name="partition 1:").click()
    panel = page.locator("#panel")
    expect(panel).to_contain_text("By hand")
    expect(panel.get_by_role("heading", name="Tasks")).to_have_count(0)
    for route in held:
        route.continue_()
    page.unroute(tasks_of_a_run)
    expect(panel.get_by_role("heading", name="Tasks")).to_be_visible()
    page.context.close()


AT = "2026-11-28T12:00:00+00:00"


def test_the_run_at_work_is_shown_and_not_the_one_made_last(
    server: Server, browser: Browser, migrated_airflow: Airflow
) -> None:
    page = opened(browser, server, "light", [])
    page.goto(f"{server.url}/laion/crawl/{CRAWL}")
    shown = page.locator("#run select")
    expect(shown).to_have_value(server.run)
    backfill = begun_backfill(migrated_airflow)
    later = triggered(server, DAG)
    page.reload()
    expect(shown).to_have_value(backfill)
    expect(page.locator("#run .chip")).to_have_text("running")
    page.goto(f"{server.url}/laion/")
    expect(state_of(page, CRAWL)).not_to_have_text("failed")
    page.goto(f"{server.url}/laion/crawl/{CRAWL}?run={quote(later, safe='')}")
    expect(shown).to_have_value(later)  # who asks for a run gets it
    page.context.close()


def test_a_partition_counts_once_and_tasks_are_not_shards(server: Server, browser: Browser) -> None:
    """Finished partitions are looked at again; 1, 21 and 22 have failed; a task scores many shards."""

    def at_work(route: Route) -> None:
        answer = route.fetch()
        document = answer.json()
        for task in document["task_instances"]:
            again = task["task_id"] == "partition.parse" and task["map_index"] != 1
            if again or task["task_id"] == "score":
                task["state"] = "running"
        route.fulfill(response=answer, body=json.dumps(document))

    page = opened(browser, server, "light", [])
    page.route("**/taskInstances?*", at_work)
    page.goto(f"{server.url}/laion/crawl/{CRAWL}?run={quote(server.run, safe='')}")
    assert figures(page, "parse", "2") == ["19 / 24 partitions", "2", "3"]
    assert figures(page, "score", "1 task") == ["3 / 23 shards", "1 task", "–"]
    page.context.close()


def figures(page: Page, stage: str, running: str) -> list[str]:
    """Done, running and failed of a stage, once Airflow's tasks are in them."""
    cells = page.locator("#stages tr", has=page.locator("th", has_text=re.compile(f"^{stage}$"))).locator(
        "td"
    )
    expect(cells.nth(2)).to_have_text(running)
    return [cells.nth(number).inner_text().strip() for number in (1, 2, 3)]


def test_a_refusal_of_airflow_is_a_sentence(server: Server, browser: Browser) -> None:
    page = opened(browser, server, "light", [])
    refused = {"status": 400, "content_type": "application/json", "body": '{"detail": "Bad Request"}'}
    page.route("**/clearTaskInstances", lambda route: route.fulfill(**refused))
    page.goto(f"{server.url}/laion/crawl/{CRAWL}?run={quote(server.run, safe='')}")
    page.locator("#failures").get_by_role("button", name="Retry").first.click()
    expect(page.locator("#failures")).to_contain_text("Airflow cannot do this with the run as it is")
    expect(page.locator("#failures")).not_to_contain_text("Bad Request")
    page.context.close()
