"""Words of a caption that raise the suspicion of a minor: in any case, form and script.

The original looks for four substrings ("teen", "kid", "child", "baby"), in lower case only. Whole words alone
find neither "babysitter" nor "teens2020", no inflected Russian word, no Arabic word with its article, and
nothing in Chinese, Japanese or Thai text, which sets no spaces. So most are found anywhere in a caption, and
only those that would be found in every other sentence ("minor" in "minority") as whole words, in languages
that attach particles with these (`affixes`). What people leave out when they type (accents, dots of the
Turkish i, Arabic hamza) makes no difference for parts of six letters and more. Ages ("14yo") and what hides a
word ("t33n", Cyrillic letters in Latin words) are in modules of their own. Suspicion alone drops nothing, so
the lists are too broad rather than too narrow.
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby, product
from pathlib import Path

from laion_etl.score.underage_ages import Ages, compiled_ages
from laion_etl.score.underage_disguises import has_digits_for_letters, readings

_FILE = Path(__file__).parent / "prompts" / "underage.json"
# Letters with the vowel signs of Indian scripts, which Python counts as no letters; digits separate words.
_WORD = re.compile(
    "(?:[^\\W\\d_]|[\u0900-\u0903\u093a-\u094f\u0981-\u0983\u09bc-\u09cd\u0b82-\u0bcd\u0c00-\u0c56])+"
)
# Thai, Lao, Burmese, Khmer, Chinese and Japanese.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
_ASCII_WORD = re.compile("[a-zA-Z]+")
# Marks of pronunciation that Arabic and Hebrew may set or leave out, and the stretching of Arabic letters.
_LEFT_OUT = re.compile("[\u0591-\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670]")
# Invisible characters that Unicode does not count among the format characters, and lines through letters.
_INVISIBLE = re.compile(
    "[\u0334-\u0338\u20d0-\u20ea\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0]"
)
_SEPARATORS = re.compile(r"[\s_\-\u2010-\u2015]+")
_SPACED = re.compile(
    "(?<=[\u3040-\u30ff\u3400-\u9fff]) (?=[\u3040-\u30ff\u3400-\u9fff])"
)  # Chinese, Japanese
_SAME_LETTERS = str.maketrans(
    {
        "\u0131": "i",  # Turkish dotless i
        **dict.fromkeys("\u0622\u0623\u0625\u0671", "\u0627"),  # alef with hamza and others
        **dict.fromkeys("\u0649\u064a", "\u06cc"),  # yeh
        "\u0643": "\u06a9",  # kaf
        **dict.fromkeys("\u0629\u06c1", "\u0647"),  # heh
    }
)
# Letters as ornaments: small capitals, and those in squares and circles, as flags are.
_ORNAMENTS = str.maketrans(
    {
        **dict(zip("ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘꞯʀꜱᴛᴜᴠᴡʏᴢɡɑ", "abcdefghijklmnopqrstuvwyzga", strict=True)),
        **dict(zip("ꓐꓑꓓꓔꓖꓗꓙꓚꓜꓝꓟꓠꓡꓢꓣꓦꓧꓪꓫꓬꓮꓰꓲꓳꓴ", "bpdtgkjczfmnlsrvhwxyaeiou", strict=True)),
        **dict(zip("ᎠᎡᎢᎥᎪᎫᎬᎳᎷᎻᎽᏀᏃᏒᏚᏙᏞᏟᏢᏦᏴ", "drtiajewmhygzrsvlcpkb", strict=True)),
        **{
            chr(start + letter): chr(ord("a") + letter)
            for start in (0x1F130, 0x1F150, 0x1F170, 0x1F1E6)
            for letter in range(26)
        },
    }
)
_UNDECOMPOSED = str.maketrans({"ł": "l", "ø": "o", "đ": "d"})
_RULES = 3  # 1: no ages, no disguised words; 2: no asterisks, repeated letters, Cyrillic with digits
_FEWEST_WITHOUT_ACCENTS = 6  # letters: "otros" and "solar" are other words than "otroš" and "šolar"


def folded(text: str) -> str:
    """Return a text in the form in which words are compared.

    That is NFKC, without case, invisible characters and what is often left out in writing.
    """
    if text.isascii():
        return _SEPARATORS.sub(" ", text.lower())
    bare = _INVISIBLE.sub("", text.translate(_ORNAMENTS))
    normal = _INVISIBLE.sub("", unicodedata.normalize("NFKC", bare))
    visible = "".join(c for c in normal if unicodedata.category(c) != "Cf")
    plain = unicodedata.normalize("NFKC", visible.casefold())
    plain = _LEFT_OUT.sub("", plain).replace("i\u0307", "i").translate(_SAME_LETTERS)
    return _SPACED.sub("", _SEPARATORS.sub(" ", _without_stress(plain)))


def _without_stress(text: str) -> str:
    """Return a text without the acute that marks the stress of Cyrillic words."""
    if "\u0301" not in text:
        return text
    return re.sub("(?<=[\u0400-\u052f])\u0301", "", text)


def _without_accents(text: str) -> str:
    """Return a folded text with its Latin and Greek letters bare."""
    if text.isascii():
        return text
    found, bare = [], False
    for c in unicodedata.normalize("NFD", text):
        if not unicodedata.combining(c):
            bare = c < "\u0400" or "\u1e00" <= c < "\u2000"
        elif bare:
            continue
        found.append(c)
    return unicodedata.normalize("NFKC", "".join(found)).translate(_UNDECOMPOSED)


class UnderageWords:
    """The shipped lists, and words of a prompt file besides them.

    These are found as whole words, in scripts without spaces anywhere; several words, or letters with digits,
    as they are written.
    """

    def __init__(self, words: Iterable[str] = ()) -> None:
        self._lists = _shipped()
        own = {folded(word).strip() for word in words}
        single = {word for word in own if _WORD.fullmatch(word) and not _UNSPACED.search(word)}
        self._words = self._lists.words | single
        phrases = sorted(own - single)
        self._phrases = re.compile("|".join(map(_as_written, phrases))) if phrases else None

    @property
    def identity(self) -> tuple[object, ...]:
        """Changes with the lists, and with the rules."""
        lists = self._lists
        patterns = (lists.harmless.pattern, lists.parts.pattern, *lists.ages.identity)
        phrases = (self._phrases.pattern,) if self._phrases else ()
        return (_RULES, *patterns, sorted(self._words), *phrases)

    def found_in(self, text: str) -> bool:
        """Whether a text has one of the words, a part of one, or an age below 18."""
        whole = folded(text)
        if self._phrases and self._phrases.search(whole):
            return True
        plain = self._lists.harmless.sub(" ", whole)
        return (
            self._has_word(plain)
            or self._lists.ages.found_in(plain)
            or has_digits_for_letters(plain, self._lists.english)
            or any(map(self._has_word, readings(plain)))
        )

    def _has_word(self, plain: str) -> bool:
        if plain.isascii():
            parts, words = self._lists.ascii_parts, _ASCII_WORD
        else:
            parts, words = self._lists.parts, _WORD
        if parts.search(plain) is not None:
            return True
        bare = _without_accents(plain)
        if bare != plain and parts.search(bare) is not None:
            return True
        return not self._words.isdisjoint(words.findall(plain))


def _as_written(phrase: str) -> str:
    """Return a pattern of a phrase: between letters and digits only in a script without spaces."""
    found = re.escape(phrase)
    return found if _UNSPACED.search(phrase) else rf"(?<![^\W_]){found}(?![^\W_])"


@dataclass(frozen=True, slots=True)
class _Lists:
    harmless: re.Pattern[str]
    parts: re.Pattern[str]
    ascii_parts: re.Pattern[str]  # those of `parts` that an ASCII text may have: a seventh of the time
    words: frozenset[str]
    english: re.Pattern[str]  # parts that are one word
    ages: Ages


@cache
def _shipped() -> _Lists:
    document = json.loads(_FILE.read_text(encoding="utf-8"))
    parts = {folded(entry) for entries in document["parts"].values() for entry in entries}
    bare = {_without_accents(part) for part in parts}
    parts |= {part for part in bare if len(part) >= _FEWEST_WITHOUT_ACCENTS and " " not in part}
    words = {
        folded(form)
        for language, entries in document["words"].items()
        for entry in entries
        for form in _forms(entry, document["affixes"].get(language, {}))
    }
    return _Lists(
        re.compile(rf"\b(?:{_any_of(map(folded, document['harmless']))})\b"),
        re.compile(_any_of(parts)),
        re.compile(_any_of(filter(str.isascii, parts))),
        frozenset(words),
        re.compile(_any_of(part for part in document["parts"]["en"] if part.isalpha())),
        compiled_ages(document["ages"], folded),
    )


def _forms(word: str, affixes: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield a word with every beginning and ending that its language may attach to it."""
    for beginning, ending in product(("", *affixes.get("before", ())), ("", *affixes.get("after", ()))):
        yield f"{beginning}{word}{ending}"


def _any_of(entries: Iterable[str]) -> str:
    """Return a pattern of some texts, grouped by their first letters: so fewer are tried at a place."""
    groups = groupby(sorted(entries), key=lambda entry: entry[0])
    return "|".join(
        f"{re.escape(first)}(?:{'|'.join(re.escape(entry[1:]) for entry in found)})"
        for first, found in groups
    )
