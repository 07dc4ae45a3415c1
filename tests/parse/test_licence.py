import json

import pytest

from laion_etl.parse.licence import licence_of, page_licence
from tests.parse.outcomes import read, read_without_kernels
from tests.parse.wat_files import image, record

BY = "https://creativecommons.org/licenses/by/4.0/"
BY_SA = "https://creativecommons.org/licenses/by-sa/3.0/"
ZERO = "https://creativecommons.org/publicdomain/zero/1.0/"


@pytest.mark.parametrize(
    ("url", "licence"),
    [
        ("http://creativecommons.org/licenses/by-sa/3.0/de/", BY_SA),
        ("https://creativecommons.org/licenses/by-sa/3.0/legalcode.de", BY_SA),
        ("//www.creativecommons.org/publicdomain/zero/1.0", ZERO),
        (" HTTPS://creativecommons.org/LICENSES/BY/4.0/deed.en ", BY),
        ("https://creativecommons.org/licences/by/4.0", BY),
        (
            "http://creativecommons.org/licenses/by-nd-nc/1.0/",
            "https://creativecommons.org/licenses/by-nc-nd/1.0/",
        ),
        (
            "http://creativecommons.org/publicdomain/mark/1.0/?id=7",
            "https://creativecommons.org/publicdomain/mark/1.0/",
        ),
        (
            "http://creativecommons.org/licenses/publicdomain/",
            "https://creativecommons.org/licenses/publicdomain/",
        ),
        (
            "http://creativecommons.org/licenses/sampling+/1.0/",
            "https://creativecommons.org/licenses/sampling+/1.0/",
        ),
        ("http://CREATIVEcommons.ORG/licenses/by-sa/3.0/", BY_SA),
        ("http://creativecommons.org:80/licenses/by-sa/3.0/", BY_SA),
        ("https://creativecommons.org./licenses/by/4.0/", BY),
        ("https://www.creativecommons.org.:443/licenses/by/4.0/", BY),
        ("https://creativecommons%2Eorg/licenses/by/4.0/", BY),
        ("https://creativecommons\u3002org/licenses/by/4.0/", BY),
        ("https://creativecommons\uff0eORG/licenses/by/4.0/", BY),
        ("https:\\\\creativecommons.org\\licenses\\by\\4.0", BY),
        ("https://creativecommons.org/licenses/b%79/4%2e0/", BY),
        (
            "https://creativecommons.org/licenses/nc-sampling%2B/1.0/",
            "https://creativecommons.org/licenses/nc-sampling+/1.0/",
        ),
        ("https://creative\r\n\tcommons.org/licenses/by/4.0/", BY),
        ("https://creativecommons.org/lic\nenses/by/\n4.0/", BY),
        ("https://creative\u200bcommons.org/licenses/by/4.0/", BY),
        ("https://creative\u00adcommons.org/licenses/by/4.0/", BY),
        ("https://\uff23reativecommons\uff0e\uff4f\uff52\uff47/licenses/by/4.0/", BY),
        ("https://%63reativecommons.or%67/licenses/by/4.0/", BY),
        ("https://creativecommons.org:8080/licenses/by/4.0/", BY),
        ("https://user@creativecommons.org/licenses/by/4.0/", BY),
        ("https://creativecommons.org/x/../licenses/by/4.0/", BY),
        ("https://creativecommons.org@example.org/licenses/by/4.0/", None),
        ("https://creativecommons.org../licenses/by/4.0/", None),
        ("https://commons.example/licenses/by/4.0/", None),
        ("https://creativecommons.org/licenses/by/\uff14.\uff10/", None),  # other digits are another path
        ("https://creativecommons.org/licen\u017fes/by/4.0/", None),  # and so is a long s
        ("https://creativecommons.org/publicdomain/zero/\u0661.\u0660/", None),
        ("ftp://creativecommons.org/licenses/by/4.0/", None),
        ("creativecommons.org/licenses/by/4.0/", None),  # a path of the page's own site
        ("https://creativecommons.org:99999/licenses/by/4.0/", None),
        ("https://creativecommons.org/licenses/by/4.0.1/", None),
        ("https://creativecommons.org/licenses/by-xx/4.0/", None),
        ("https://creativecommons.org/licenses/", None),
        ("https://creativecommons.org/about/", None),
        ("https://notcreativecommons.org/licenses/by/4.0/", None),
        ("https://creativecommons.org.example/licenses/by/4.0/", None),
        ("https://example.org/?u=https://creativecommons.org/licenses/by/4.0/", None),
    ],
)
def test_kind_and_version_of_a_licence(url: str, licence: str | None) -> None:
    assert licence_of(url) == licence


@pytest.mark.parametrize(
    ("links", "licence"),
    [
        ([], "?"),
        ([("https://example.org/", "license")], "?"),
        ([(None, "license"), ("/x", None), (BY_SA, None)], BY_SA),
        ([(BY, None), (BY_SA, None)], BY),
        ([(BY, None), (BY_SA, "nofollow License"), (ZERO, "license")], BY_SA),
    ],
)
def test_the_licence_of_a_page_is_the_one_marked_so_else_the_first(
    links: list[tuple[str | None, str | None]], licence: str
) -> None:
    assert page_licence(links) == licence


@pytest.mark.parametrize(
    ("links", "metas", "licence"),
    [
        ([], [("license", BY)], BY),
        ([], [(" DCTERMS.License ", BY_SA)], BY_SA),
        ([], [("og:license", ZERO)], ZERO),
        ([], [("DC.Rights.License", BY)], BY),
        ([], [("copyright", f"(c) us, licensed under {BY_SA} unless noted")], BY_SA),
        ([], [("cc:license_url", BY)], BY),
        ([], [("description", BY)], "?"),
        ([], [("og:image:license", BY)], "?"),  # that of one image
        ([], [("license", "https://example.org/terms"), ("dc.rights", BY)], BY),
        ([], [(None, BY), ("license", None)], "?"),
        ([(BY, None)], [("license", BY_SA)], BY_SA),  # a link may belong to something on the page
        ([(BY, "license")], [("license", BY_SA)], BY),
    ],
)
def test_a_meta_element_states_the_licence_of_the_page(
    links: list[tuple[str | None, str | None]], metas: list[tuple[str | None, str | None]], licence: str
) -> None:
    assert page_licence(links, metas) == licence


@pytest.mark.parametrize("is_ascii", [True, False])
@pytest.mark.parametrize(
    "host",
    [
        "creativecommons.org",
        "CREATIVEcommons.ORG",
        "creative\ncommons.org",
        "crea\ntivecommons.org",
        "creativecommons.\norg",
        "creativecommons\n.org",
        "creative\u200bcommons.org",
        "creativecommons\u00ad.org",
        "creativ\uff45commons.org",
        "creativecommons.\uff4f\uff52\uff47",
        "creativecommons\uff61org",
        "creativ%65commons%2eorg",
    ],
)
def test_kernels_leave_a_page_to_python_for_any_spelling_of_the_host(host: str, is_ascii: bool) -> None:
    links = [image("a.jpg", "A red car"), {"path": "A@/href", "url": f"https://{host}/licenses/by/4.0/"}]
    html = {"Payload-Metadata": {"HTTP-Response-Metadata": {"HTML-Metadata": {"Links": links}}}}
    payload = json.dumps({"Envelope": html}, ensure_ascii=is_ascii, separators=(",", ":"))
    data = record("https://example.org/", payload.encode())
    assert [page.licence for page in read(data).pages] == [BY]
    assert read(data) == read_without_kernels(data)
