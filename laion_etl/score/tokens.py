"""CLIP's byte pair encoding without torch, for worker processes.

open_clip's tokenizer is pure Python: in the stage's own process it would compete for the GIL with everything
else that feeds a GPU, and importing it imports torch. This one reads the same vocabulary and gives the same
tokens. `text_plan` returns None for tokenizers built in another way.
"""

import gzip
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import ftfy
import regex

from laion_etl.core.html_entities import unescaped

_MERGES = 49_152 - 256 - 2  # of the published list; the rest is not used
VOCABULARY = _MERGES + 2 * 256 + 2  # tokens that there are
_START, _END = "<start_of_text>", "<end_of_text>"
_LAST = "</w>"  # marks the last symbol of a word
_WORDS = regex.compile(
    rf"{_START}|{_END}|'s|'t|'re|'ve|'m|'ll|'d|[\p{{L}}]+|[\p{{N}}]|[^\s\p{{L}}\p{{N}}]+", regex.IGNORECASE
)
_MAX_CACHED_WORDS = 50_000
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _lower(text: str) -> str:
    return _whitespace(text).lower()


def _whitespace(text: str) -> str:
    return " ".join(text.split())


def _canonicalize(text: str) -> str:
    return _whitespace(text.replace("_", " ").translate(_NO_PUNCTUATION).lower())


_CLEANING: Mapping[str, Callable[[str], str]] = {
    "lower": _lower,
    "whitespace": _whitespace,
    "canonicalize": _canonicalize,
}


@dataclass(frozen=True, slots=True)
class TextPlan:
    """Input of a text tower: up to `context` tokens of the vocabulary in a file, padded with zeros."""

    vocabulary: str
    context: int
    cleaning: str = "lower"


class ClipTokenizer:
    """Turns texts into tokens by a plan."""

    def __init__(self, plan: TextPlan) -> None:
        self._context = plan.context
        self._cleaning = _CLEANING[plan.cleaning]
        with gzip.open(plan.vocabulary, "rt", encoding="utf-8") as file:
            lines = file.read().split("\n")[1 : _MERGES + 1]
        merges = [tuple(line.split()) for line in lines]
        self._ranks = {merge: rank for rank, merge in enumerate(merges)}
        self._symbols = _symbols_of_bytes()
        single = list(self._symbols.values())
        known = [*single, *(symbol + _LAST for symbol in single), *map("".join, merges), _START, _END]
        self._ids = {symbol: place for place, symbol in enumerate(known)}
        self._words: dict[str, list[int]] = {}

    def __call__(self, text: str) -> list[int]:
        """At most `context` tokens, from the start token to the end token."""
        # ftfy leaves printable ASCII without entities as it is, which takes it half the time of a text.
        is_plain = text.isascii() and text.isprintable() and "&" not in text
        plain = text.strip() if is_plain else unescaped(unescaped(ftfy.fix_text(text))).strip()
        tokens = [self._ids[_START]]
        for word in _WORDS.findall(self._cleaning(plain)):
            tokens += self._words.get(word) or self._word(word)
            if len(tokens) >= self._context:
                break
        return [*tokens[: self._context - 1], self._ids[_END]]

    def _word(self, word: str) -> list[int]:
        if len(self._words) >= _MAX_CACHED_WORDS:
            self._words.clear()
        if word in (_START, _END):
            found = [self._ids[word]]
        else:
            found = [self._ids[part] for part in self._merged(word)]
        self._words[word] = found
        return found

    def _merged(self, word: str) -> list[str]:
        """The parts of a word: those neighbours that training merged first become one, again and again."""
        parts = [self._symbols[byte] for byte in word.encode()]
        parts[-1] += _LAST
        while len(parts) > 1:
            first = min(pairwise(parts), key=lambda pair: self._ranks.get(pair, _MERGES))
            if first not in self._ranks:
                break
            parts = _join(parts, first)
        return parts


def _join(parts: list[str], pair: tuple[str, str]) -> list[str]:
    """The parts with every occurrence of the pair as one part."""
    joined, place = [], 0
    while place < len(parts):
        if tuple(parts[place : place + 2]) == pair:
            joined.append(parts[place] + parts[place + 1])
            place += 2
        else:
            joined.append(parts[place])
            place += 1
    return joined


def _symbols_of_bytes() -> dict[int, str]:
    """GPT-2's letter for each byte, in the order of the vocabulary: itself where it is printable."""
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    unseen = [byte for byte in range(256) if byte not in seen]
    return {byte: chr(byte) for byte in seen} | {byte: chr(256 + n) for n, byte in enumerate(unseen)}


def text_plan(tokenizer: Any) -> TextPlan | None:
    """The plan of open_clip's own tokenizer; None for others (hub tokenizers, random cuts)."""
    import open_clip.tokenizer as known

    if type(tokenizer) is not known.SimpleTokenizer or tokenizer.reduction_fn or not tokenizer.context_length:
        return None
    cleaning = {known.get_clean_fn(name): name for name in _CLEANING}.get(tokenizer.clean_fn)
    usual = (
        tokenizer.encoder == known._tokenizer.encoder and tokenizer.bpe_ranks == known._tokenizer.bpe_ranks
    )
    if cleaning is None or not usual:
        return None
    return TextPlan(known.default_bpe(), tokenizer.context_length, cleaning)
