"""Finds captions that describe nothing: "image", "IMG_1234.JPG", hashes, dates.

`placeholder` is the rule; `PlaceholderRule.judge` applies it to a column: a kernel sorts out the captions
that cannot be placeholders, and only the rest is passed to `placeholder`.
"""

import re
from collections.abc import Iterable
from functools import lru_cache

import numpy as np

from laion_etl.core.byte_arena import ByteArena
from laion_etl.core.funnel import ParseReason
from laion_etl.core.kernels import Bytes, Hashes, Ints, constant, hash_of
from laion_etl.core.reason_codes import REASON_CODES
from laion_etl.core.wordlists import words
from laion_etl.parse.kernels.texts import IS_WORD, MAX_BYTES, MAY_BE, find_placeholders
from laion_etl.settings import ParseSettings

WORDS = frozenset(words("placeholder-words"))
_DATE_WORDS = frozenset(words("date-words"))
_CAMERA_WORDS = words("camera-words")
_CAMERA_ENDINGS = words("camera-endings")
_IMAGE_ENDINGS = (
    "jpe?g|jfif|png|gif|webp|bmp|tiff?|svg|avif|heic|heif|ico|psd|eps|pdf|raw|cr2|nef|dng|jp2|mp4|mov"
)

_FILE_NAME = re.compile(
    rf"(?:\S+|(?:\S+ ){{1,3}}\S+)\.(?:{_IMAGE_ENDINGS})|[!-~]+\.(?:{_IMAGE_ENDINGS})[?#][!-~]*", re.IGNORECASE
)
# Possessive quantifiers (++): without them a text of many digits takes exponential time.
_CAMERA_NAME = re.compile(
    rf"(?:{'|'.join(_CAMERA_WORDS)}|whatsapp[ _-]image)[ _-]?[0-9]{{3,}}+"
    rf"(?:\.(?:{_IMAGE_ENDINGS})\Z|[ _.-]++|{'|'.join(_CAMERA_ENDINGS)}|[0-9]++|\([0-9]++\))*+",
    re.IGNORECASE,
)
_FILE_STEM = re.compile(r"(?=.*[0-9])[A-Za-z0-9]+(?:_[A-Za-z0-9]+)+(?:-[0-9]+x[0-9]+)?")
_HEX = re.compile(
    r"(?:0x)?(?=[0-9a-f]*[0-9])[0-9a-f]{16,}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE
)
_TOKEN = re.compile(r"(?=.*[0-9])(?=.*[a-z])(?=.*[A-Z])[A-Za-z0-9+/_-]{20,}={0,2}")
_DIGIT_OR_DOT = re.compile(r"[0-9.]")
_LETTERS = re.compile(r"[A-Za-z\x80-\U0010ffff]+")
_NUMBERS = re.compile(r"(?=[^0-9]*[0-9])[\x20-\x7e\x80-\U0010ffff]+")
_EDGES = (
    "".join(chr(point) for point in range(128) if not chr(point).isalpha()) + "«»“”‘’…–—・「」『』（）、。"
)


def placeholder(text: str) -> ParseReason | None:
    """Returns why a cleaned caption says nothing about its image; None if it may say something."""
    if len(text.encode()) > MAX_BYTES:
        return None
    stripped = text.strip(_EDGES)
    is_word = stripped.lower() in WORDS
    if not _DIGIT_OR_DOT.search(text) or (is_word and stripped == text):
        return ParseReason.PLACEHOLDER_WORD if is_word else None
    if _FILE_NAME.fullmatch(text) or _CAMERA_NAME.fullmatch(text):
        return ParseReason.PLACEHOLDER_FILE_NAME
    if _is_date(text):
        return ParseReason.PLACEHOLDER_DATE
    if is_word:
        return ParseReason.PLACEHOLDER_WORD
    if " " in text:
        return None
    if _HEX.fullmatch(text) or _TOKEN.fullmatch(text):
        return ParseReason.PLACEHOLDER_HASH
    return ParseReason.PLACEHOLDER_FILE_NAME if _FILE_STEM.fullmatch(text) else None


def _is_date(text: str) -> bool:
    """Whether a text consists of numbers and words of dates and times only."""
    if not _NUMBERS.fullmatch(text):
        return False
    return all(run.lower() in _DATE_WORDS for run in _LETTERS.findall(text))


def _hashes(words: Iterable[str]) -> Hashes:
    """Returns sorted hashes of the words in their usual spellings: kernels lower-case only ASCII letters."""
    spellings = {form for word in words for form in (word, word.upper(), word.capitalize(), word.title())}
    arrays = (constant(spelling.encode()) for spelling in spellings)
    return np.unique(np.array([hash_of(array, 0, array.size) for array in arrays], np.uint64))


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
        self._words = _hashes(WORDS)
        self._number_words = _hashes((*_DATE_WORDS, *_CAMERA_WORDS, *_CAMERA_ENDINGS))

    def judge(self, arena: ByteArena, starts: Ints, ends: Ints, reasons: Bytes) -> None:
        """Sets the reasons of captions that are placeholders and not dropped yet."""
        if not self._refused:
            return
        findings = np.zeros(starts.size, np.uint8)
        find_placeholders(arena.data, starts, ends, self._words, self._number_words, findings)
        findings[reasons != 0] = 0
        if ParseReason.PLACEHOLDER_WORD in self._refused:
            reasons[findings == IS_WORD] = REASON_CODES[ParseReason.PLACEHOLDER_WORD]
        for row in np.flatnonzero(findings == MAY_BE).tolist():
            reason = _known(arena.bytes(starts[row], ends[row]))
            if reason in self._refused:
                reasons[row] = REASON_CODES[reason]


@lru_cache(1 << 14)  # such texts repeat
def _known(text: bytes) -> ParseReason | None:
    return placeholder(text.decode(errors="replace"))
