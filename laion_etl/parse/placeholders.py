"""Finds captions that describe nothing: "image", "IMG_1234.JPG", hashes, dates.

`placeholder` is the rule; `PlaceholderRule.judge` applies it to a column: a kernel sorts out the captions
that cannot be placeholders, and only the rest is passed to `placeholder`.
"""

import re
from collections.abc import Iterable
from functools import cache, lru_cache

import numpy as np

from laion_etl.core.byte_arena import ByteArena
from laion_etl.core.funnel import ParseReason
from laion_etl.core.kernels import Bytes, Hashes, Ints, constant, hash_of
from laion_etl.core.reason_codes import REASON_CODES
from laion_etl.core.wordlists import words
from laion_etl.parse.kernels.placeholders import (
    IS_DATE,
    IS_FILE_NAME,
    IS_WORD,
    MAX_BYTES,
    MAY_BE,
    SENTENCE_BYTES,
    Lists,
    find_placeholders,
)
from laion_etl.settings import ParseSettings

_NETWORKS = words("social-networks")
_IMAGE_WORDS = frozenset(words("image-words"))
_ADDITIONS = frozenset(words("placeholder-additions"))
WORDS = frozenset(
    (
        *_IMAGE_WORDS,
        *words("placeholder-words"),
        *_NETWORKS,
        *(
            phrase.format(name)
            for name in (*_NETWORKS, *words("social-networks-that-are-words"))
            for phrase in words("social-phrases")
        ),
    )
)
_MONTHS = frozenset(words("months"))
_DATE_WORDS = frozenset(words("date-words"))
_COUNT_WORDS = ("of", "de", "von", "di", "du", "sur", "van", "из")  # "1 of 12"
_CAMERA_WORDS = words("camera-words")
_CAMERA_ENDINGS = words("camera-endings")
_LAYER_WORDS = words("layer-words")
_LEADING_WORDS = ("signal", "viber", "received", "fb", "screenshot")  # of names that may end in other words
_PROGRAM_WORDS = (*_LEADING_WORDS, "image", "inbound", "img")
_ENDINGS = (
    *("jpg", "jpeg", "jfif", "png", "gif", "webp", "bmp", "tif", "tiff", "svg", "avif", "heic", "heif"),
    *("ico", "psd", "eps", "pdf", "raw", "cr2", "nef", "dng", "jp2", "mp4", "mov"),
)
_IMAGE_ENDINGS = "|".join(_ENDINGS)

# These match texts in lower case: with IGNORECASE, "i" is also Turkish "ı", and "s" the long "ſ".
_FILE_NAME = re.compile(
    rf"(?:\S+|(?:\S+ ){{1,3}}\S+)\.(?:{_IMAGE_ENDINGS})|[!-~]+\.(?:{_IMAGE_ENDINGS})[?#][!-~]*"
)
# Possessive quantifiers (++): without them a text of many digits takes exponential time.
_CAMERA_NAME = re.compile(
    rf"(?:{'|'.join(_CAMERA_WORDS)}|whatsapp[ _-]image)[ _-]?[0-9]{{3,}}+"
    rf"(?:\.(?:{_IMAGE_ENDINGS})\Z|[ _.-]++|{'|'.join(_CAMERA_ENDINGS)}|[0-9]++|\([0-9]++\))*+"
    r"|(?:signal|viber[ _]image|received|fb_img|screenshot)[ _-]"
    r"(?:20[0-9]{2}[ -][0-9]{2}[ -][0-9]{2}|[0-9]{6,})(?:[0-9 .-]|_(?=[0-9]))*+(?:_[a-z. ]{2,40})?"
    r"|inbound[0-9]{6,}+|telegram-cloud-photo-size-[0-9-]++[a-z]?"
    r"|gemini_generated_image_[a-z0-9_]++|hq720(?:_[a-z0-9_]++)?"
)
# What design programs name a part of a drawing: "Artboard 1 copy 2", "Asset 12@2x", "Mask Group 3".
_LAYER = re.compile(
    rf"(?:{'|'.join(_LAYER_WORDS)})[ _-]?[0-9]{{1,10}}(?:[ _-]copy(?:[ _-][0-9]{{1,3}})?)?(?:@[0-9]x)?"
    rf"(?: ?\([0-9]{{1,3}}\))?|(?:{'|'.join(_LAYER_WORDS)}) ?\([0-9]{{1,3}}\)"
)
_FILE_STEM = re.compile(r"(?=.*[0-9])[A-Za-z0-9]+(?:_[A-Za-z0-9]+)+(?:-[0-9]+x[0-9]+)?")
_HEX = re.compile(
    r"(?:0x)?(?=[0-9a-f]*[0-9])[0-9a-f]{16,}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE
)
_TOKEN = re.compile(r"(?=.*[0-9])(?=.*[a-z])(?=.*[A-Z])[A-Za-z0-9+/_-]{20,}={0,2}")
# A run of letters in a name that could be a word: "Canon" of "Canon-EOS-5D", not "kjhsd" of a hash.
_WORD_IN_NAME = re.compile(
    r"(?=[A-Za-z]*[AEIOUYaeiouy])(?![A-Za-z]?[b-df-hj-np-tv-xz]{5})(?:[A-Z]?[a-z]{3,}|[A-Z]{4,})"
)
_WORDS_OF_A_SLUG = 0.55  # the share of letters in such runs from which on a name describes something
# A part of a name: a word, an abbreviation, a number, a model.
_PART_OF_NAME = re.compile(
    r"[A-Z]?[a-z]+|[A-Z]+|[0-9]{1,6}|[A-Za-z]{1,4}[0-9]{1,4}[A-Za-z]{0,3}|[0-9]{1,5}[A-Za-z]{1,4}"
)
_PARTS_OF_NAME = re.compile(r"[_-]+")
_LONG_WORD = 7  # letters; a single one in a name is enough, if it is not one of WORDS
_ADDRESS = re.compile(r"(?:https?://|www\.|data:[a-z]+/)[!-~]+")
_DIMENSION_MARKS = ("x", "×", "px", "p", "i")
_SIZE = r"[0-9]{2,5} ?(?:x|×|X|by) ?[0-9]{2,5} ?(?:px)?"
_DIMENSIONS = re.compile(rf"{_SIZE}|[0-9]{{3,4}}[pi]|[0-9]{{2,5}} ?px")
_SIZE_IN_A_TEXT = re.compile(rf"(?<![0-9]){_SIZE}(?![0-9])")
# What a template leaves when it is not filled in: {{ product.title }}, ${item.alt}, <%= alt %>, %title%.
_TEMPLATE = re.compile(
    r"\{\{[^{}]{0,100}\}\}|[$#]\{[^{}]{0,100}\}|<([%?]).{0,100}\1>|\{%[^{}]{1,100}%\}"
    r"|\A\[\[ ?[+*]?[\w.]{1,60} ?\]\]"
    r"|\A%{1,2}\w{1,60}%{1,2}\Z|\A@(?:Model|model|item|Item|ViewBag|Html|Url)\.[!-~]{1,80}\Z"
    r"|\[object \w{1,40}\]|\[native code\]"
    r"|\A\{[a-z_][\w.]{0,60}\}\Z|\A\[[a-z]+[_-][a-z_-]{1,60}\]\Z"
)
_MAY_BE_A_TEMPLATE = re.compile(r"[{<\[%@]")  # each of these has one of them
# What WordPress and others write for an image without a text, in the language of the reader; its file name
# follows.
_NO_TEXT = re.compile(
    rf"(?:{'|'.join(re.escape(sentence.lower()) for sentence in words('no-text-sentences'))})"
    r".*\.[!-~]{2,5}.{0,9}",
    re.DOTALL,
)
_DIGIT_OR_DOT = re.compile(r"[0-9.]")
_LETTERS = re.compile(r"[A-Za-z\x80-\U0010ffff]+")
_NUMBERS = re.compile(r"(?=[^0-9]*[0-9])[\x20-\x7e\x80-\U0010ffff]+")
_NUMBER = re.compile(r"[0-9]+")
_MODEL_NUMBER = re.compile(r"[1-9][0-9]{2}-[0-9]{3}")  # 747-400
# A date in figures, a time, or a count ("1 of 12").
_DATE_OR_TIME = re.compile(
    r"(?:19|20)[0-9]{2}[-/._ ]?(?:0?[1-9]|1[0-2])[-/._ ]?[0-3]?[0-9](?![0-9])"
    r"|(?<![0-9])[0-3]?[0-9][-/.][01]?[0-9][-/.](?:[0-9]{2}){1,2}(?![0-9])"
    r"|(?<![0-9])[0-2]?[0-9][:.h][0-5][0-9](?![0-9])|(?<![0-9])[0-2]?[0-9] ?(?:[ap]m|h|uhr)\b"
    r"|[0-9] ?(?:年|年|년|時|时|分|[月月월](?= ?[0-9]))"
    rf"|\A[0-9]+ (?:{'|'.join(_COUNT_WORDS)}) [0-9]+\Z",
    re.IGNORECASE,
)
_EDGES = (
    "".join(chr(point) for point in range(128) if not chr(point).isalpha()) + "«»“”‘’…–—・「」『』（）、。"
)


def placeholder(text: str) -> ParseReason | None:
    """Returns why a cleaned caption says nothing about its image; None if it may say something."""
    if len(text.encode()) > MAX_BYTES:
        return None
    if _MAY_BE_A_TEMPLATE.search(text) and _TEMPLATE.search(text):
        return ParseReason.PLACEHOLDER_WORD
    lowered = text.lower()
    if "." in text and _NO_TEXT.fullmatch(lowered):
        return ParseReason.PLACEHOLDER_WORD
    stripped = text.strip(_EDGES)
    is_word = stripped.lower() in WORDS
    if (is_word and stripped == text) or not _DIGIT_OR_DOT.search(text):
        return ParseReason.PLACEHOLDER_WORD if is_word or _has_only_words(text) else None
    if (
        ("." in text and _FILE_NAME.fullmatch(lowered))
        or _CAMERA_NAME.fullmatch(lowered)
        or _ADDRESS.fullmatch(lowered)
        or _LAYER.fullmatch(lowered)
    ):
        return ParseReason.PLACEHOLDER_FILE_NAME
    if _is_date(text):
        return ParseReason.PLACEHOLDER_DATE
    if is_word or _DIMENSIONS.fullmatch(text) or _has_only_words(text):
        return ParseReason.PLACEHOLDER_WORD
    return None if " " in text else _identifier(text)


def _identifier(text: str) -> ParseReason | None:
    """Returns why a text without spaces describes nothing: a hash, or a file name without its ending."""
    if _HEX.fullmatch(text.strip("{}()[]")):
        return ParseReason.PLACEHOLDER_HASH
    if _is_slug(text):
        return None
    if _TOKEN.fullmatch(text):
        return ParseReason.PLACEHOLDER_HASH
    return ParseReason.PLACEHOLDER_FILE_NAME if _FILE_STEM.fullmatch(text) else None


def _is_date(text: str) -> bool:
    """Whether a text consists of numbers and words of dates and times only, and is a whole date or time.

    "May 2024", "Sat 1" or "T-1000" are not: a film, a broadcaster, a model.
    """
    if not _NUMBERS.fullmatch(text):
        return False
    runs = [run.lower() for run in _LETTERS.findall(text)]
    if not runs:
        return not _MODEL_NUMBER.fullmatch(text)
    if not all(run in _DATE_WORDS for run in runs):
        return False
    return bool(_DATE_OR_TIME.search(text)) or (
        any(run in _MONTHS for run in runs) and len(_NUMBER.findall(text)) > 1
    )


def _has_only_words(text: str) -> bool:
    """Whether a text is made of placeholders only: "image undefined", "Slide 1 of 3", "logo-white 300x80"."""
    phrase = _phrase(_SIZE_IN_A_TEXT.sub(" ", text) if _NUMBER.search(text) else text)
    found = phrase.split()
    if not found or phrase in _PHRASES:
        return bool(found)
    if all(word in WORDS for word in found):
        return True
    return any(word in _IMAGE_WORDS for word in found) and all(
        word in _IMAGE_WORDS or word in _ADDITIONS for word in found
    )


def _phrase(text: str) -> str:
    """Returns the words of a text, lower case, without those of counts and, if it has a date, of dates."""
    runs = [run.lower() for run in _LETTERS.findall(text)]
    left_out = _DATE_WORDS if _has_date(text, runs) else _COUNT_WORDS
    return " ".join(run for run in runs if run not in left_out)


def _has_date(text: str, runs: list[str]) -> bool:
    """Whether a text has a date or a time, or a month next to a number; without digits it has neither."""
    if not _NUMBER.search(text):
        return False
    return bool(_DATE_OR_TIME.search(text)) or any(run in _MONTHS for run in runs)


_PHRASES = frozenset(map(_phrase, WORDS)) - {""}


def _is_slug(text: str) -> bool:
    """Whether a name without spaces has words: "Canon-EOS-5D-Mark-IV-Body-Only" does, a hash does not."""
    found = _WORD_IN_NAME.findall(text)
    letters = sum(map(str.isalpha, text))
    if len(found) > 1 and sum(map(len, found)) >= _WORDS_OF_A_SLUG * letters:
        return True
    parts = _PARTS_OF_NAME.split(text)
    if not all(map(_PART_OF_NAME.fullmatch, parts)):
        return False
    said = [part for part in parts if _WORD_IN_NAME.fullmatch(part) and part.lower() not in WORDS]
    return len(said) > 1 or any(len(part) >= _LONG_WORD for part in said)


def _hashes(words: Iterable[str], first_bytes: int | None = None) -> Hashes:
    """Returns sorted hashes of the words, or of their first bytes, in their usual spellings: kernels
    lower-case only ASCII letters. Capitals of another word (SCHLIESSEN of "schließen") are left out.
    """
    spellings = {
        form
        for word in words
        for form in (word, word.upper(), word.capitalize(), word.title())
        if form.lower() == word.lower()
    }
    arrays = (constant(spelling.encode()[:first_bytes]) for spelling in spellings)
    return np.unique(np.array([hash_of(array, 0, array.size) for array in arrays], np.uint64))


@cache
def _lists() -> Lists:
    words_in_phrases = (part for word in WORDS for part in _LETTERS.findall(word))
    layer_parts = (part for word in _LAYER_WORDS for part in word.split())
    camera_parts = (part for word in _CAMERA_WORDS for part in _LETTERS.findall(word))
    others = (*_DATE_WORDS, *camera_parts, *_CAMERA_ENDINGS, *_DIMENSION_MARKS, *_ADDITIONS, *_PROGRAM_WORDS)
    parts = _hashes((*others, *layer_parts, *words_in_phrases))
    sentences = _hashes(words("no-text-sentences"), SENTENCE_BYTES)
    cameras, endings, programs = map(_hashes, (_CAMERA_WORDS, _ENDINGS, _LEADING_WORDS))
    return Lists(_hashes(WORDS), parts, cameras, endings, programs, sentences)


_SIMPLE = {
    IS_WORD: ParseReason.PLACEHOLDER_WORD,
    IS_FILE_NAME: ParseReason.PLACEHOLDER_FILE_NAME,
    IS_DATE: ParseReason.PLACEHOLDER_DATE,
}


class PlaceholderRule:
    """Applies `placeholder` to columns, for the reasons that the settings refuse."""

    def __init__(self, settings: ParseSettings) -> None:
        switches = {
            ParseReason.PLACEHOLDER_WORD: settings.refuse_placeholder_words,
            ParseReason.PLACEHOLDER_FILE_NAME: settings.refuse_placeholder_file_names,
            ParseReason.PLACEHOLDER_HASH: settings.refuse_placeholder_hashes,
            ParseReason.PLACEHOLDER_DATE: settings.refuse_placeholder_dates,
        }
        self._refused = frozenset(reason for reason, refused in switches.items() if refused)
        self._lists = _lists()

    def judge(self, arena: ByteArena, starts: Ints, ends: Ints, reasons: Bytes) -> None:
        """Sets the reasons of captions that are placeholders and not dropped yet."""
        if not self._refused:
            return
        findings = np.zeros(starts.size, np.uint8)
        find_placeholders(arena.data, starts, ends, self._lists, findings)
        findings[reasons != 0] = 0
        for finding, reason in _SIMPLE.items():
            if reason in self._refused:
                reasons[findings == finding] = REASON_CODES[reason]
        rows = np.flatnonzero(findings == MAY_BE)
        for row, start, end in zip(
            *(column.tolist() for column in (rows, starts[rows], ends[rows])), strict=True
        ):
            found = _known(arena.bytes(start, end))
            if found in self._refused:
                reasons[row] = REASON_CODES[found]


@lru_cache(1 << 14)  # such texts repeat
def _known(text: bytes) -> ParseReason | None:
    return placeholder(text.decode(errors="replace"))
