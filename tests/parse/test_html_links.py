"""What is found in HTML and in HTTP responses; comments name the standards that rows follow."""

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laion_etl.core.caption_source import CaptionSource
from laion_etl.core.funnel import RecordReason
from laion_etl.parse import http_response
from laion_etl.parse.html_decoding import decoded
from laion_etl.parse.html_links import Found, found_in
from laion_etl.parse.http_response import Html, html_of
from laion_etl.parse.page import ImageLink
from laion_etl.parse.srcset import largest

ALL = tuple(CaptionSource)


@pytest.mark.parametrize(
    ("attributes", "url"),
    [
        ('src="a.jpg"', "a.jpg"),
        ('src="my car.jpg" srcset="b.jpg 2x"', "my car.jpg"),
        ("src", ""),
        ("", None),
        ('src="spinner.png" data-src="a.jpg"', "a.jpg"),
        ('data-original="a.jpg"', "a.jpg"),
        ('data-lazy-src="/b/a.jpg" src="data:image/gif;base64,R0lGOD"', "/b/a.jpg"),
        ('src="a.jpg" data-lazy="true"', "a.jpg"),
        ('src="a.jpg" data-src=\'{"url": "/b.jpg"}\'', "a.jpg"),
        ('src="a.jpg" data-src="data:image/gif;base64,R0lGOD/"', "a.jpg"),
        ('src="a.jpg" srcset="b.jpg 2x"', "a.jpg"),
        ('srcset="a.jpg 320w, b.jpg 1280w, c.jpg 640w"', "b.jpg"),
        ('src="data:image/gif;base64,R0lGOD" srcset="a.jpg, b.jpg 1.5x"', "b.jpg"),
        ('src="" data-srcset="a.jpg 320w"', "a.jpg"),
        ('src="data:image/gif;base64,R0lGOD"', "data:image/gif;base64,R0lGOD"),
    ],
)
def test_where_an_image_is(attributes: str, url: str | None) -> None:
    [image] = found_in(f"<p><img alt='x' {attributes}>", ()).images
    assert image.url == url


def test_images_of_amp_pages_are_found_in_their_order_and_in_figures() -> None:
    page = "<img src=a><figure><amp-img src=b alt=x></amp-img><figcaption>C</figcaption></figure><img src=c>"
    images = found_in(page, ALL).images
    assert [(image.url, image.alt, image.text) for image in images] == [
        ("a", None, None),
        ("b", "x", "C"),
        ("c", None, None),
    ]


@pytest.mark.parametrize(
    ("srcset", "url"),
    [
        ("a.jpg", "a.jpg"),
        ("a.jpg 1x, b.jpg 2x", "b.jpg"),
        ("a,b.jpg 100w,c.jpg 200w", "c.jpg"),
        ("a.jpg, b.jpg", "a.jpg"),
        (" \n,a.jpg\n 2x ,", "a.jpg"),
        ("a.jpg 100w 50h, b.jpg 0.5x", "b.jpg"),
        ("a.jpg big, b.jpg 1x", "b.jpg"),
        ("data:image/png;base64,AA 9x, b.jpg 1x", "b.jpg"),
        ("", None),
        (", ,", None),
        ("a.jpg -1x", None),
    ],
)
def test_the_largest_image_of_a_set(srcset: str, url: str | None) -> None:
    """HTML 4.8.4.2.1; a width without a density is compared as it is."""
    assert largest([srcset]) == url


def test_a_picture_gives_its_image_the_largest_source_that_can_be_downloaded() -> None:
    html = """<picture>
      <source type="image/avif" srcset="a.avif 4000w">
      <source type="image/webp" srcset="a.webp 1600w">
      <source srcset="a.jpg 800w"><img alt="A car"></picture>
    <picture><source srcset="b.webp"><img src="b.jpg" alt="A boat"></picture>"""
    assert [image.url for image in found_in(html, ()).images] == ["a.webp", "b.jpg"]


def test_images_for_readers_without_scripts_are_found() -> None:
    html = "<img src='data:,' class=lazy alt='A car'><noscript><img src='a.jpg' alt='A car'></noscript>"
    assert [image.url for image in found_in(html, ()).images] == ["data:,", "a.jpg"]


def test_texts_are_as_the_page_has_them() -> None:
    html = "<img src=a.jpg alt='R&eacute;sum&#233; &amp; more' title=''><img src=b.jpg alt><img src=c.jpg>"
    assert found_in(html, ()).images == [
        ImageLink("a.jpg", "Résumé & more", ""),
        ImageLink("b.jpg", ""),
        ImageLink("c.jpg", None),
    ]


def test_a_figure_of_one_image_gives_it_its_caption() -> None:
    html = """<figure><a><img src=a.jpg></a>
    <figcaption>A <b>red</b> car<br>Photo: <i>N.N.</i></figcaption></figure>
    <figure><img data-src=b.jpg><noscript><img src=b.jpg></noscript><figcaption>A boat</figcaption></figure>
    <figure><img src=c.jpg><img src=d.jpg><figcaption>Two cats</figcaption></figure>
    <figure><img src=e.jpg></figure>"""
    found = [(image.url, image.text) for image in found_in(html, ALL).images]
    assert found == [
        ("a.jpg", "A red car Photo: N.N."),
        ("b.jpg", "A boat"),
        ("b.jpg", "A boat"),
        ("c.jpg", None),
        ("d.jpg", None),
        ("e.jpg", None),
    ]
    assert all(image.text is None for image in found_in(html, ["alt"]).images)


def test_links_to_images_and_previews_are_found_where_they_are_wanted() -> None:
    html = """<head><meta property="og:image" content="/p.jpg">
    <meta property="og:image:alt" content="A car"></head>
    <a href="a.jpg" title="A boat"><img src="s.jpg"></a>
    <a href="b.html">no</a><a href="c.png">A <b>red</b> car</a>"""
    assert [image.source for image in found_in(html, ["alt"]).images] == ["alt"]
    assert found_in(html, ALL).images[1:] == [
        ImageLink("a.jpg", None, "A boat", "", CaptionSource.LINK),
        ImageLink("c.png", None, None, "A red car", CaptionSource.LINK),
        ImageLink("/p.jpg", "A car", source=CaptionSource.OG),
    ]


def test_base_licence_and_language_of_the_page() -> None:
    html = """<html lang="pt_BR"><base href="/x/"><base href="/y/">
    <a rel="license" href="https://creativecommons.org/licenses/by/4.0/deed.pt">CC</a>"""
    assert found_in(html, ()) == Found([], "/x/", "https://creativecommons.org/licenses/by/4.0/", "pt-br")
    assert found_in("<html lang='<script>'>", ()).lang == ""


@pytest.mark.parametrize(
    ("body", "served_as", "text"),
    [
        ("Füße".encode(), "", "Füße"),
        ("Füße".encode("cp1252"), "", "Füße"),
        (b"\x93x\x94", "ISO-8859-1", "“x”"),  # Encoding standard: a label of windows-1252
        (b"\xef\xbb\xbfx\xc3\xa9", "windows-1252", "xé"),  # a byte order mark wins
        (b"\xff\xfex\0", "utf-8", "x"),
        (b"<meta charset=windows-1251>\xcc\xe8\xf0", "", "<meta charset=windows-1251>Мир"),
        (b"<meta charset=windows-1251>\xd0\x9c", "utf-8", "<meta charset=windows-1251>М"),
        (b"<META http-equiv=Content-Type content='text/html; charset=gb2312'>\xc4\xe3", "nonsense",
         "<META http-equiv=Content-Type content='text/html; charset=gb2312'>你"),
        (b"<meta name=x content='charset=big5'><meta charset=gb2312>\xc4\xe3", "",
         "<meta name=x content='charset=big5'><meta charset=gb2312>你"),
        (b"<!--> <!-- <meta charset=big5> --><meta charset=gb2312>\xc4\xe3", "",
         "<!--> <!-- <meta charset=big5> --><meta charset=gb2312>你"),
        (b"<meta charset=x><meta data-charset=big5 charset = 'gb2312'>\xc4\xe3", "x",
         "<meta charset=x><meta data-charset=big5 charset = 'gb2312'>你"),
        (b"<meta charset=utf-16>\xc3\xa9", "", "<meta charset=utf-16>é"),
        (b"+ADw-script+AD4-", "utf-7", "+ADw-script+AD4-"),
        (b"<?xml version='1.0' encoding='koi8-r'?>\xed", "", "<?xml version='1.0' encoding='koi8-r'?>М"),
        (b"x\xff\xc3", "utf-8", "x\ufffd\ufffd"),
        ("é".encode()[:1], "", "\ufffd"),
    ],
)  # fmt: skip
def test_the_encoding_of_a_page(body: bytes, served_as: str, text: str) -> None:
    assert decoded(body, served_as)[0] == text


PAGE = b"<!doctype html><p>A page</p>"


def http(body: bytes, status: str = "200 OK", **headers: str) -> bytes:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (http(PAGE, Content_Type="text/html"), Html(PAGE, "")),
        (http(PAGE, Content_Type='Text/HTML;charset="UTF-8"'), Html(PAGE, "UTF-8")),
        (http(PAGE, content_type="application/xhtml+xml"), Html(PAGE, "")),
        (http(PAGE), Html(PAGE, "")),
        (http(b"plain"), RecordReason.NOT_A_PAGE),
        (http(PAGE, Content_Type="text/plain"), RecordReason.NOT_A_PAGE),
        (http(PAGE, status="404 Not Found", Content_Type="text/html"), RecordReason.NOT_A_PAGE),
        (http(PAGE, status="2000 x", Content_Type="text/html"), RecordReason.NOT_A_PAGE),
        (b"HTTP/2 200\r\ncontent-type: text/html\r\n\r\n" + PAGE, Html(PAGE, "")),
        (b"", RecordReason.NOT_A_PAGE),
        (http(b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n", Content_Type="text/html", Transfer_Encoding="chunked"),
         Html(b"abcde", "")),
        (http(PAGE, Content_Type="text/html", Transfer_Encoding="chunked"), Html(PAGE, "")),
        (http(gzip.compress(PAGE), Content_Type="text/html", Content_Encoding="gzip"), Html(PAGE, "")),
        (http(gzip.compress(PAGE)[:-9], Content_Type="text/html", Content_Encoding="gzip"), Html(PAGE, "")),
        (http(zlib.compress(PAGE), Content_Type="text/html", Content_Encoding="deflate"), Html(PAGE, "")),
        (http(zlib.compress(PAGE, wbits=-15), Content_Type="text/html", Content_Encoding="deflate"),
         Html(PAGE, "")),
        (http(PAGE, Content_Type="text/html", Content_Encoding="gzip"), Html(PAGE, "")),
        (http(gzip.compress(gzip.compress(PAGE)), Content_Type="text/html",
              Content_Encoding="gzip, ,gzip,identity"),
         Html(PAGE, "")),
        (http(PAGE, Content_Type="text/html", Content_Encoding="gzip,gzip,gzip"),
         RecordReason.PAGE_UNREADABLE),
        (http(b"\x1b\x00", Content_Type="text/html", Content_Encoding="br"), RecordReason.PAGE_UNREADABLE),
        (http(b"\x1f\x8bnothing", Content_Type="text/html", Content_Encoding="gzip"),
         RecordReason.PAGE_UNREADABLE),
    ],
)  # fmt: skip
def test_the_html_of_a_response(payload: bytes, expected: Html | RecordReason) -> None:
    assert html_of(payload) == expected


def test_a_page_that_inflates_without_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_response, "MAX_HTML_BYTES", 1_000)
    packed = gzip.compress(b"<html>" + bytes(5_000_000))
    found = html_of(http(packed, Content_Type="text/html", Content_Encoding="gzip"))
    assert isinstance(found, Html)
    assert len(found.body) == 1_000


PIECES = st.one_of(
    st.sampled_from(
        [
            *("<img ", "src=a.jpg", " alt='", "'>", "<picture><source ", "srcset='", "a 1x, ", "<figure>"),
            *("<figcaption>", "</figure>", "<a href=a.jpg>", "<meta property=og:image content=", "<table>"),
            *("<template>", "<svg>", "<noscript>", "<base href=", "<html lang=", "<!--", "\0", "&#xd800;"),
        ]
    ),
    st.text(max_size=9),
)


@given(st.lists(PIECES, max_size=25).map("".join))
def test_any_html_has_texts_that_can_be_stored(html: str) -> None:
    found = found_in(decoded(html.encode(errors="replace"), "")[0], ALL)
    texts = [text for image in found.images for text in (image.url, image.alt, image.title, image.text)]
    "".join(text or "" for text in [*texts, found.base, found.lang, found.licence]).encode()


@given(st.binary(max_size=300))
def test_any_payload_gives_html_or_a_reason(payload: bytes) -> None:
    for data in (payload, b"HTTP/1.1 200 OK\r\n" + payload, http(payload, Content_Encoding="gzip, deflate")):
        assert isinstance(html_of(data), (Html, RecordReason))
