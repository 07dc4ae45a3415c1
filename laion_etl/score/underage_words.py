"""Words of a caption that raise the suspicion of a minor: in any case, form and script.

The original looks for substrings. Whole words alone find neither "babysitter" nor "teens2020", no inflected
Russian word, no Arabic word with its article, and nothing in Chinese, Japanese or Thai text, which sets no
spaces. So most are found anywhere in a caption, and only those that would be found in every other sentence
("minor" in "minority") as whole words. Suspicion alone drops nothing, so the lists are too broad rather than
too narrow.
"""

import json
import re
import unicodedata
from collections.abc import Iterable
from functools import cache
from pathlib import Path

_FILE = Path(__file__).parent / "prompts" / "underage.json"
_WORD = re.compile(r"[^\W\d_]+")  # letters: digits and underscores separate words
# Marks of pronunciation that Arabic and Hebrew may set or leave out, and the stretching of Arabic letters.
_LEFT_OUT = re.compile("[\u0591-\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670]")
_DOTTED_I = "i\u0307"  # what case folding makes of the Turkish capital I with a dot


def folded(text: str) -> str:
    """Return a text in the form in which words are compared: NFKC, without case and invisible characters."""
    visible = "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf")
    plain = unicodedata.normalize("NFKC", visible.casefold())
    return _LEFT_OUT.sub("", plain.replace(_DOTTED_I, "i"))


class UnderageWords:
    """The shipped lists, and whole words of a prompt file besides them."""

    def __init__(self, words: Iterable[str] = ()) -> None:
        self._harmless, self._parts, shipped = _shipped()
        self._words = shipped | {folded(word) for word in words}

    @property
    def identity(self) -> tuple[str, str, list[str]]:
        """Changes with the lists."""
        return self._harmless.pattern, self._parts.pattern, sorted(self._words)

    def found_in(self, text: str) -> bool:
        """Whether a text has one of the words, or a part of one."""
        plain = self._harmless.sub(" ", folded(text))
        return self._parts.search(plain) is not None or any(
            word in self._words for word in _WORD.findall(plain)
        )


@cache
def _shipped() -> tuple[re.Pattern[str], re.Pattern[str], frozenset[str]]:
    """Return patterns of what is harmless and of the parts, and the words."""
    document = json.loads(_FILE.read_text(encoding="utf-8"))
    parts, words = (
        {folded(entry) for entries in document[kind].values() for entry in entries}
        for kind in ("parts", "words")
    )
    return _any_of(document["harmless"]), _any_of(parts), frozenset(words)


def _any_of(entries: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(re.escape(entry) for entry in sorted(entries)))
