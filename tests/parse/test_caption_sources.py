"""Captions from other places than alt: which are taken, which of two wins, and what is counted."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from laion_etl.core.caption_source import CaptionSource
from laion_etl.core.errors import SettingsError
from laion_etl.core.stage_stats import StageStats
from laion_etl.io.storage import LocalStore, Store
from laion_etl.parse.image_links import names_image, preview_images
from laion_etl.parse.page import ImageLink
from laion_etl.parse.stage import parse_fingerprint, parse_partition
from laion_etl.settings import ParseSettings, Settings
from tests.parse.wat_files import image, json_record, page_record, write_wat

PAGE = "https://www.example.org/x/"
ALL = ("alt", "title", "link", "og")


def link(url: str, text: str | None = None, title: str | None = None) -> dict[str, Any]:
    return {"path": "A@/href", "url": url} | {
        name: value for name, value in (("text", text), ("title", title)) if value is not None
    }


def preview_record(metas: list[dict[str, str]], links: list[dict[str, Any]]) -> bytes:
    html = {"Head": {"Metas": metas}, "Links": links}
    return json_record(PAGE, {"HTTP-Response-Metadata": {"HTML-Metadata": html}})


def parsed(
    files: list[bytes], captions: tuple[str, ...], folder: Path, **others: Any
) -> tuple[list[tuple[str, str, str]], StageStats]:
    """(file name of the image, caption, source) of each pair, and the stats."""
    paths = [write_wat(folder / f"{number}.wat.gz", [data]) for number, data in enumerate(files)]
    store = LocalStore(folder / "-".join(captions))
    settings = Settings(parse=ParseSettings(captions=captions, language_detector="none", jobs=1, **others))
    stats = parse_partition("C", 0, list(enumerate(paths)), settings, store)
    with store.open("pairs/C/part-00000.parquet") as file:
        rows = pq.ParquetFile(file).read().to_pylist()
    return [(row["url"].rpartition("/")[2], row["caption"], row["caption_source"]) for row in rows], stats


LINKS = [
    image("a.jpg", "A red car", "Our new red car"),
    image("b.jpg", "ab", "A blue car"),
    image("c.jpg", None, "A green car"),
    image("d.jpg", "", "cd"),
    image("e.jpg", None, None),
    link("f.jpg", "Enlarge this picture", "A yellow car"),
    link("g.jpg?size=2", "A black car", "no"),
    link("h.jpg", "", None),
    link("i.html", "A page about cars"),
]
METAS = [
    {"property": "og:image", "content": "/j.jpg"},
    {"property": "og:image:alt", "content": "A white car"},
    {"property": "og:image", "content": "/k.jpg"},
]
RECORD = preview_record(METAS, LINKS)


@pytest.mark.parametrize(
    ("captions", "more"),
    [
        (("alt",), []),
        (("alt", "title"), [("b.jpg", "A blue car", "title"), ("c.jpg", "A green car", "title")]),
        (("alt", "link"), [("f.jpg", "A yellow car", "link"), ("g.jpg?size=2", "A black car", "link")]),
        (("alt", "og"), [("j.jpg", "A white car", "og")]),
    ],
)
def test_each_source_adds_its_pairs(
    captions: tuple[str, ...], more: list[tuple[str, str, str]], tmp_path: Path
) -> None:
    found, _ = parsed([RECORD], captions, tmp_path)
    assert found == [("a.jpg", "A red car", "alt"), *more]


def test_all_links_of_all_sources_are_counted(tmp_path: Path) -> None:
    found, stats = parsed([RECORD], ALL, tmp_path)
    assert [source for _, _, source in found] == ["alt", "title", "title", "link", "link", "og"]
    assert (stats.input, stats.kept) == (10, 6)
    assert stats.dropped == {"no_alt": 3, "alt_too_short": 1}
    assert stats.details["caption_sources"] == {
        "alt": {"links": 3, "kept": 1},
        "title": {"links": 2, "kept": 2},
        "link": {"links": 3, "kept": 2},
        "og": {"links": 2, "kept": 1},
    }


@pytest.mark.parametrize("reverse", [False, True])
def test_of_two_equal_pairs_of_a_page_the_first_source_wins(reverse: bool, tmp_path: Path) -> None:
    """alt, title, link, og: whatever their order on the page."""
    caption = "A red car"
    links = [
        image("a.jpg", None, caption),
        image("a.jpg", caption),
        link("a.jpg", caption),
        link("b.jpg", caption),
        image("b.jpg", "", caption),
        link("/c.jpg", caption),
    ]
    metas = [{"property": "og:image", "content": "/c.jpg"}, {"property": "og:image:alt", "content": caption}]
    page = preview_record(metas, links[::-1] if reverse else links)
    found, stats = parsed([page], ALL, tmp_path)
    assert sorted(found) == [
        ("a.jpg", caption, "alt"),
        ("b.jpg", caption, "title"),
        ("c.jpg", caption, "link"),
    ]
    assert stats.dropped == {"duplicate_in_partition": 4}


def test_between_pages_and_files_the_first_one_wins_and_counts(tmp_path: Path) -> None:
    pages = [
        page_record(PAGE, [link("a.jpg", "A red car")]) + page_record(PAGE, [image("a.jpg", "A red car")]),
        page_record(PAGE, [image("a.jpg", "A red car")]),
    ]
    found, stats = parsed(pages, ALL, tmp_path)
    assert found == [("a.jpg", "A red car", "link")]
    assert stats.details["caption_sources"] == {
        "alt": {"links": 2, "kept": 0},
        "link": {"links": 1, "kept": 1},
    }


def test_a_page_longer_than_a_chunk_of_rows_keeps_the_order_of_sources(tmp_path: Path) -> None:
    filler = [image(f"{number}.jpg", "x") for number in range(20_000)]
    page = page_record(PAGE, [link("a.jpg", "A red car"), *filler, image("a.jpg", "A red car")])
    found, _ = parsed([page], ALL, tmp_path)
    assert found == [("a.jpg", "A red car", "alt")]


def test_other_sources_are_no_part_of_what_a_default_run_was_made_with(tmp_path: Path) -> None:
    """So what an earlier version has parsed is not parsed again."""
    files, default = [(0, "a.wat.gz")], Settings()
    more = replace(default, parse=replace(default.parse, captions=ALL))
    named = replace(default, parse=replace(default.parse, captions=("alt",)))
    assert parse_fingerprint(files, named, "") == parse_fingerprint(files, default, "")
    assert parse_fingerprint(files, more, "") != parse_fingerprint(files, default, "")
    _, stats = parsed([RECORD], ("alt",), tmp_path)
    assert "caption_sources" not in stats.details
    assert "captions" not in stats.details["rules"]


def test_alt_cannot_be_left_out() -> None:
    with pytest.raises(SettingsError, match="alt is missing; the other sources only add to it"):
        ParseSettings(captions=("title",))


def test_an_interrupted_partition_has_the_counts_of_one_that_was_not(tmp_path: Path, store: Store) -> None:
    paths = [write_wat(tmp_path / f"{number}.wat.gz", [RECORD]) for number in range(2)]
    settings = Settings(parse=ParseSettings(captions=ALL, language_detector="none", jobs=1))
    whole = parse_partition("C", 0, list(enumerate(paths)), settings, LocalStore(tmp_path / "whole"))

    def stop(done: int, _: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        parse_partition("C", 0, list(enumerate(paths)), settings, store, stop)
    resumed = parse_partition("C", 0, list(enumerate(paths)), settings, store)
    assert resumed == whole


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("/a.jpg", True),
        ("A.JPEG?x=1#y", True),
        (" photo.webp ", True),
        ("x.png#/", True),
        ("https://example.org/", False),
        ("/a.gif", False),
        ("/a.html?image=b.jpg", False),
        ("/wiki/File:A.jpg", False),
        ("/a:b/c.jpg", True),
        ("", False),
        (".jpg", True),
    ],
)
def test_which_links_are_links_to_images(url: str, expected: bool) -> None:
    assert names_image(url) is expected


def test_an_alt_belongs_to_the_preview_before_it() -> None:
    def og(url: str, alt: str | None) -> ImageLink:
        return ImageLink(url, alt, source=CaptionSource.OG)

    metas = [
        ("og:image:alt", "before any"),
        ("og:image", "a.jpg"),
        ("og:image:url", "a.jpg"),
        ("og:image:width", "600"),
        ("og:image:alt", "first"),
        ("og:image:alt", "second"),
        ("og:image", "b.jpg"),
        (None, None),
    ]
    assert preview_images(metas) == [og("a.jpg", "first"), og("b.jpg", None)]
    assert preview_images([("og:image:url", "c.jpg"), ("og:image:alt", "x")]) == [og("c.jpg", "x")]
