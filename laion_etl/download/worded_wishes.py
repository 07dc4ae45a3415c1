"""Owners' wishes in words, as people write them into the copyright and the comments of an image.

The tokens of DeviantArt (`NoAI`, `NoImageAI`) count as whole words. Of other texts a clause counts that
speaks of AI, of training, mining or use by it, and forbids: "may not be used to train AI models", "All rights
reserved, also for text and data mining", "Kein KI-Training". So does one that says nothing else than "No AI".
Nothing is understood beyond that, so "our AI training has no entry fee" counts, too: that costs an image.
"No AI was used" says how an image was made, and "AI training" alone does not forbid.

Only texts are searched, not pixels (image_texts.py), nor what is Base64: four letters stand in many of them
by chance. To search a text word by word takes a hundred times as long as to look for the few words without
which it says nothing of AI, so only what is near those words is searched.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import islice, pairwise

from laion_etl.download.image_texts import separated
from laion_etl.download.jpeg_segments import pixels_taken_out
from laion_etl.download.wish_words import (
    ACTIVE_USES,
    BY_ITSELF,
    FILLERS,
    FORBIDS,
    INTO,
    MADE_WITHOUT,
    MODELS,
    MOST_WORDS_OF_SHORT,
    PHRASE_WORDS,
    PHRASES,
    TOKEN,
    TRAINS,
    USES,
    in_sentences,
    in_single_words,
    plain,
    without_accents,
)

_MAX_BYTES = 1 << 22  # of the texts of an image; editors write a hundredth of it
_MAX_NEAR_HINTS = 1 << 17  # of them, what is searched word by word
_MARGIN = 500  # bytes around a hint, more than a clause of _MOST_WORDS takes
_MOST_HINTS = 1_000  # of one kind in a text
_MOST_WORDS = 40  # of a clause, from the first that matters
_MOST_WORDS_BETWEEN, _MOST_WORDS_BEFORE_MODEL = 14, 5

# Nothing counts without one of these. What begins with letters is found at the speed of memchr.
_HINTS = (
    *(b"learning", b"mining", b"tdm", b"llm", b"genai", b"rtifici", b"neural", b"neuronal", b"rativ"),
    *(b"chatgpt", b"midjourney", b"notrain", b"donottrain", b"&#", b"intelligen", b"nteligen", b"lernen"),
    *(b"apprentissage", b"apprendimento", b"aprendiz", b"uczeni", b"fouille", b"miner", b"estrazione"),
    *(b"eksploracj", b"diffusion", b"sprachmodel", b"language model", b"language-model", *PHRASE_WORDS),
)
_HINT_PATTERNS = {hint: re.compile(re.escape(hint)) for hint in _HINTS}
_SHORT_HINTS = [
    re.compile(one)
    for one in (
        rb"ai(?![b-su-z])",  # also in front of `art` and `train`
        rb"[ai]\.\s?[ai](?![a-z])",
        rb"k\.?i(?<![a-z]ki)(?![a-z])",
        rb"ia(?<![a-z]ia)(?![a-z])",
        rb"ml(?<![a-z]ml)(?![a-z])",
    )
]
_BASE64 = re.compile(r"[a-z0-9+/]{64,}=*")
# Of UTF-16 without its zeros.
_APOSTROPHE = re.compile(rb"\x19\x20|\x20\x19")
_HYPHEN = re.compile(rb"[\x10-\x15]\x20|\x20[\x10-\x15]")
_WINDOWS = {0xDC00 + octet: bytes([octet]).decode("cp1252", "replace") for octet in range(0x80, 0x100)}
_END_OF_CLAUSE = re.compile(r"[.;!?<>\"{}|\u3002]+|\n[ \t]*\r?\n|\r[ \t]*\r")
_WORD = re.compile(r"[^\W\d_]+(?:'t\b)?")


def forbids_in_words(texts: Iterable[bytes]) -> bool:
    """Whether the texts of an image forbid to train models with it; each may be in UTF-16.

    Of very long texts only the beginning counts, and the shorter ones come first.
    """
    left, near_left = _MAX_BYTES, _MAX_NEAR_HINTS
    for text in sorted(texts, key=len):
        if left <= 0 or near_left <= 0:
            break
        for part in _near_hints(text[:left]):
            if _forbids(part[:near_left]):
                return True
            near_left -= len(part)
            if near_left <= 0:
                break
        left -= len(text)
    return False


def text_forbids(text: bytes) -> bool:
    """Whether one text forbids to train models with what it belongs to."""
    return forbids_in_words([text])


def _near_hints(text: bytes) -> Iterator[bytes]:
    """Yield the parts of a text in which words are that may belong to a wish."""
    if not any(map(_has_hint, _readings(pixels_taken_out(text).lower()))):
        return
    for reading in _readings(separated(text)):
        begin = end = 0
        for place in _places(reading.lower()):
            if place - _MARGIN > end:
                yield reading[begin:end]
                begin = place - _MARGIN
            end = place + _MARGIN
        yield reading[begin:end]


def _readings(text: bytes) -> list[bytes]:
    """Return a text as it is read if a zero is a blank, and if it is one half of a letter in UTF-16."""
    if b"\0" not in text:
        return [text]
    halves = _HYPHEN.sub(b"-", _APOSTROPHE.sub(b"'", text.replace(b"\0", b"")))
    return [text.replace(b"\0", b" "), halves]


def _has_hint(text: bytes) -> bool:
    return any(hint in text for hint in _HINTS) or any(hint.search(text) for hint in _SHORT_HINTS)


def _places(text: bytes) -> list[int]:
    """Return where hints stand, in their order."""
    known = [pattern for hint, pattern in _HINT_PATTERNS.items() if hint in text]
    found = (islice(hint.finditer(text), _MOST_HINTS) for hint in (*known, *_SHORT_HINTS))
    return sorted(one.start() for places in found for one in places)


def _forbids(part: bytes) -> bool:
    text = _BASE64.sub(" ", plain(part.decode("utf-8", "surrogateescape").translate(_WINDOWS)))
    if TOKEN.search(text) is not None:
        return True
    text = without_accents(text)
    if not text.isascii() and PHRASES.search(text) is not None:
        return True
    return any(map(_clause_forbids, _END_OF_CLAUSE.split(in_sentences(text))))


def _clause_forbids(clause: str) -> bool:
    if not any(map(FORBIDS.fullmatch, _WORD.findall(clause))):
        return False  # nearly all
    words = _WORD.findall(in_single_words(clause))
    if _is_short_wish(words):
        return True
    starts = range(0, max(1, len(words) - _MOST_WORDS // 2), _MOST_WORDS // 2)
    return any(_words_forbid(words[start : start + _MOST_WORDS]) for start in starts)


def _is_short_wish(words: list[str]) -> bool:
    """Whether words are nothing else than "No AI, please"."""
    if not 2 <= len(words) <= MOST_WORDS_OF_SHORT or any(map(MADE_WITHOUT.fullmatch, words)):
        return False
    kinds = [[bool(kind.fullmatch(word)) for kind in (MODELS, FORBIDS, FILLERS)] for word in words]
    return all(map(any, kinds)) and all(any(of_kind) for of_kind in list(zip(*kinds, strict=True))[:2])


def _words_forbid(words: list[str]) -> bool:
    models = [place for place, word in enumerate(words) if MODELS.fullmatch(word)]
    if not models or not any(map(FORBIDS.fullmatch, words)):
        return False
    if any(word in BY_ITSELF or TRAINS.fullmatch(word) for word in words):
        return True
    return any(_is_used_by(words, place) or _use_is_forbidden(words, place) for place in models)


def _is_used_by(words: list[str], model: int) -> bool:
    """Whether words say that something is used for, in or by a model: "used in any AI"."""
    return any(
        INTO.fullmatch(words[into])
        and any(map(USES.fullmatch, words[max(0, into - _MOST_WORDS_BETWEEN) : into]))
        for into in range(max(0, model - _MOST_WORDS_BEFORE_MODEL), model)
    )


def _use_is_forbidden(words: list[str], model: int) -> bool:
    """Whether words say what becomes of the use: "AI use is not allowed", "AI companies may not use this"."""
    following = words[model + 1 : model + 6]
    if following and USES.fullmatch(following[0]):
        return any(map(FORBIDS.fullmatch, following[:3]))
    return any(
        FORBIDS.fullmatch(one) and ACTIVE_USES.fullmatch(another) for one, another in pairwise(following)
    )
