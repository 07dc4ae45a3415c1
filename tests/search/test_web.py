"""The page's server and the page itself, in Chromium."""

import io
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from rich.console import Console

from laion_etl.core.errors import ModelError, SettingsError
from laion_etl.io.local_server import LocalServer, listening
from laion_etl.minicrawl.scenes import Scene
from laion_etl.search.current_index import CurrentIndex
from laion_etl.search.filters import Filters
from laion_etl.search.query import SearchIndex
from laion_etl.search.query_encoder import QueryEncoder
from laion_etl.search.serve import serve
from laion_etl.search.web import SearchBackend, build_app
from tests.accessibility import violations
from tests.local_servers import served
from tests.score.conftest import jpeg
from tests.search.conftest import HOSTILE, STEERED, World

MAX_BYTES = 400_000
RESULT = {
    "score": 0.3, "safe": True, "text": "a star", "url": "https://images.example/1", "width": 8, "height": 8,
    "language": "en", "domain": "images.example", "nsfw": "UNLIKELY", "similarity": 0.3,
}  # fmt: skip


@pytest.fixture(scope="module")
def server(world: World, encoder: QueryEncoder) -> Iterator[LocalServer]:
    """The server on a free port of this machine."""
    settings = replace(world.settings, download=replace(world.settings.download, max_bytes=MAX_BYTES))
    source = CurrentIndex("laion", "", settings, world.store)
    with served(build_app(SearchBackend(source, encoder, settings, world.store))) as made:
        yield made


@pytest.fixture(scope="module")
def client(server: LocalServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.address.partition("?")[0], timeout=240) as client:
        assert client.get(server.address).status_code == 303
        yield client


@pytest.fixture(scope="module")
def unsafe_id(opened: SearchIndex) -> int:
    vector = opened.parts[0].vector(int(opened.parts[0].browse(1, Filters())[0]))
    hits = opened.search(vector, 100, Filters(unsafe=True))
    return next(hit.sample_id for hit in hits if hit.row["NSFW"] == "NSFW")


def test_a_port_that_is_bound_accepts_connections() -> None:
    """Its address is printed before the server is ready."""
    with listening(0) as made, socket.create_connection(made.getsockname(), timeout=240):
        pass


def test_requests_in_another_name_or_from_another_site_are_refused(client: httpx.Client) -> None:
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 421
    assert client.get("/api/facts", headers={"Host": "127.0.0.1.evil.example:80"}).status_code == 421
    assert client.get("/api/facts", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert client.get("/", headers={"Host": "localhost:1"}).status_code == 200


def test_headers_forbid_loading_anything_from_other_hosts(client: httpx.Client) -> None:
    for path in ("/", "/app.js", "/api/facts", "/nothing"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
    page = client.get("/").text
    assert all(
        re.fullmatch(r"\./|[a-z]+\.[a-z]+", one) for one in re.findall(r"(?:src|href)=\"(.*?)\"", page)
    )
    assert client.get("/docs").status_code == client.get("/openapi.json").status_code == 404


def test_unsafe_samples_are_shown_only_when_asked_for(client: httpx.Client, unsafe_id: int) -> None:
    everything = {"q": "a heart", "count": 100}
    safe = client.get("/api/search", params=everything).json()["results"]
    assert {result["nsfw"] for result in safe} == {"UNLIKELY"}
    every = client.get("/api/search", params=everything | {"unsafe": "true"}).json()["results"]
    assert str(unsafe_id) in {result["id"] for result in every if not result["safe"]}
    for path in ("thumbnail", "image", "api/sample"):
        assert client.get(f"/{path}/{unsafe_id}").status_code == 404
        assert client.get(f"/{path}/{unsafe_id}", params={"unsafe": "true"}).status_code == 200


def test_no_text_turns_the_reading_direction(client: httpx.Client) -> None:
    found = client.get("/api/search", params={"q": HOSTILE, "count": 240}).json()["results"]
    texts = {result["text"] for result in found}
    assert HOSTILE in texts
    assert STEERED not in texts


def test_images_come_out_of_the_shards(client: httpx.Client) -> None:
    [found] = client.get("/api/search", params={"q": "a red circle", "count": 1}).json()["results"]
    small, full = (client.get(f"/{kind}/{found['id']}") for kind in ("thumbnail", "image"))
    assert (small.headers["content-type"], full.headers["content-type"]) == ("image/webp", "image/jpeg")
    with Image.open(io.BytesIO(small.content)) as image:
        assert image.size == (256, 256)


def test_uploads_are_bounded_and_hostile_ones_refused(client: httpx.Client) -> None:
    def stream() -> Iterator[bytes]:
        for _ in range(9):
            yield bytes(50_000)

    assert client.post("/api/image", content=bytes(MAX_BYTES + 1)).status_code == 413
    assert client.post("/api/image", content=stream()).status_code == 413
    for data in (b"", b"<svg onload='x'/>", jpeg(Scene("red", "star", "snow", "single"))[:900]):
        answer = client.post("/api/image", content=data)
        assert answer.status_code == 400
        assert "\n" not in answer.json()["error"]
    assert client.get("/api/search", params={"image": "0" * 16}).status_code == 404


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/search?count=100000", 422),
        ("/api/search?min_similarity=high", 422),
        (f"/api/search?q={'a' * 1_001}", 422),
        ("/api/search?like=7", 404),
        ("/api/search?subset=none", 400),
        ("/thumbnail/1", 404),
        ("/thumbnail/..%2f..%2findex.html", 404),
        ("/../web.py", 401),
    ],
)
def test_odd_requests_are_answered_with_an_error(client: httpx.Client, path: str, status: int) -> None:
    assert client.get(path).status_code == status


def test_a_taken_port_is_an_error_that_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"port {port}"), listening(port):
            pass


def test_what_it_waits_for_is_printed_first(world: World) -> None:
    unknown = replace(world.settings, clip=replace(world.settings.clip, model="ViT-B-33"))
    source = CurrentIndex(unknown.publish.name, "", unknown, world.store)
    output = io.StringIO()
    with pytest.raises(ModelError, match="unknown CLIP model 'ViT-B-33'"):
        serve(source, unknown, world.store, 0, Console(file=output))
    assert output.getvalue() == "loading the model ViT-B-33 ...\n"


@dataclass
class Visit:
    """A page in the browser, with its errors and its requests to other hosts."""

    page: Page
    address: str
    complaints: list[str] = field(default_factory=list)

    def cards(self) -> list[str]:
        expect(self.page.locator("body")).not_to_have_class("busy")
        return self.page.locator(".card .words").all_inner_texts()

    def search(self, text: str) -> list[str]:
        self.page.locator("#q").fill(text)
        with self.page.expect_response(re.compile("/api/search")):
            self.page.keyboard.press("Enter")
        return self.cards()

    def watch(self) -> None:
        self.page.on("console", lambda message: self._complain(message.type, message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self._asked(request.url))

    def _complain(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(text)

    def _asked(self, url: str) -> None:
        if not url.startswith(self.address):
            self.complaints.append(f"asked for {url}")


@pytest.fixture
def visit(browser: Browser, server: LocalServer) -> Iterator[Visit]:
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    made = Visit(page, server.address.partition("?")[0])
    made.watch()
    page.goto(server.address)
    expect(page.locator(".card").first).to_be_visible()
    yield made
    page.close()
    assert made.complaints == []


def test_a_text_finds_red_circles_and_the_address_keeps_it(visit: Visit) -> None:
    found = visit.search("a single red circle on a sandy beach")
    assert all("red circle" in text for text in found[:2])
    assert "/?q=a+single+red+circle" in visit.page.url
    visit.page.reload()
    expect(visit.page.locator(".card .words").first).to_have_text(found[0])
    assert visit.cards() == found
    visit.search("a blue star")
    visit.page.go_back()
    expect(visit.page.locator("#q")).to_have_value("a single red circle on a sandy beach")
    expect(visit.page.locator(".card .words").first).to_have_text(found[0])


def test_an_image_finds_those_like_it(visit: Visit, tmp_path: Path) -> None:
    path = tmp_path / "mine.jpg"
    path.write_bytes(jpeg(Scene("blue", "star", "night", "single"), seed=9))
    with visit.page.expect_response(re.compile("/api/search")):
        visit.page.locator("#file").set_input_files(path)
    assert "blauer Stern" in visit.cards()[0]
    expect(visit.page.locator("#given-name")).to_have_text("your image")


def test_filters_narrow_the_results(visit: Visit) -> None:
    visit.search("a red circle")
    visit.page.locator("#filters summary").click()
    with visit.page.expect_response(re.compile("language=de")):
        visit.page.locator("select[name=language]").select_option("de")
    cards = visit.cards()
    assert cards
    assert all(text.startswith("de ·") for text in visit.page.locator(".card .small").all_inner_texts())
    expect(visit.page.locator("#filters-set")).to_have_text(" (1)")


def test_unsafe_results_are_absent_and_then_behind_a_veil(visit: Visit) -> None:
    visit.search("a hazard sign next to a red heart")
    assert visit.page.locator(".unsafe").count() == 0
    assert not any("hazard" in text for text in visit.cards())
    visit.page.locator("#filters summary").click()
    with visit.page.expect_response(re.compile("unsafe=true")):
        visit.page.locator("input[name=unsafe]").check()
    card = visit.page.locator(".card", has=visit.page.locator(".unsafe")).first
    expect(card.locator(".veil")).to_have_text("NSFW: hidden")
    card.click()
    shown = visit.page.locator("#details-shown")
    expect(shown.locator("img")).to_have_css("filter", re.compile("blur"))
    shown.get_by_role("button").click()
    expect(shown.locator("img")).to_have_css("filter", "none")


def test_a_filter_out_of_range_is_an_error_and_does_not_show_everything(visit: Visit) -> None:
    shown = visit.search("a red circle")
    page = visit.page
    page.locator("#filters summary").click()
    page.locator("input[name=min_similarity]").fill("7")
    page.keyboard.press("Tab")
    expect(page.locator("#status")).to_contain_text("Similarity at least: Value must be less than")
    assert visit.cards() == shown
    assert "min_similarity" not in page.url
    visit.complaints.clear()
    page.goto(f"{visit.address}?min_similarity=7")
    expect(page.locator("#status")).to_contain_text("min_similarity: Input should be less than")
    assert visit.cards() == []
    visit.complaints.clear()  # the browser reports the answer 422


def test_a_page_that_shows_no_more_says_so(visit: Visit) -> None:
    assert visit.page.locator("h1").inner_text() == "laion"
    found = {"results": [{**RESULT, "id": str(number)} for number in range(240)]}
    visit.page.route("**/api/search?*", lambda route: route.fulfill(json=found))
    visit.page.route("**/thumbnail/*", lambda route: route.fulfill(status=200, body=""))
    visit.page.goto(f"{visit.address}?q=star&count=240")
    expect(visit.page.locator("#status")).to_contain_text("The nearest 240 images: the page shows no more")
    expect(visit.page.locator("#more")).to_be_hidden()


def test_a_hostile_caption_is_only_text(visit: Visit) -> None:
    found = visit.search(HOSTILE)
    assert HOSTILE in found
    visit.page.locator(".card", has_text="<script>").first.click()
    expect(visit.page.locator("#details-text")).to_have_text(HOSTILE)
    assert visit.page.title() == "laion: explore"
    assert visit.page.locator("main img[src=x], dialog img[src=x]").count() == 0


def test_the_keyboard_is_enough(visit: Visit) -> None:
    page = visit.page
    page.keyboard.press("/")
    page.keyboard.type("a green star")
    with page.expect_response(re.compile("/api/search")):
        page.keyboard.press("Enter")
    visit.cards()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    second = page.locator(".card .words").nth(1).inner_text()
    expect(page.locator("#details-text")).to_have_text(second)
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#details-text")).to_have_text(page.locator(".card .words").first.inner_text())
    with page.expect_response(re.compile("like=")):
        page.keyboard.press("m")
    expect(page.locator("#details")).to_be_hidden()
    assert "like=" in page.url


def test_nothing_is_wider_than_a_phone(visit: Visit) -> None:
    visit.page.set_viewport_size({"width": 375, "height": 700})
    visit.search("a red circle")
    width = "document.documentElement.scrollWidth"
    assert visit.page.evaluate(width) == 375
    visit.page.locator(".card").first.click()
    expect(visit.page.locator("#details")).to_be_visible()
    assert visit.page.evaluate(width) == 375


def test_it_can_be_read_by_everyone(visit: Visit) -> None:
    visit.page.locator("#filters summary").click()
    with visit.page.expect_response(re.compile("unsafe=true")):
        visit.page.locator("input[name=unsafe]").check()
    visit.search("a hazard sign next to a red heart")
    visit.page.locator(".card", has=visit.page.locator(".unsafe")).first.click()
    expect(visit.page.locator("#details-shown img")).to_be_visible()
    assert violations(visit.page) == []
    visit.page.reload()
    visit.cards()
    assert violations(visit.page) == []
