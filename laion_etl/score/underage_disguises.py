"""What disguised words of a caption may mean: letters of other alphabets, digits for letters, spaced letters.

A reading is only looked for where something is odd: a word of two alphabets ("gіrl" with a Cyrillic letter),
digits within a word ("t33n", "дев0чка"), asterisks for vowels ("t*en"), a letter three times and more
("teeen"), single letters with the same thing between them ("t.e.e.n"). So a Russian
word is never read as a Latin one, and a product code seldom as a word.
"""

import re
from collections.abc import Iterator

# Letters that look like Latin ones in lower case; of others the capitals do.
_LATIN_OF = {
    **dict(zip("абвсԁеҽғһніїјкӏмпорԛгѕтуѵԝх", "abbcdeefhhiijklmnopqrstyvwx", strict=True)),
    **dict(zip("αβγδεζηικλμνορσςτυχω", "abydezniklmnopoctuxw", strict=True)),
    **dict(zip("օոսһյցզ", "onuhjgq", strict=True)),
}
_LATIN_OF_CAPITALS = _LATIN_OF | dict(zip("ηνγυ", "hnyy", strict=True))
_CYRILLIC_OF = dict(zip("abcehikmoprtxyuns", "авсенікморгтхуипѕ", strict=True))
_GREEK_OF = dict(zip("abehiklmnoptuxyvw", "αβεηικλμνορτυχυνω", strict=True))
_TABLES = tuple(map(str.maketrans, (_LATIN_OF, _LATIN_OF_CAPITALS, _CYRILLIC_OF, _GREEK_OF)))
_WORD = re.compile(r"[^\W\d_]{2,}")
_WORD_WITH_DIGITS = re.compile(r"[^\W_]{3,}")
_ALPHABETS = tuple(
    re.compile(letters)
    for letters in ("[a-z]", "[\u0400-\u052f]", "[\u0370-\u03ff\u1f00-\u1fff]", "[\u0530-\u058f]")
)
# The condition makes a run without a letter cost one attempt and not one for each of its characters.
_TOKEN = re.compile(r"(?<![a-z0-9@$!€|])[a-z0-9@$!€|]*[a-z][a-z0-9@$!€|]*")
_LETTER_OF = str.maketrans("034578@$€", "oeastbase")
_CYRILLIC_LETTERS_OF = tuple(str.maketrans("0346", letters) for letters in ("оечб", "озчб"))
# Looked for at the beginning of a word only: a word without them takes steps in proportion to its length.
_WITH_DIGITS = re.compile(r"(?<![^\W_])(?=[^\W_]*?(?:[\u0400-\u052f]\d|\d[\u0400-\u052f]))[^\W_]++")
_STARRED = re.compile(r"(?<![^\W_])[a-z]+\*[a-z*]*[a-z]")
_REPEATED = re.compile(r"([^\W\d_])\1{2,}")
_I_OR_L = "1!|"
_READ_AS = (str.maketrans(_I_OR_L, "iii"), str.maketrans(_I_OR_L, "lll"))
_SHORT = 3  # letters: such a word has to be a whole token
_SPACED = re.compile(r"(?<!\w)[^\W\d_](?:([ .*·•/|])[^\W\d_])(?:\1[^\W\d_]){2,}(?!\w)")


def readings(text: str) -> Iterator[str]:
    """Yield other readings of a folded text; none for most texts."""
    if not text.isascii():
        mixed = " ".join(word for word in _WORD.findall(text) if _is_mixed(word))
        if mixed:
            yield from (mixed.translate(table) for table in _TABLES)
        if numbered := " ".join(_WITH_DIGITS.findall(text)):
            yield from (numbered.translate(table) for table in _CYRILLIC_LETTERS_OF)
    if _REPEATED.search(text):
        yield from (_REPEATED.sub(letters, text) for letters in (r"\1", r"\1\1"))
    for found in _SPACED.finditer(text):
        yield found[0].replace(found[1], "")


def _is_mixed(word: str) -> bool:
    return not word.isascii() and sum(bool(letters.search(word)) for letters in _ALPHABETS) > 1


def has_digits_for_letters(text: str, words: re.Pattern[str]) -> bool:
    """Whether a token of a folded text is one of some Latin words, or begins with one, in such writing.

    Args:
        text: The caption.
        words: Matches one of the words.
    """
    if not text.isascii():
        mixed = " ".join(word for word in _WORD_WITH_DIGITS.findall(text) if _is_mixed(word))
        text = " ".join((text, *(mixed.translate(table) for table in _TABLES[:2] if mixed)))
    return _has_vowels_starred(text, words) or _has_digits(text, words)


def _has_vowels_starred(text: str, words: re.Pattern[str]) -> bool:
    if "*" not in text:
        return False
    starred = (found[0].replace("*", vowel) for found in _STARRED.finditer(text) for vowel in ("", *"aeiou"))
    return any(words.match(read) for read in starred)


def _has_digits(text: str, words: re.Pattern[str]) -> bool:
    for found in _TOKEN.finditer(text):
        token = found[0].rstrip(_I_OR_L) or found[0]
        if token.isalpha():
            continue
        bare = token.removeprefix("pre")
        for read_as in _READ_AS:
            read = bare.translate(_LETTER_OF).translate(read_as)
            word = words.match(read)
            if word is None or word[0] == bare[: word.end()]:
                continue
            if word.end() > _SHORT or read.rstrip("sz") == word[0]:
                return True
    return False
