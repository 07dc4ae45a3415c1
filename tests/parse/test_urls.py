import pytest

from laion_etl.funnel import ParseReason
from laion_etl.parse.urls import host_of, image_url, page_base, registered_domain
from laion_etl.settings import ParseSettings

PAGE = "https://www.example.org/shop/item.html?id=1"


@pytest.mark.parametrize(
    ("raw", "url"),
    [
        ("http://a.example/i.jpg", "http://a.example/i.jpg"),
        ("//cdn.example/i.jpg", "https://cdn.example/i.jpg"),
        ("i.jpg", "https://www.example.org/shop/i.jpg"),
        ("../i.jpg", "https://www.example.org/i.jpg"),
        ("/i.jpg#top", "https://www.example.org/i.jpg"),
        ("?img=2", "https://www.example.org/shop/item.html?img=2"),
        ("HTTP://A.Example:80/I.jpg", "http://a.example/I.jpg"),
        (" http://a.example/\ni.jpg ", "http://a.example/i.jpg"),
        ("http://a.example/a b.jpg", "http://a.example/a%20b.jpg"),
        ("http://b\u00fccher.example/i.jpg", "http://xn--bcher-kva.example/i.jpg"),
        ("\\\\a.example\\i.jpg", "https://a.example/i.jpg"),
        ("http://0x7f.1/i.jpg", "http://127.0.0.1/i.jpg"),  # refused by the downloader's guard
    ],
)
def test_links_resolve_by_the_url_standard(raw: str, url: str) -> None:
    assert image_url(raw, PAGE, ParseSettings()) == url


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("data:image/png;base64,AAAA", ParseReason.URL_SCHEME),
        ("javascript:void(0)", ParseReason.URL_SCHEME),
        ("blob:https://a.example/1", ParseReason.URL_SCHEME),
        ("ftp://a.example/i.jpg", ParseReason.URL_SCHEME),
        ("http://", ParseReason.URL_INVALID),
        ("http://a b/i.jpg", ParseReason.URL_INVALID),
        ("http://user:secret@a.example/i.jpg", ParseReason.URL_INVALID),
        ("http://a.example/i.SVG", ParseReason.URL_EXTENSION),
        ("http://a.example/i.gif?x=1", ParseReason.URL_EXTENSION),
        (f"http://{'a' * 60}.example/i.jpg", ParseReason.HOST_TOO_LONG),
        (f"http://a.example/{'a' * 2000}.jpg", ParseReason.URL_TOO_LONG),
        ("a" * 1_000_000, ParseReason.URL_TOO_LONG),
    ],
)
def test_unacceptable_links_have_a_reason(raw: str, reason: ParseReason) -> None:
    assert image_url(raw, PAGE, ParseSettings()) is reason


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        (None, PAGE),
        ("", PAGE),
        ("https://static.example/x/", "https://static.example/x/"),
        ("/assets/", "https://www.example.org/assets/"),
        ("http://[broken", PAGE),
    ],
)
def test_base_overrides_the_page_url(base: str | None, expected: str) -> None:
    assert page_base(PAGE, base) == expected


def test_a_link_of_a_page_without_usable_url_is_invalid() -> None:
    assert image_url("i.jpg", "not a url", ParseSettings()) is ParseReason.URL_INVALID


@pytest.mark.parametrize(
    ("url", "domain"),
    [
        ("https://img.shop.co.uk/a.jpg", "shop.co.uk"),
        ("https://a.b.example.com/a.jpg", "example.com"),
        ("http://127.0.0.1/a.jpg", "127.0.0.1"),
        ("http://localhost/a.jpg", "localhost"),
    ],
)
def test_the_registered_domain(url: str, domain: str) -> None:
    assert registered_domain(host_of(url)) == domain
