"""Queries of links on pages that are not in UTF-8: expected bytes follow from WHATWG URL and Encoding."""

from typing import Any

import numpy as np
import pytest

from laion_etl.blocklists import Blocklists
from laion_etl.core.byte_arena import ByteArena
from laion_etl.parse.link_batch import ImageLink, Page, link_batches
from laion_etl.parse.link_filters import LinkFilters
from laion_etl.settings import ParseSettings
from laion_etl.urls.legacy_queries import encode_queries
from tests.parse.outcomes import read_pairs
from tests.parse.wat_files import image, json_record

PAGE = "https://shop.example.org/x/"
TEXT = "A red car on a green field"


def content_type(charset: str) -> dict[str, str]:
    return {"http-equiv": "Content-Type", "content": f"text/html; charset={charset}"}


def url_on_page(
    url: str, metas: list[dict[str, Any]] | None = None, headers: dict[str, Any] | None = None
) -> str:
    """The URL of an image link on a page with these meta elements and headers."""
    html = {"Head": {"Metas": metas or []}, "Links": [image(url, TEXT)]}
    record = json_record(PAGE, {"HTTP-Response-Metadata": {"Headers": headers or {}, "HTML-Metadata": html}})
    [row] = read_pairs(record)
    return str(row["url"])


@pytest.mark.parametrize(
    ("charset", "url", "absolute"),
    [
        ("windows-1251", "photo.php?name=дом&n=1", "photo.php?name=%E4%EE%EC&n=1"),
        ("KOI8-R", "p?n=дом", "p?n=%C4%CF%CD"),
        ("iso-8859-1", "p?n=é€", "p?n=%E9%80"),  # which is windows-1252
        ("iso-8859-2", "p?n=żółć", "p?n=%BF%F3%B3%E6"),
        ("gb2312", "p?n=中文", "p?n=%D6%D0%CE%C4"),
        ("gbk", "p?n=中€€文", "p?n=%D6%D0%80%80%CE%C4"),  # which Python's codec lacks
        ("gbk", "p?n=€", "p?n=%80"),
        ("gb18030", "p?n=€", "p?n=%A2%E3"),
        ("big5", "p?n=中文", "p?n=%A4%A4%A4%E5"),
        ("Shift_JIS", "p?n=表", "p?n=%95\\"),  # a second byte in ASCII stays
        ("euc-jp", "p?n=日本～", "p?n=%C6%FC%CB%DC%A1%C1"),
        ("iso-2022-jp", "p?n=日本", "p?n=%1B$BF|K\\%1B(B"),
        ("euc-kr", "p?n=한글", "p?n=%C7%D1%B1%DB"),
        ("tis-620", "p?n=ไทย", "p?n=%E4%B7%C2"),
        ("latin1", "p?n=дé", "p?n=%26%231076%3B%E9"),  # the encoding lacks a letter: its reference
        ("windows-1251", "дом?дом#дом?", "%D0%B4%D0%BE%D0%BC?%E4%EE%EC"),  # only the query
        ("windows-1251", "p#?дом", "p"),
        ("windows-1251", "p?q=%D0%B4&n=д", "p?q=%D0%B4&n=%E4"),
        ("utf-8", "p?n=дом", "p?n=%D0%B4%D0%BE%D0%BC"),
        ("utf-16le", "p?n=дом", "p?n=%D0%B4%D0%BE%D0%BC"),
        ("no-such-encoding", "p?n=дом", "p?n=%D0%B4%D0%BE%D0%BC"),
    ],
)
def test_a_query_is_in_the_encoding_of_its_page(charset: str, url: str, absolute: str) -> None:
    assert url_on_page(url, [content_type(charset)]) == PAGE + absolute


@pytest.mark.parametrize(
    ("metas", "headers", "query"),
    [
        ([], {}, "%D0%B4"),
        ([{"charset": "windows-1251"}], {}, "%E4"),
        ([content_type('"windows-1251"')], {}, "%E4"),
        ([{"name": "description", "content": "charset=koi8-r"}, content_type("cp1251")], {}, "%E4"),
        ([content_type("utf-8"), content_type("windows-1251")], {}, "%D0%B4"),  # the first one
        ([content_type("utf-8")], {"content-type": "text/html;charset=windows-1251"}, "%E4"),  # headers first
        ([content_type("windows-1251")], {"Content-Type": "text/html"}, "%E4"),
        ([content_type("windows-1251")], {"Content-Type": "text/html; charset=nonsense"}, "%E4"),
        ([content_type("nonsense"), {"charset": "none"}, content_type("cp1251")], {}, "%E4"),
        ([], {"Content-Type": ["text/html", "text/html; charset=windows-1251"]}, "%E4"),
    ],
)
def test_what_a_page_states_as_its_encoding(
    metas: list[dict[str, Any]], headers: dict[str, Any], query: str
) -> None:
    assert url_on_page("p?д", metas, headers) == f"{PAGE}p?{query}"


def test_a_url_that_is_far_too_long_is_not_encoded() -> None:
    arena = ByteArena(1 << 10)
    spans = [arena.add(f"p?{'д' * letters}".encode()) for letters in (1, 20, 100)]
    starts, ends = (np.array(column, np.int32) for column in zip(*spans, strict=True))
    encode_queries(arena, (starts, ends), np.zeros(3, np.int32), {0: "cp1251"}, max_chars=10)
    found = [arena.text(start, end) for start, end in zip(starts, ends, strict=True)]
    assert found == ["p?%E4", "p?" + "%E4" * 20, "p?" + "д" * 100]


def test_pages_of_other_sources_may_name_their_encoding() -> None:
    images = [ImageLink("p?д", TEXT), ImageLink("q?e", TEXT)]
    pages = [Page(PAGE, images, charset="windows-1251"), Page(f"{PAGE}y/", images)]
    filters = LinkFilters(ParseSettings(), Blocklists())
    urls = [
        row["url"]
        for batch in link_batches(pages)
        for table in filters.pairs(batch)
        for row in table.to_pylist()
    ]
    assert urls == [f"{PAGE}p?%E4", f"{PAGE}q?e", f"{PAGE}y/p?%D0%B4", f"{PAGE}y/q?e"]
