"""The report as a browser shows it: one Chromium for the module."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from laion_etl.io.storage import LocalStore
from laion_etl.publish.stage import render_report
from laion_etl.report.templating import TEMPLATES
from laion_etl.settings import Settings
from tests.accessibility import violations
from tests.publish.world import CRAWL, build_world, write_world

HOSTILE = '</script><script>window.hostile = 1</script><img src=x onerror="window.hostile = 1">'


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    store, world = LocalStore(folder), build_world()
    for row in world.rows:
        row["caption"], row["license"] = f"{row['caption']} {HOSTILE}", HOSTILE
    write_world(world, store)
    page = folder / "index.html"
    page.write_bytes(render_report(CRAWL, Settings(), store))
    return page.as_uri()


@pytest.fixture
def page(browser: Browser, report: str) -> Iterator[Page]:
    """The open report; browser errors and requests to other hosts fail the test."""
    complaints: list[str] = []
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: _check_request(request.url, report, complaints))
    page.goto(report)
    yield page
    page.close()
    assert complaints == []


def _check_request(url: str, report: str, complaints: list[str]) -> None:
    if url != report and not url.startswith("data:image/webp;base64,"):
        complaints.append(f"request for {url[:200]}")


def test_foreign_texts_are_shown_and_do_nothing(page: Page) -> None:
    assert page.get_by_text("window.hostile").count() > 20
    assert page.evaluate("window.hostile") is None
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")


def test_a_shape_shows_its_numbers_when_the_pointer_rests_on_it(page: Page) -> None:
    tip = page.locator("#tip")
    assert tip.is_hidden()
    page.locator(".funnel .band.flow-kept").first.hover()
    assert re.fullmatch(r"kept by parse: [\d,]+ of [\d,]+ \(\d+\.\d%\)", tip.inner_text())
    page.locator("h1").hover()
    assert tip.is_hidden()


def test_tables_are_sorted_by_the_heading_that_is_clicked(page: Page) -> None:
    names = page.locator("#words tbody th")
    by_count = names.all_inner_texts()
    heading = page.locator("#words thead th").first
    heading.get_by_role("button").click()
    assert names.all_inner_texts() == sorted(by_count, reverse=True) != by_count
    assert heading.get_attribute("aria-sort") == "descending"
    heading.get_by_role("button").click()
    assert names.all_inner_texts() == sorted(by_count)


def test_drawings_switch_between_counts_and_shares(page: Page) -> None:
    count, share = page.locator(".funnel .number.abs").first, page.locator(".funnel .number.rel").first
    assert (count.is_visible(), share.is_visible()) == (True, False)
    page.get_by_label("shares").check()
    assert (count.is_visible(), share.is_visible()) == (False, True)
    assert share.text_content() == "100.0%"


@pytest.mark.parametrize("width", [400, 820, 1280])
def test_nothing_sticks_out_at_any_width(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("width", [400, 768, 1280])
def test_texts_of_drawings_can_be_read_and_the_funnel_can_be_scrolled(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    sizes = page.evaluate(
        """() => [...document.querySelectorAll("svg.chart text")]
            .filter((text) => text.getBoundingClientRect().width)
            .map((text) => parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().a)"""
    )
    assert len(sizes) > 50
    assert min(sizes) >= 10
    flow = page.locator(".flow")
    cut = flow.evaluate("flow => flow.scrollWidth > flow.clientWidth")
    assert page.locator(".sideways").is_visible() == cut == (width < 1180)
    assert flow.get_attribute("tabindex") == ("0" if cut else None)


def test_it_prints_without_what_only_works_on_a_screen(page: Page) -> None:
    data = page.pdf(format="A4")
    assert data.startswith(b"%PDF-")
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", data)) <= 12
    page.emulate_media(media="print")
    assert page.locator("nav").is_hidden()
    assert page.locator("#funnel .chart").is_visible()


def test_it_follows_the_dark_theme(page: Page) -> None:
    colours = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours[0] != colours[1]


def test_every_drawing_has_a_title_and_a_table_near_it(page: Page) -> None:
    titles = page.eval_on_selector_all("svg.chart", "found => found.map(svg => svg.ariaLabel)")
    assert len(titles) == len(set(titles)) >= 7
    assert all(titles)
    without = "svg.chart", "found => found.filter(svg => !svg.closest('section').querySelector('table'))"
    assert len(page.eval_on_selector_all(*without)) <= 1  # resolution: its table is in the next section


def test_it_can_be_read_by_everyone(page: Page) -> None:
    assert violations(page) == []


def test_texts_have_enough_contrast_in_both_themes() -> None:
    palettes = re.findall(r":root \{(.*?)\}", (TEMPLATES / "palette.css").read_text(), re.DOTALL)
    assert len(palettes) == 2
    for palette in palettes:
        colours = dict(re.findall(r"--([\w-]+):\s*(#\w{6})", palette))
        for text, ground in (("ink", "card"), ("soft", "card"), ("soft", "paper"), ("kept", "card")):
            assert _contrast(colours[text], colours[ground]) >= 4.5, (text, ground)


def _contrast(one: str, other: str) -> float:
    """Return the contrast ratio of WCAG 2."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(share * c for share, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
