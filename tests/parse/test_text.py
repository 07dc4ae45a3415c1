import pytest

from laion_etl.parse.text import clean_alt


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("A red car", "A red car"),
        ("  A\tred \r\n car\u00a0", "A red car"),
        ("caf\u00c3\u00a9 terrace", "café terrace"),  # UTF-8 read as Latin-1
        ("fish &amp; chips", "fish & chips"),
        ("a\u0000b\u0007c", "a b c"),
        ("left\u202eright\u202c", "leftright"),  # bidi override
        ("zero\u200bwidth", "zerowidth"),
        (
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        ),
        (
            "\U0001f468\u200d\U0001f469\u200d\U0001f467 family",
            "\U0001f468\u200d\U0001f469\u200d\U0001f467 family",
        ),
        ("e\u0301cole", "école"),  # NFC
        ("\ud800 lone surrogate", "\ufffd lone surrogate"),
        ("", ""),
        (" \n\t ", ""),
    ],
)
def test_alt_texts_are_cleaned(raw: str, clean: str) -> None:
    assert clean_alt(raw, 2000) == clean


def test_a_long_text_is_cut_without_trailing_space() -> None:
    assert clean_alt("ab " * 2000, 10) == "ab ab ab a"
    assert clean_alt("abc " * 2000, 8) == "abc abc"


def test_a_cleaned_text_is_clean() -> None:
    for raw in ("caf\u00c3\u00a9 \u200b x", "a\u0000 b", "&lt;b&gt; bold"):
        once = clean_alt(raw, 2000)
        assert clean_alt(once, 2000) == once


def test_megabytes_of_alt_are_cut_before_repair() -> None:
    assert clean_alt("é" * 5_000_000, 2000) == "é" * 2000
