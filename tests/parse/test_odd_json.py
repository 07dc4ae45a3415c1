"""JSON that is valid and that the extractor does not write: kernels read it as Python does."""

import pytest

from tests.parse.outcomes import read, read_without_kernels
from tests.parse.wat_files import record

URL = "https://example.org/x/"
IMAGE = '{"path":"IMG@/src","url":"a.jpg","alt":"A red car"}'


def payload(links: str = IMAGE, head: str = "", more: str = "") -> str:
    html = f'{{"Head":{{{head}}},"Links":[{links}]}}'
    response = f'{{"Headers":{{"Server":"x"}},"HTML-Metadata":{html}{more}}}'
    return f'{{"Envelope":{{"Payload-Metadata":{{"HTTP-Response-Metadata":{response}}}}}}}'


LINKS = {
    r'{"path":"\u0049MG@\/src","url":"b.jpg"}': ["b.jpg"],
    r'{"p\u0061th":"IMG@/src","url":"b.jpg"}': ["b.jpg"],
    r'{"path":"IM\u0047@/src","url":"b.jpg"}': ["b.jpg"],
    r'{"path":"IMG@\/src","url":"b.jpg"}': ["b.jpg"],
    r'{"path":"IMG@/src","\u0075rl":"b.jpg"}': ["b.jpg"],
    r'{"path":"IMG@/src","url":"\u0062\u002ejpg"}': ["b.jpg"],
    r'{"path":"IMG@/src","url":"https:\/\/example.org\/b.jpg"}': ["https://example.org/b.jpg"],
    r'{"path":"IMG@/src","url":"b\u0000.jpg"}': ["b\0.jpg"],
    r'{"path":"IMG@/src","url":"b\ud800.jpg"}': ["b\ufffd.jpg"],
    r'{"path":"IMG@/src","url":"\udc00\ud83d\ude97"}': ["\ufffd\U0001f697"],
    '{"path":"IMG@/src","url":"b.jpg","url":"c.jpg"}': ["c.jpg"],
    r'{"path":"IMG@/src","url":"b.jpg","\u0075rl":"c.jpg"}': ["c.jpg"],
    '{"path":"IMG@/src","url":"b.jpg","url":null}': [None],
    '{"path":"A@/href","url":"b.jpg","path":"IMG@/src"}': ["b.jpg"],
    '{"path":"IMG@/src","url":"b.jpg","path":"A@/href"}': [],
    '{"url":"b.jpg","path":"IMG@/src"}': ["b.jpg"],
    ' {\n"path" :\t"IMG@/src" ,\r\n"url": "b.jpg" } ': ["b.jpg"],
    '{"path":"IMG@/src","url":3}': [None],
    '{"path":"IMG@/src","url":"3","width":1e999}': ["3"],
    '{"path":"IMG@/src","url":["b.jpg"]}': [None],
    '{"path":"IMG@/src","url":{"path":"IMG@/src","url":"c.jpg"}}': [None],
    '[{"path":"IMG@/src","url":"b.jpg"}]': [],
    '{"path":["IMG@/src"],"url":"b.jpg"}': [],
    '{"path":"IMG@/src","url":"b.jpg","of":[{"path":"IMG@/src","url":"c.jpg"}]}': ["b.jpg"],
    r'{"path":"IMG@/src","url":"{\"path\":\"IMG@/src\""}': ['{"path":"IMG@/src"'],
    '{"path":"IMG@/src","url":"b\tc.jpg"}': ["b\tc.jpg"],
    "null": [],
}


@pytest.mark.parametrize(("link", "urls"), LINKS.items())
def test_links(link: str, urls: list[str | None]) -> None:
    assert urls_of(link) == urls
    assert urls_of(f"{link},{IMAGE}") == [*urls, "a.jpg"]


def test_a_writer_that_escapes_the_sign_of_an_image_in_every_link() -> None:
    assert urls_of(r'{"path":"IMG\u0040/src","url":"a.jpg"},{"path":"IMG\u0040/src","url":"b.jpg"}') == [
        "a.jpg",
        "b.jpg",
    ]


def urls_of(links: str) -> list[str | None]:
    data = record(URL, payload(links).encode())
    found = read(data)
    assert found == read_without_kernels(data)
    assert found.records["kept"] == 1
    return [image.url for page in found.pages for image in page.images]


@pytest.mark.parametrize(
    ("text", "base"),
    [
        (payload(head=r'"Base":"\/y\/"'), "https://example.org/y/"),
        (payload(head='"Base":"/y/","Base":"/z/"'), "https://example.org/z/"),
        (payload(head='"Base":["/y/"]'), URL),
        (payload(head='"Base" : "/y/"'), "https://example.org/y/"),
        (payload(head='"Base":"/y/","Base":null'), URL),
        (payload(head=r'"Base":"/\u0000/"'), "https://example.org/%00/"),
        (payload(head='"Metas":[{"Base":"/y/"}]'), URL),
        (payload(more=',"Base":"/y/"'), URL),
    ],
)  # fmt: skip
def test_bases(text: str, base: str) -> None:
    data = record(URL, text.encode())
    found = read(data)
    assert [page.base for page in found.pages] == [base]
    assert found == read_without_kernels(data)


OTHER = IMAGE.replace("a.jpg", "b.jpg")


def html(links: str) -> str:
    return f'"HTML-Metadata":{{"Head":{{}},"Links":[{links}]}}'


def page_of(parts: str) -> str:
    return f'"Payload-Metadata":{{"HTML-Metadata":{{{parts}}}}}'


@pytest.mark.parametrize(
    ("envelope", "found"),
    [  # the base and the images of the page, None if there is no page
        (f'"Payload-Metadata":{{{html(IMAGE)}}},"Payload-Metadata":{{}}', None),
        (f'"Payload-Metadata":{{{html(IMAGE)}}},"Payload-Metadata":{{{html(OTHER)}}}', (URL, ["b.jpg"])),
        (f'"Payload-Metadata":{{{html(IMAGE)},{html(OTHER)}}}', (URL, ["b.jpg"])),
        (f'"X":{{{html(IMAGE)}}},"Y":{{{html(OTHER)}}}', (URL, ["a.jpg"])),
        (page_of(f'"Links":[{IMAGE}],"Links":[{OTHER}]'), (URL, ["b.jpg"])),
        (page_of(rf'"Links":[{IMAGE}],"Link\u0073":[{OTHER}]'), (URL, ["b.jpg"])),
        (page_of(f'"Head":{{"Links":[{IMAGE}]}},"Links":[{OTHER}]'), (URL, ["b.jpg"])),
        (page_of(f'"Head":{{"Metas":[{{}},{IMAGE}]}},"Links":[{OTHER}]'), (URL, ["b.jpg"])),
        (page_of(f'"Other":{{"Links":[{IMAGE}]}},"Links":[{OTHER}]'), (URL, ["b.jpg"])),
        (page_of(f'"Links":[{IMAGE}],"More":[{OTHER},{OTHER}]'), (URL, ["a.jpg"])),
        (page_of(f'"Links":[{IMAGE}],"Base":"/y/"'), (URL, ["a.jpg"])),
        (page_of(f'"Links":[{IMAGE}],"Head":{{"Base":"/y/"}}'), ("https://example.org/y/", ["a.jpg"])),
        (page_of(f'"Links":[{IMAGE}]') + ',"Head":{"Base":"/y/"}', (URL, ["a.jpg"])),
        (page_of(rf'"Head":{{"B\u0061se":"/y/"}},"Links":[{IMAGE}]'), ("https://example.org/y/", ["a.jpg"])),
        (page_of(f'"Head":{{"Base":"/z/"}},"Links":[{IMAGE}],"Head":{{}}'), (URL, ["a.jpg"])),
    ],
)  # fmt: skip
def test_what_counts_of_a_page_that_is_there_twice_or_in_another_place(
    envelope: str, found: tuple[str, list[str]] | None
) -> None:
    data = record(URL, f'{{"Envelope":{{{envelope}}}}}'.encode())
    pages = read(data)
    assert pages == read_without_kernels(data)
    assert [(page.base, [image.url for image in page.images]) for page in pages.pages] == [found][
        : bool(found)
    ]
