import hashlib
import unicodedata

import ftfy
import numpy as np
import pytest
import unicodedata2
from ftfy.badness import is_bad
from hypothesis import given, settings
from hypothesis import strategies as st

from laion_etl.core.byte_arena import ByteArena
from laion_etl.core.funnel import ParseReason
from laion_etl.parse.kernels.text_repairs import characters_between_quotes
from laion_etl.parse.kernels.texts import plain_capitals, plain_characters
from laion_etl.parse.text import _MAY_BE_MOJIBAKE, clean_alt, clean_texts, repaired
from laion_etl.settings import ParseSettings
from tests.parse.outcomes import link_outcome, read_pairs
from tests.parse.wat_files import image, page_record


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("A red car", "A red car"),
        ("  A\tred \r\n car\u00a0", "A red car"),
        ("caf\u00c3\u00a9 terrace", "café terrace"),  # UTF-8 read as Latin-1
        ("fish &amp; chips", "fish & chips"),
        ("fish &amp;amp; chips", "fish & chips"),
        ("<b>Red</b> house<br/>on a hill", "Red house on a hill"),
        ("&lt;i&gt;Red&lt;/i&gt; house", "Red house"),
        ('<img src="x" alt="y"> Red <!-- not shown --> house', "Red house"),
        ("a < b > c, <3 and <unknown> tags", "a < b > c, <3 and <unknown> tags"),
        ("a\u0000b\u0007c", "abc"),
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
        (
            "Melting face \U0001fae0, splatter \U0001fadf",
            "Melting face \U0001fae0, splatter \U0001fadf",
        ),  # Unicode 14, 16
        ("ideograph \U000323b0", "ideograph \U000323b0"),  # Unicode 17
        ("unassigned \U0003fff0 here", "unassigned here"),
        (
            "Scotland \U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f wins",
            "Scotland \U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f wins",
        ),
        ("tags\U000e0067\U000e007f without a flag", "tags without a flag"),
        ("verse \u06dd\u0663", "verse \u06dd\u0663"),
        ("", ""),
        (" \n\t ", ""),
        ("\u200d", ""),
    ],
)
def test_alt_texts_are_cleaned(raw: str, clean: str) -> None:
    assert clean_alt(raw, 2000) == clean


def test_captions_do_not_depend_on_the_tables_of_python() -> None:
    """Python 3.11 has Unicode 14; the digest is that of captions on any version."""
    newer = [chr(point) for point in (0x1FAE8, 0x31350, 0x1FADC, 0x16D68, 0x20C1, 0x1C89, 0xA7CB)]
    captions = [clean_alt(f"a sign with {character} on it", 2000) for character in newer]
    assert captions == [f"a sign with {character} on it" for character in newer]
    digest = hashlib.md5("\n".join(captions).encode(), usedforsecurity=False).hexdigest()
    assert digest == "57fcddcb239e76547a4d76e439e2149d"


def test_pair_ids_do_not_depend_on_the_tables_of_python() -> None:
    """Stored ids must be the same on every version of Python: published datasets have them."""
    captions = (
        "Shaking face \U0001fae8",
        "Shop sign \U00031350",
        "e\u0301cole ﬁn",
        "İstanbul’da ｂir gün",
        "葛\U000e0100飾 ward",
    )
    links = [image("/a.jpg", caption) for caption in captions]
    ids = [bytes(row["pair_id"]).hex()[:12] for row in read_pairs(page_record("https://example.org/", links))]  # type: ignore[arg-type]
    assert ids == ["49941f8d92c1", "46a4b822b842", "6e9b2825a1a1", "f79f45a8f085", "4a4ac3137753"]


def test_a_long_text_is_cut_without_trailing_space() -> None:
    assert clean_alt("ab " * 2000, 10) == "ab ab ab a"
    assert clean_alt("abc " * 2000, 8) == "abc abc"


def test_a_reference_to_a_character_with_thousands_of_digits_is_no_error() -> None:
    assert clean_alt(f"<b>a</b> sign &#{'1' * 5_000}; on it", 2000) == "a sign \ufffd on it"


def test_megabytes_of_alt_are_cut_before_repair() -> None:
    assert clean_alt("é" * 5_000_000, 2000) == "é" * 2000


def column(texts: list[str], max_chars: int = 2000) -> tuple[list[str], list[int]]:
    """What clean_texts makes of a column, and the lengths it says."""
    arena = ByteArena(100)
    spans = [arena.add(text.encode()) for text in texts]
    starts, ends = (np.array(edge, np.int32) for edge in zip(*spans, strict=True))
    lengths = clean_texts(arena, starts, ends, max_chars)
    return [arena.text(start, end) for start, end in zip(starts, ends, strict=True)], lengths.tolist()


PLAIN = [chr(point) for point in plain_characters()]
CAPITALS = [chr(point) for point in plain_capitals()]
QUOTES = list("’‘“”„\u00a0\u00ad·–—…")
TEXTS = st.one_of(
    st.text(max_size=40),
    st.text(st.sampled_from([*PLAIN, *CAPITALS, *" aZ09.,&-"]), max_size=40),
    st.text(
        st.sampled_from([*(c for c in PLAIN if ord(c) < 0x0600), *CAPITALS, *QUOTES, *" aZ&;<b>\n"]),
        max_size=12,
    ),
    st.text(st.characters(max_codepoint=0x250), max_size=12),
    st.lists(
        st.sampled_from(["&amp;", "&lt;", "<b>", "Ã©", "’", "\u00a0", "В“Р", "é", "É", " ", "a", "ﬁ"])
    ).map("".join),
)


@settings(max_examples=1500)
@given(TEXTS)
def test_a_column_is_cleaned_as_its_texts_are(text: str) -> None:
    clean = clean_alt(text, 20)
    assert column([text, "between", text], 20) == ([clean, "between", clean], [len(clean), 7, len(clean)])


@settings(max_examples=1500)
@given(TEXTS)
def test_the_short_way_repairs_as_ftfy_does(text: str) -> None:
    assert repaired(text) == ftfy.fix_text(text)


KEPT_FORMATS = {
    *"\u200c\u200d\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\u180e\U000110bd\U000110cd",
    *map(chr, range(0x13430, 0x13440)),
    *map(chr, range(0xE0020, 0xE0080)),  # of flags
}


def test_every_pair_of_plain_characters_is_clean_as_it_is() -> None:
    """ftfy repairs a line that has characters in an order of damaged text, wherever that is in it, and single
    characters: where it leaves a line of pairs as it is, there is no pair to repair."""
    letters = [c for c in PLAIN if ord(c) < 0x0E00 or 0x1E00 < ord(c) < 0x3100] + ["一", "가", "a", "1", "."]
    texts = [f"{first}{second} x" for first in letters for second in letters]
    texts += [
        f"{before}{first}{second}" for first in CAPITALS for second in letters for before in ("x", "x ")
    ]
    for line in map(" ".join, (texts[at : at + len(letters)] for at in range(0, len(texts), len(letters)))):
        assert not is_bad(line)
        assert ftfy.fix_text(line) == unicodedata.normalize("NFC", line) == line
    assert column(texts)[0] == texts


def test_characters_that_kernels_leave_next_to_quotation_marks_cannot_be_mojibake() -> None:
    between = characters_between_quotes()
    assert set(between) <= set(plain_characters())
    assert [hex(point) for point in between if _MAY_BE_MOJIBAKE.match(chr(point))] == []
    for line in (
        " ".join(f"{chr(p)}{q} {q}{chr(p)}" for p in between) for q in "\u2018\u2019\u201c\u201d\u201e\xa0"
    ):
        assert not is_bad(line)


@given(TEXTS)
def test_a_cleaned_text_has_single_spaces_and_nothing_unprintable(text: str) -> None:
    clean = clean_alt(text, 2000)
    assert clean == clean.strip() == " ".join(clean.split())
    left = {unicodedata2.category(c) for c in clean if c != " " and c not in KEPT_FORMATS}
    assert not left & {"Cc", "Cf", "Cs", "Co", "Cn", "Zs", "Zl", "Zp"}
    assert unicodedata2.normalize("NFC", clean) == clean


@pytest.mark.parametrize(
    ("caption", "kept", "by_the_original"),
    [
        ("红房子", True, False),  # three characters, six columns
        ("赤い家", True, False),
        ("빨간집", True, False),
        ("ｒｅｄ", False, False),  # cleaning makes it "red"
        ("红房", False, False),
        ("家", False, False),
        ("фото", False, False),
        ("réd h", True, True),
        ("红房子在湖", True, True),
    ],
)
def test_wide_characters_count_as_two_towards_the_shortest_caption(
    caption: str, kept: bool, by_the_original: bool
) -> None:
    for settings_, expected in (
        (ParseSettings(), kept),
        (ParseSettings(count_wide_as_two=False), by_the_original),
    ):
        found = link_outcome("a.jpg", caption, "https://example.org/", settings_)
        assert (found is not ParseReason.ALT_TOO_SHORT) == expected
