"""Disguised words are read whole, in time that grows with a caption's length and not with its square."""

import random
import re

from laion_etl.score.underage_disguises import readings

_CYRILLIC_NEXT_TO_DIGIT = re.compile(r"[\u0400-\u052f]\d|\d[\u0400-\u052f]")


def _words_with_digits(text: str) -> str:
    return " ".join(word for word in re.findall(r"[^\W_]+", text) if _CYRILLIC_NEXT_TO_DIGIT.search(word))


def test_whole_words_with_a_digit_next_to_a_cyrillic_letter_are_read() -> None:
    draw = random.Random(16)
    texts = ("".join(draw.choices("д_ -漢ж٣0é", k=draw.randrange(14))) for _ in range(2_000))
    tried = {text: _words_with_digits(text) for text in texts if not text.isascii()}
    read = {text: next(readings(text), "") for text, words in tried.items() if words}
    assert len(read) > 500
    letters = str.maketrans("0", "о")
    assert read == {text: words.translate(letters) for text, words in tried.items() if words}


def test_a_long_text_without_spaces_is_read_once() -> None:
    """A megabyte would take hours if each of its letters began a search through the rest."""
    assert list(readings("漢字" * 500_000)) == []
    assert list(readings("ж漢0漢" * 250_000)) == []
