import pytest

from laion_etl.parse.language import LanguageDetector
from laion_etl.parse.licence import page_licence
from laion_etl.settings import ParseSettings


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("A red circle on a wide green field in the summer", "en"),
        ("Ein roter Kreis auf einer grünen Wiese im Sommer", "de"),
        ("Un cercle rouge sur une grande prairie verte en été", "fr"),
        ("Красный круг на зелёном поле летом", "ru"),
        ("Krasnyy krug na zelonom pole letom v derevne", "ru"),  # ru-Latn
        ("IMG 20190304 1123", ""),
        ("ab", ""),
        ("", ""),
    ],
)
def test_languages(text: str, code: str) -> None:
    assert LanguageDetector(ParseSettings()).detect(text).code == code


def test_probability_is_a_share() -> None:
    found = LanguageDetector(ParseSettings()).detect("A red circle on a wide green field in the summer")
    assert 0.7 < found.probability <= 1


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
