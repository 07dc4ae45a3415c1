import pytest

from laion_etl.parse.licence import page_licence


@pytest.mark.parametrize(
    ("links", "licence"),
    [
        ([], "?"),
        (["https://example.org/"], "?"),
        (
            ["/x", "http://creativecommons.org/licenses/by-sa/3.0/de/"],
            "https://creativecommons.org/licenses/by-sa/3.0/",
        ),
        (
            ["//www.CreativeCommons.org/publicdomain/zero/1.0"],
            "https://creativecommons.org/publicdomain/zero/1.0/",
        ),
        (["https://example.org/?u=https://creativecommons.org/licenses/by/4.0/"], "?"),
    ],
)
def test_the_licence_of_a_page(links: list[str], licence: str) -> None:
    assert page_licence(links) == licence
