import ada_url
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from laion_etl.core.funnel import ParseReason
from laion_etl.urls.normalize import page_base, resolve, without_credentials
from tests.parse.outcomes import url_outcome

PAGE = "https://www.example.org/shop/item.html?id=1"


@pytest.mark.parametrize(
    ("raw", "url"),
    [
        ("http://a.example/i.jpg", "http://a.example/i.jpg"),
        ("//cdn.example/i.jpg", "https://cdn.example/i.jpg"),
        ("i.jpg", "https://www.example.org/shop/i.jpg"),
        ("../i.jpg", "https://www.example.org/i.jpg"),
        ("../../../i.jpg", "https://www.example.org/i.jpg"),
        ("./a/./i.jpg", "https://www.example.org/shop/a/i.jpg"),
        ("/i.jpg#top", "https://www.example.org/i.jpg"),
        ("?img=2", "https://www.example.org/shop/item.html?img=2"),
        ("HTTP://A.Example:80/I.jpg", "http://a.example/I.jpg"),
        (" http://a.example/\ni.jpg ", "http://a.example/i.jpg"),
        ("http://a.example/a b.jpg", "http://a.example/a%20b.jpg"),
        ("http://a.example/%7euser/%c3%a9.jpg", "http://a.example/%7euser/%c3%a9.jpg"),
        (
            "/i%2dj.jpg?sig=%2bAb%2F%7e",
            "https://www.example.org/i%2dj.jpg?sig=%2bAb%2F%7e",
        ),  # signed as it is
        ("/x/%2e%2E/i.jpg?p=/%2e%2e/", "https://www.example.org/i.jpg?p=/%2e%2e/"),
        ("/a%2e%2e/i.jpg", "https://www.example.org/a%2e%2e/i.jpg"),
        ("http://a.example/100%/%7e.jpg", "http://a.example/100%/%7e.jpg"),  # a stray percent sign
        ("http://b\u00fccher.example/i.jpg", "http://xn--bcher-kva.example/i.jpg"),
        ("\\\\a.example\\i.jpg", "https://a.example/i.jpg"),
        ("http://0x8.0x8.2056/i.jpg", "http://8.8.8.8/i.jpg"),
    ],
)
def test_links_resolve_by_the_url_standard(raw: str, url: str) -> None:
    assert url_outcome(raw, PAGE) == url


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
        ("http://0x7f.1/i.jpg", ParseReason.HOST_NOT_PUBLIC),
        ("http://intranet/i.jpg", ParseReason.HOST_NOT_PUBLIC),
        ("https://b.scorecardresearch.com/p?c1=2", ParseReason.TRACKER),
        ("https://www.facebook.com/tr?id=1", ParseReason.TRACKER),
        ("/shop/SPACER.png?v=2", ParseReason.TRACKER),
    ],
)
def test_unacceptable_links_have_a_reason(raw: str, reason: ParseReason) -> None:
    assert url_outcome(raw, PAGE) is reason


@pytest.mark.parametrize(
    ("raw", "url"),
    [
        ("/i.jpg", "https://www.example.org/i.jpg"),
        ("i.jpg", "https://www.example.org/shop/i.jpg"),
        ("//cdn.example/i.jpg", "https://cdn.example/i.jpg"),
        ("https://me:pw@cdn.example/i.jpg", ParseReason.URL_INVALID),
    ],
)
def test_links_do_not_take_the_user_name_of_their_page(raw: str, url: str | ParseReason) -> None:
    assert url_outcome(raw, "https://editor:secret@www.example.org/shop/item.html") == url
    assert (
        without_credentials("https://editor:secret@www.example.org/a?b=@c")
        == "https://www.example.org/a?b=@c"
    )


@pytest.mark.parametrize(
    ("url", "stored"),
    [
        ("http://editor:secret@a.example:99999/?b=@c", "http://a.example:99999/?b=@c"),
        ("http://editor:se@cret@[bad/", "http://[bad/"),
        ("//editor:secret@a.example/", "//a.example/"),
        ("http://bad host/@a/b", "http://bad host/@a/b"),
        ("a@b", "a@b"),
    ],
)
def test_an_invalid_page_url_is_stored_without_user_name_too(url: str, stored: str) -> None:
    assert without_credentials(url) == stored


@pytest.mark.parametrize(
    "raw",
    [
        "{{ image.src }}",
        "/i/{{image.src}}.jpg?w=2",
        "https://cdn.example/i.jpg?of={{ id }}",
        "%7B%7Burl%7D%7D",
        "/i/%7b%7b url %7d%7d.jpg",
        "https://{{ host }}.example/i.jpg",
        "${src}",
        "/i/$%7Bsrc%7D.jpg",
        "i.jpg?of=${id}",
        "<%= src %>",
        "/i/<?php echo $src; ?>",
        "[object Object]",
        "/i/[object HTMLImageElement]",
        "https://a.example/%3C%=%20src%20%%3E",
        "/i/%3c?php%20echo%20$src;%20?%3E",
        "/i/[object%20Object]",
    ],
)
def test_a_template_that_was_not_filled_in_is_not_a_url(raw: str) -> None:
    assert url_outcome(raw, PAGE) is ParseReason.URL_INVALID


@pytest.mark.parametrize(
    ("raw", "url"),
    [
        ("/{0F3A-11}.jpg", "https://www.example.org/%7B0F3A-11%7D.jpg"),
        ("/%7B0F3A-11%7D.jpg", "https://www.example.org/%7B0F3A-11%7D.jpg"),
        ('/i.jpg?q={"a":{"b":1}}', "https://www.example.org/i.jpg?q={%22a%22:{%22b%22:1}}"),
        ("/i_{width}x.jpg", "https://www.example.org/i_%7Bwidth%7Dx.jpg"),
        ("/i.jpg?price=$%7b", "https://www.example.org/i.jpg?price=$%7b"),
        ("/a{{b.jpg", "https://www.example.org/a%7B%7Bb.jpg"),
        ("/a%7B%7B", "https://www.example.org/a%7B%7B"),
        ("/[[1]].jpg", "https://www.example.org/[[1]].jpg"),
        ("/__URL__.jpg", "https://www.example.org/__URL__.jpg"),
        ("/a<b>.jpg", "https://www.example.org/a%3Cb%3E.jpg"),
        ("/[a]%20b%3C.jpg", "https://www.example.org/[a]%20b%3C.jpg"),
    ],
)
def test_what_only_resembles_a_template_is_kept(raw: str, url: str) -> None:
    assert url_outcome(raw, PAGE) == url


@pytest.mark.parametrize("raw", ["https://www.facebook.com/photo/tr.jpg", "/shop/my-pixel.png", "/1x1/a.png"])
def test_what_only_resembles_a_tracker_is_kept(raw: str) -> None:
    assert not isinstance(url_outcome(raw, PAGE), ParseReason)


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        (None, PAGE),
        ("", PAGE),
        ("https://static.example/x/", "https://static.example/x/"),
        ("/assets/", "https://www.example.org/assets/"),
        ("http://[broken", PAGE),
        ("javascript:alert(1)", PAGE),
    ],
)
def test_base_overrides_the_page_url(base: str | None, expected: str) -> None:
    assert page_base(PAGE, base) == expected


@pytest.mark.parametrize(
    ("raw", "url"),
    [
        ("#", None),
        (" #top", None),
        ("item.html?id=1", None),
        ("/shop/../shop/item.html?id=1#a", None),
        ("//www.example.org/shop/item.html?id=1", None),
        ("undefined", None),
        ("/null", None),
        ("NaN", None),
        (PAGE, PAGE),  # a custom source may give an image as its own page
        ("item.html", "https://www.example.org/shop/item.html"),
        ("http://www.example.org/shop/item.html?id=1", "http://www.example.org/shop/item.html?id=1"),
        ("undefined/a.jpg", "https://www.example.org/shop/undefined/a.jpg"),
        ("null.jpg", "https://www.example.org/shop/null.jpg"),
        ("https://img.example.net/undefined", "https://img.example.net/undefined"),
    ],
)
def test_a_link_to_the_page_itself_or_to_a_missing_value_is_not_an_image(raw: str, url: str | None) -> None:
    assert url_outcome(raw, PAGE) == (url or ParseReason.URL_INVALID)


def test_a_link_of_a_page_without_usable_url_is_invalid() -> None:
    assert url_outcome("i.jpg", "not a url") is ParseReason.URL_INVALID


PARTS = st.sampled_from(
    ["http://", "https://", "HTTP://", "//", "/", "\\", "a", "B.c", "www.a.example", "1.2.3.4", "xn--a", "ü",
    ".", "..",
     "./", "../", "%2e", "%2E%2e", "%7e", "%C3%A9", "%c3", "%", "%%34%31", "?", "#", ":", ":80", ":443", "@",
     "'", "|", "^", " ", "\t", "\n", "[", "]", "[::1]", "~", "!$&()*+,;=", "é", "x.jpg", "-", "_"]
)  # fmt: skip
REFERENCES = st.one_of(st.lists(PARTS, max_size=9).map("".join), st.text(max_size=12))
BASES = st.one_of(
    st.sampled_from([PAGE, "http://a.example/", "http://a.example", "https://a.example/b/c/../d?e/f#g", "http://A.b:8080/c/d"]),
    REFERENCES.map("http://a.example/".__add__),
)  # fmt: skip


@settings(max_examples=1000)
@given(REFERENCES, BASES)
@example("../i.jpg", "https://a.example//")
@example("..", "https://a.example/b/c")
@example("a:b.jpg", PAGE)
@example("a/b:c.jpg", PAGE)
def test_a_column_of_urls_resolves_as_the_parser_does(raw: str, base: str) -> None:
    """The kernel's short way, against ada with every check by hand."""
    page = base if base.isascii() and base.isprintable() and " " not in base and base else PAGE
    found = url_outcome(raw, page) if raw else ParseReason.NO_URL
    expected = resolve(raw, page) if raw else ParseReason.NO_URL
    if isinstance(expected, ParseReason):
        assert found is expected
    elif not isinstance(found, ParseReason):
        assert found == expected


@given(REFERENCES)
def test_a_resolved_url_is_in_its_normal_form(raw: str) -> None:
    url = resolve(raw, PAGE)
    if not isinstance(url, ParseReason):
        assert resolve(url, "https://else.example/") == url
        assert ada_url.URL(url).href == url
