import base64
import hashlib
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser

import duckdb
import huggingface_hub
import pytest
import yaml
from PIL import Image

from laion_etl.core.ids import batch_name
from laion_etl.dataset.score_progress import write_record
from laion_etl.io.storage import Store
from laion_etl.publish.card import cell, size_category
from laion_etl.publish.stage import publish_dataset, render_report
from laion_etl.report import contact_sheets
from laion_etl.report.contact_sheets import thumbnail
from laion_etl.report.templating import cut, percent
from laion_etl.settings import Settings
from tests.publish.world import CRAWL, Row, World, build_world, changed, draw_image, write_world

HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(1)> \u202egnp.exe {{ 7*7 }} | `x`'


class Page(HTMLParser):
    """Tags, attributes and texts of a page."""

    def __init__(self, html: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(html.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        self.texts.append((self._open[-1] if self._open else "", data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def report(world: World, store: Store, settings: Settings | None = None) -> bytes:
    write_world(world, store)
    return render_report(CRAWL, settings or Settings(), store)


def changed_rows(**values: object) -> World:
    world = build_world()
    return World({n: [{**row, **values} for row in rows] for n, rows in world.batches.items()})


def embedded_keys(page: Page) -> set[str]:
    return {re.findall(r"\d{14}", image["alt"] or "")[0] for image in page.all("img")}


def test_the_page_refers_to_nothing_outside(store: Store) -> None:
    html = report(build_world(), store)
    page = Page(html)
    references = [
        value
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "action", "data", "poster", "background") and value is not None
    ]
    assert len(references) > 40
    assert all(value.startswith(("data:image/webp;base64,", "#")) for value in references)
    assert {tag for tag, _ in page.tags}.isdisjoint({"link", "iframe", "object", "base", "form"})
    assert page.all("script") == [{}]
    assert b"url(" not in html
    assert b"@import" not in html


def test_the_policy_allows_data_images_and_one_style_and_one_script(store: Store) -> None:
    html = report(build_world(), store).decode()
    style, script = (
        base64.b64encode(hashlib.sha256(found.encode()).digest()).decode()
        for tag in ("style", "script")
        for found in re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    )
    policy = next(meta["content"] for meta in Page(html.encode()).all("meta") if "http-equiv" in meta)
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{style}'; script-src 'sha256-{script}'; "
        "base-uri 'none'; form-action 'none'"
    )
    assert not any("style" in attributes for _, attributes in Page(html.encode()).tags)


def test_a_hostile_caption_stays_text_and_is_isolated(store: Store) -> None:
    page = Page(report(changed_rows(caption=HOSTILE), store))
    captions = [(tag, text) for tag, text in page.texts if "alert(1)" in text]
    assert len(captions) > 20
    assert {tag for tag, _ in captions} == {"bdi"}
    assert {text for _, text in captions} == {HOSTILE}
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.all("script") == [{}]


def test_hostile_urls_and_licences_stay_text_in_report_and_card(store: Store) -> None:
    world = changed_rows(url="https://a|b.example`<b>/x", license=HOSTILE, language="<i>")
    write_world(world, store)
    publish_dataset(CRAWL, Settings(), store)
    folder = f"dataset/laion/{CRAWL}"
    page = Page(store.read(f"{folder}/report/index.html"))
    card = store.read(f"{folder}/README.md").decode()
    assert len(page.all("script")) == 1
    assert not page.all("i")
    lines = [line for line in card.splitlines() if "alert(1)" in line]
    assert len(lines) == 1
    assert re.fullmatch(r"\| `[^`|]*` \| \d+ \| [\d.]+% \|", lines[0])
    assert "\u202e" not in card


def test_captions_of_several_sources_are_counted_on_the_card_and_compared_in_the_report(store: Store) -> None:
    world = build_world()
    rows = {
        batch: [
            row | {"caption_source": "title" if place % 4 == 0 else "alt"} for place, row in enumerate(found)
        ]
        for batch, found in world.batches.items()
    }
    write_world(World(rows), store)
    publish_dataset(CRAWL, Settings(), store)
    folder = f"dataset/laion/{CRAWL}"
    kept = [row for found in rows.values() for row in found if row["reason"] is None]
    titles = sum(row["caption_source"] == "title" for row in kept)
    card = store.read(f"{folder}/README.md").decode()
    assert f"| title | {titles:,} | {percent(titles / len(kept))} |" in card
    texts = [text for _, text in Page(store.read(f"{folder}/report/index.html")).texts]
    assert "Similarity by source of the caption" in texts
    assert "Similarity by source of the caption" not in [text for _, text in Page(report(world, store)).texts]


def test_images_tagged_unsafe_are_never_embedded(store: Store) -> None:
    world = build_world()
    page = Page(report(world, store))
    safe = {
        r["key"] for r in world.rows if r["nsfw_tag"] == "UNLIKELY" and r["reason"] != "suspected_underage"
    }
    shown = embedded_keys(page)
    withheld = [text for _, text in page.texts if text.startswith("tagged ")]
    assert len(shown) > 30
    assert shown <= safe
    assert {"tagged NSFW", "tagged UNSURE"} == set(withheld)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"nsfw_tag": "NSFW"}, "tagged NSFW"),
        ({"nsfw_tag": "UNSURE"}, "tagged UNSURE"),
        ({"nsfw_tag": None}, "not checked for safety"),
        ({"nsfw_tag": "UNLIKELY", "reason": "suspected_underage"}, "suspected underage"),
    ],
)
def test_a_crawl_of_unsafe_samples_shows_no_pixel(
    store: Store, monkeypatch: pytest.MonkeyPatch, values: Row, words: str
) -> None:
    monkeypatch.setattr(contact_sheets, "thumbnail", _must_not_decode)
    page = Page(report(changed_rows(**values), store))
    assert page.all("img") == []
    assert [text for _, text in page.texts].count(words) > 10


def _must_not_decode(data: bytes, max_pixels: int) -> str | None:
    raise AssertionError("an unsafe image was decoded")


def test_captions_of_suspected_underage_samples_are_not_repeated(store: Store) -> None:
    world = build_world()
    world.batches[1][5]["caption"] = "words not to be read"
    html = report(world, store)
    assert b"words not to be read" not in html
    assert b"caption withheld" in html


def test_embedded_images_are_small_and_of_the_right_samples(store: Store) -> None:
    page = Page(report(build_world(), store))
    for image in page.all("img"):
        data = base64.b64decode((image["src"] or "").removeprefix("data:image/webp;base64,"))
        key = re.findall(r"\d{14}", image["alt"] or "")[0]
        assert Image.open(io.BytesIO(data)).size <= (224, 224)
        assert f"data:image/webp;base64,{base64.b64encode(data).decode()}" == thumbnail(
            draw_image(key), 10**6
        )


def test_images_deleted_after_scoring_are_named_so_without_a_warning(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    world = build_world()
    write_world(world, store)
    missing = [f"shards/{CRAWL}/{batch_name(batch)}.tar" for batch in world.batches]
    for name in missing:
        store.delete(name)
    lost = [text for _, text in Page(render_report(CRAWL, Settings(), store)).texts]
    assert "deleted after scoring" not in lost
    assert all(name in caplog.text for name in missing)  # nothing is known to have deleted them
    caplog.clear()

    write_record(CRAWL, [(batch, "") for batch in world.batches], _RawDeleted(len(missing)), (), store)
    texts = [text for _, text in Page(render_report(CRAWL, Settings(), store)).texts]
    assert texts.count("deleted after scoring") == lost.count("cannot be decoded") > 5
    assert "contact sheets" not in caplog.text


@dataclass(frozen=True)
class _RawDeleted:
    """Totals of a crawl whose raw shards scoring has deleted."""

    raw_deleted: int
    samples: int = 0
    kept: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)


def test_rejected_samples_are_shown_with_score_and_threshold(store: Store) -> None:
    world = build_world()
    text = " ".join(" ".join(text for _, text in Page(report(world, store)).texts).split())
    low = [row for row in world.rows if row["reason"] == "low_similarity"]
    assert len(low) == 12
    for row in low:
        assert f"{row['similarity']:.3f} under {row['threshold']:.3f}" in text


def test_the_sheet_shows_no_sample_twice_and_samples_of_all_quantiles(store: Store) -> None:
    page = Page(report(build_world(batches=4, samples=60), store))
    alts = [image["alt"] for image in page.all("img")]
    titles = {text.strip() for tag, text in page.texts if tag == "h4"}
    assert len(alts) == len(set(alts))
    assert {
        "Just above the threshold",
        "Lower quartile",
        "Median",
        "Upper quartile",
        "Best matches",
    } <= titles


def test_an_image_that_the_web_repeats_is_once_on_the_sheet(store: Store) -> None:
    world = build_world(batches=2, samples=40)
    copies = {row["key"] for row in world.kept if row["nsfw_tag"] == "UNLIKELY"}
    assert len(copies) > 40
    repeated = World(
        {
            n: [{**row, "sha256": "ab" * 32} if row["key"] in copies else row for row in rows]
            for n, rows in world.batches.items()
        }
    )
    assert len(embedded_keys(Page(report(repeated, store))) & copies) == 1


def test_captions_are_withheld_like_images(store: Store) -> None:
    world = build_world()
    marked = World(
        {
            n: [{**row, "caption": f"caption-{row['nsfw_tag']}-{row['key']}"} for row in rows]
            for n, rows in world.batches.items()
        }
    )
    html = report(marked, store)
    assert b"caption-UNLIKELY-" in html
    assert b"caption withheld" in html
    for tag in (b"NSFW", b"UNSURE"):
        assert b"caption-" + tag not in html


def test_images_over_the_pixel_cap_are_not_decoded() -> None:
    data = draw_image("00000000000000")
    assert thumbnail(data, 128 * 128) is not None
    assert thumbnail(data, 128 * 128 - 1) is None
    assert thumbnail(b"\xff\xd8\xff no image", 10**6) is None
    assert thumbnail(data[:300], 10**6) is None


def test_a_sample_that_cannot_be_decoded_is_a_placeholder(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.publish.world.draw_image", lambda _: b"junk")
    page = Page(report(build_world(), store))
    assert page.all("img") == []
    assert "cannot be decoded" in {text for _, text in page.texts}


def test_a_large_crawl_opens_few_tars(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contact_sheets, "BATCHES_LOOKED_AT", 2)
    page = Page(report(build_world(batches=5, samples=30), store))
    batches = {key[:9] for key in embedded_keys(page)}
    assert len(batches) == 2


def test_the_front_matter_of_the_card_is_what_the_hub_reads(store: Store) -> None:
    world = build_world()
    world.batches[1][0]["language"] = "no"  # YAML would read a bare no as false
    write_world(world, store)
    publish_dataset(CRAWL, Settings(), store)
    card = store.read(f"dataset/laion/{CRAWL}/README.md").decode()
    hub = huggingface_hub.DatasetCard(card).data
    assert (hub.license, hub.pretty_name) == ("other", f"laion {CRAWL}")
    assert hub.task_categories == ["text-to-image", "image-to-text", "zero-shot-image-classification"]
    start, front, body = card.split("---\n", 2)
    fields = yaml.safe_load(front)
    assert start == ""
    assert set(fields["language"]) == {row["language"] for row in world.kept} - {""}
    assert fields["size_categories"] == ["n<1K"]
    assert fields["configs"][0]["config_name"] == "laion-en"
    assert fields["configs"][0]["data_files"] == [{"split": "train", "path": ["laion-en/*.parquet"]}]
    assert f"| laion-en | {sum(r['language'] == 'en' for r in world.kept)} |" in body
    assert "| download | opted out robots tag | 6 |" in body
    assert "| score | low similarity | 12 |" in body


def test_the_query_that_the_card_shows_can_be_run(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write_world(build_world(), store)
    publish_dataset(CRAWL, Settings(), store)
    card = store.read(f"dataset/laion/{CRAWL}/README.md").decode()
    query = re.findall(r"```sql\n(.*?)```", card, re.DOTALL)[0]
    monkeypatch.chdir(store.uri(f"dataset/laion/{CRAWL}"))
    rows = duckdb.sql(query).fetchall()
    assert rows
    assert [row[2] for row in rows] == sorted((row[2] for row in rows), reverse=True)


def test_the_card_counts_what_was_left_out_for_opt_outs_and_safety(store: Store) -> None:
    write_world(build_world(), store)
    publish_dataset(CRAWL, Settings(), store)
    card = store.read(f"dataset/laion/{CRAWL}/README.md").decode()
    assert "6 of 240 links were left out because of them" in card
    assert "| X-Robots-Tag header | 6 |" in card
    assert "| robots.txt | 0 |" in card
    assert "| suspected underage (score) | 1 |" in card
    assert "| blocked hash (download) | 0 |" in card
    assert "| duplicate of earlier crawl (load) | 30 |" in card


def test_the_card_names_the_contact_or_says_that_there_is_none(store: Store) -> None:
    write_world(build_world(batches=1), store)
    name = f"dataset/laion/{CRAWL}/README.md"
    publish_dataset(CRAWL, Settings(), store)
    assert b"The publisher named no contact" in store.read(name)
    publish_dataset(CRAWL, changed(Settings(), contact="removal@example.org"), store)
    assert b"write to removal@example.org with the URL" in store.read("dataset/laion/README.md")


def test_the_card_admits_when_opt_outs_were_not_honoured(store: Store) -> None:
    write_world(build_world(batches=1), store)
    settings = Settings()
    publish_dataset(CRAWL, replace(settings, download=replace(settings.download, opt_out=False)), store)
    assert b"were **not** honoured" in store.read(f"dataset/laion/{CRAWL}/README.md")


def test_size_categories_follow_the_hub() -> None:
    assert [size_category(rows) for rows in (0, 999, 1_000, 999_999, 5_000_000_000)] == [
        "n<1K", "n<1K", "1K<n<10K", "100K<n<1M", "1B<n<10B",
    ]  # fmt: skip


def test_foreign_texts_are_cut_to_one_line() -> None:
    assert cut("a\n b\t c") == "a b c"
    assert len(cut("x" * 500)) == 160
    assert cell("a`|\nb\u202e") == "`a b`"


def test_small_shares_are_not_shown_as_nothing() -> None:
    assert [percent(share) for share in (0, 0.0004, 0.1234, 0.9999, 1)] == [
        "0.0%", "<0.1%", "12.3%", "99.99%", "100.0%",
    ]  # fmt: skip
