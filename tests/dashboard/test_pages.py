"""The page of a crawl with thousands of batches in a real Chromium, served as by `laion-etl dashboard`."""

import socket
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from laion_etl.dashboard.app import dashboard_app
from laion_etl.dashboard.data_sources import Sources
from laion_etl.dashboard.serve import local_viewer
from laion_etl.database.connection import open_database
from laion_etl.io.storage import Store
from laion_etl.settings import Settings
from tests import local_servers
from tests.accessibility import violations
from tests.dashboard.world import SENTENCE, write_thousands, write_usage
from tests.publish.world import CRAWL


def served(settings: Settings) -> AbstractContextManager[str]:
    """The address of a dashboard."""
    return plainly_served(dashboard_app(Sources(lambda: settings), local_viewer))


@contextmanager
def plainly_served(app: ASGIApp) -> Iterator[str]:
    """The address of an application that lets everyone in."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.fixture
def address(settings: Settings, store: Store) -> Iterator[str]:
    """The dashboard of a crawl with 2,500 batches."""
    settings = replace(settings, core=replace(settings.core, store=store.uri()))
    with open_database(settings) as database:
        database.run(write_thousands)
    write_usage(store)
    with served(settings) as found:
        yield found


def test_only_the_printed_address_lets_a_browser_in(browser: Browser, crawl_settings: Settings) -> None:
    app = dashboard_app(Sources(lambda: crawl_settings), local_viewer)
    with (
        local_servers.served(app) as server,
        browser.new_context() as context,
        browser.new_context() as others,
    ):
        page, start = context.new_page(), server.address.partition("?")[0]
        assert status_of(page, start) == 401
        page.goto(server.address)
        expect(page.get_by_role("heading", name="Crawls")).to_be_visible()
        assert page.url == start  # the token is not left in the address bar
        assert status_of(page, f"{start}crawl/{CRAWL}") == 200
        expect(page.locator("#batches .grid button").first).to_be_visible()  # its documents come, too
        # Browsers resolve every name below localhost to this machine, as an attacker's name server does.
        assert status_of(page, server.address.replace("127.0.0.1", "attacker.localhost")) == 421
        assert status_of(page, start.replace("127.0.0.1", "attacker.localhost")) == 421
        assert status_of(others.new_page(), start) == 401


async def say_cookies(request: Request) -> Response:
    """What another user's server learns from a browser; it sets a cookie of the same name."""
    answer = PlainTextResponse(request.headers.get("cookie", "none"))
    answer.set_cookie("laion-etl", "another's")
    return answer


def test_a_server_on_another_port_gets_no_cookie_and_cannot_lock_the_user_out(
    browser: Browser, crawl_settings: Settings
) -> None:
    """Browsers send the cookies of 127.0.0.1 to every port of it."""
    app = dashboard_app(Sources(lambda: crawl_settings), local_viewer)
    other = Starlette(routes=[Route("/{path:path}", say_cookies)])
    with local_servers.served(app) as server, plainly_served(other) as foreign, browser.new_context() as mine:
        page = mine.new_page()
        page.goto(server.address)
        start = page.url
        for path in ("", "/", "/api/overview"):
            page.goto(f"{foreign}{path}")
            assert page.locator("body").inner_text() in ("none", "laion-etl=another's")
        assert status_of(page, start) == 200
        expect(page.get_by_role("heading", name="Crawls")).to_be_visible()


def status_of(page: Page, url: str) -> int:
    answer = page.goto(url)
    assert answer is not None
    return answer.status


def test_a_batch_says_why_links_gave_no_image(browser: Browser, crawl_settings: Settings) -> None:
    with served(crawl_settings) as found:
        page = browser.new_page()
        page.goto(f"{found}/crawl/{CRAWL}")
        page.locator("#batches .grid button").nth(5).click()
        panel = page.locator("#panel")
        expect(panel).to_contain_text("diagnosis")
        expect(panel).to_contain_text(SENTENCE)
        page.close()


def test_a_cell_of_a_thousand_opens_its_batches(browser: Browser, address: str) -> None:
    page = browser.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{address}/crawl/{CRAWL}")
    expect(page.locator("#batches-count")).to_have_text("2,500, a cell is a thousand")
    expect(page.locator("#batches .grid button")).to_have_count(3)
    cell = page.get_by_role("button", name="batch 1000–1999: 700 of 1000 downloaded, 3 failed")
    expect(cell).to_have_class("cell k-failed")
    downloaded = page.get_by_role("button", name="batch 500–999: 500 of 500 downloaded")
    expect(downloaded).to_have_attribute("style", "--level: 50%;")  # the other half is for scoring
    cell.click()
    panel = page.locator("#panel")
    expect(panel.locator(".grid button")).to_have_count(1_000)
    panel.get_by_role("button", name="batch 1701: failed").click()
    expect(panel.get_by_role("heading", name="Batch 1701", exact=True)).to_be_visible()
    expect(panel).to_contain_text("cannot read batch 1701")
    page.keyboard.press("Escape")
    failures = page.locator("#failures .causes tbody tr")
    expect(failures).to_have_count(1)
    expect(failures).to_contain_text("cannot read batch 1700")
    failures.get_by_role("button", name="batch 1702").click()
    expect(panel.get_by_role("heading", name="Batch 1702", exact=True)).to_be_visible()
    assert complaints == []
    page.close()


@pytest.mark.parametrize("width", [1_280, 400])
def test_what_a_stage_costs_is_in_sight(width: int, browser: Browser, address: str) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(f"{address}/crawl/{CRAWL}")
    bill = page.locator("#hours .bill")
    cells = bill.locator("tbody tr", has_text="download").locator("td")
    expect(bill.locator("thead tr > *").nth(2)).to_have_text("USD")
    expect(cells.nth(1)).to_have_text("0.18")  # two cores for an hour, and 2 GB through a NAT gateway
    ends_in_sight = """cell => {
        const right = (element) => element.getBoundingClientRect().right;
        return right(cell) <= right(cell.closest(".scroll"));
    }"""
    assert cells.nth(2).evaluate(ends_in_sight)
    if width >= 1_280:
        assert cells.last.evaluate(ends_in_sight)
    page.close()


def test_its_pages_can_be_read_by_everyone(browser: Browser, crawl_settings: Settings) -> None:
    with served(crawl_settings) as found:
        page = browser.new_page()
        page.goto(found)
        expect(page.get_by_role("link", name=CRAWL).first).to_be_visible()
        assert violations(page) == []
        page.goto(f"{found}/crawl/{CRAWL}")
        page.locator("#batches .grid button").nth(5).click()
        expect(page.locator("#panel")).to_contain_text(SENTENCE)
        assert violations(page) == []
        page.close()
