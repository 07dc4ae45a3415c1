"""Cleans alt texts into captions: repairs mojibake, removes HTML and control characters, folds white space.

The rules are the original's (LAION-5B section 3: ftfy, white space, lengths) plus NFC (UAX 15), no
bidirectional or other format characters (UAX 9) and no HTML tags. `clean_alt` is the rule; `clean_texts`
applies it to a column and passes only those texts to it that are not obviously clean.

What a character is comes from one Unicode table, that of the package unicodedata2, not from the one of the
Python that runs: with an older one, newer emoji were taken for unassigned and removed, and the pair's id,
a hash of the caption, depended on the version of Python. A new major version of the package is a new rule:
raise RULES_VERSION (link_filters.py).
"""

import re
from functools import lru_cache

import ftfy
import numpy as np
import unicodedata2 as unicodedata
from ftfy.badness import is_bad
from ftfy.fixes import unescape_html

from laion_etl.core.byte_arena import ByteArena
from laion_etl.core.html_entities import unescaped
from laion_etl.core.kernels import Ints
from laion_etl.core.wordlists import words
from laion_etl.parse.kernels.text_repairs import repair_texts
from laion_etl.parse.kernels.texts import NEEDS_CLEANING, judge_texts

# A hostile page may have alt texts of megabytes; repairing more than this many times the kept length
# cannot change what is kept.
_REPAIR_FACTOR = 4

# Format characters that are part of words (Persian, Indic scripts) or emoji: kept inside a text.
_JOINERS = "\u200c\u200d"
# Those that are seen or that change how their neighbours are written: marks that enclose a number (Unicode
# 9.2, "prepended concatenation marks"), the Mongolian vowel separator, joins of Egyptian hieroglyphs.
_VISIBLE_FORMATS = frozenset(
    "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\u180e\U000110bd\U000110cd"
    + "".join(map(chr, range(0x13430, 0x13440)))
)
# Flags of regions (Wales, Scotland): a black flag, letters of the tag block, and the tag that ends them
# (UTS 51, ED-14a).
_TAG_SEQUENCE = re.compile("\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{1,6}\U000e007f")

# What ftfy changes besides mojibake, NFC, entities and quotes: markup, line breaks, control characters,
# ligatures, half and full width, surrogates.
_NEEDS_FTFY = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u0132\u0133\u0149\u01c4-\u01cc\u01f1-\u01f3\u2028\u2029\u206a-\u206f\u3000"
    "\ud800-\udfff\ufb00-\ufb06\ufeff\uff00-\uffff]"
)
# No pattern of ftfy.badness matches a text without one of these characters. Excluded are ASCII, what ftfy
# calls common, quotation marks (which only count next to accented Latin letters and symbols) and letters of
# other scripts, except the Cyrillic letters that mojibake of Cyrillic begins with.
_MAY_BE_MOJIBAKE = re.compile(
    "[^\x00-\x7f\xa0\xad\xb7\xb4\u2013-\u2015\u2026\u2018\u2019\u201c-\u201e\u0410\u0411\u0414-\u041f\u0422-\u044f\u0451"
    "\u05d0-\u05ea\u0621-\u064a\u0e01-\u0e5b\u3001\u3002\u300c-\u300f\u3041-\u30ff\u4e00-\u9fff\uac00-\ud7a3]"
)
_STRAIGHT_QUOTES = [(quote, "'") for quote in "\u2019\u2018\u201a\u201b\u02bc"] + [
    (quote, '"') for quote in "\u201c\u201d\u201e\u201f"
]

_TAG = re.compile(
    rf"</?(?:{'|'.join(words('html-elements'))})(?:\s[^<>]{{0,500}})?\s?/?>|<!--[^<>]{{0,500}}-->",
    re.IGNORECASE,
)


def clean_alt(raw: str, max_chars: int) -> str:
    """Returns the caption to store: at most `max_chars` characters, possibly empty."""
    text = repaired(raw[: max_chars * _REPAIR_FACTOR])
    if "<" in text:  # ftfy then leaves entities alone
        text = _TAG.sub(" ", unescaped(text))
    text = " ".join(text.split())
    if (
        not text.isprintable()
    ):  # which no table takes back: what is printable in an older one is in a newer one
        text = " ".join(_without_controls(text).split())
    composed: str = unicodedata.normalize("NFC", text)
    return composed[:max_chars].strip(_JOINERS + " ")


def repaired(text: str) -> str:
    """Returns the result of ftfy.fix_text, several times as fast for texts that only need straight quotes."""
    has_entities = "&" in text and "<" not in text  # ftfy leaves entities alone in what looks like markup
    while has_entities and (unescaped := unescape_html(text)) != text:
        text = unescaped
    if (
        _NEEDS_FTFY.search(text)
        or unicodedata.normalize("NFC", text) != text
        or (_MAY_BE_MOJIBAKE.search(text) and any(map(is_bad, text.split("\n"))))
    ):
        return ftfy.fix_text(text)
    for quote, straight in _STRAIGHT_QUOTES:  # several times as fast as str.translate
        text = text.replace(quote, straight)
    return text


def _without_controls(text: str) -> str:
    flags = _TAG_SEQUENCE.findall(text)
    parts = ("".join(map(_printable, part)) for part in _TAG_SEQUENCE.split(text))
    return "".join(part + flag for part, flag in zip(parts, [*flags, ""], strict=True))


@lru_cache(1 << 12)
def _printable(character: str) -> str:
    category = unicodedata.category(character)
    if category in ("Cc", "Zs", "Zl", "Zp"):
        return " "
    if category in ("Cf", "Cs", "Co", "Cn"):  # bidi controls, lone surrogates, private use, unassigned
        return character if character in _JOINERS or character in _VISIBLE_FORMATS else ""
    return character


def clean_texts(arena: ByteArena, starts: Ints, ends: Ints, max_chars: int) -> Ints:
    """Replaces the spans by those of cleaned texts; returns the length of each in characters.

    A span that begins at -1 is a missing text: it stays, with length 0.
    """
    judgements, lengths = np.empty(starts.size, np.int32), np.empty(starts.size, np.int32)
    judge_texts(arena.data, starts, ends, max_chars, judgements, lengths)
    _repair(arena, (starts, ends), max_chars, (judgements, lengths))
    for row in np.flatnonzero(judgements == NEEDS_CLEANING).tolist():
        text = clean_alt(arena.text(starts[row], ends[row]), max_chars)
        starts[row], ends[row] = arena.add(text.encode())
        lengths[row] = len(text)
    return lengths


def _repair(arena: ByteArena, spans: tuple[Ints, Ints], max_chars: int, found: tuple[Ints, Ints]) -> None:
    """Applies the kernel for simple repairs; `found` are judgements and lengths."""
    unclean = found[0] == NEEDS_CLEANING
    if not unclean.any():
        return
    arena.reserve(int((spans[1] - spans[0])[unclean].sum()))
    arena.size = repair_texts(arena.data, *spans, max_chars, *found, arena.size)


def wide_lengths(arena: ByteArena, starts: Ints, ends: Ints, lengths: Ints, minimum: int) -> Ints:
    """Returns lengths in which wide characters (UAX 11: W, F) count as two, where that reaches `minimum`."""
    wide = lengths.copy()
    may_reach = (lengths < minimum) & (2 * lengths >= minimum) & (ends - starts > lengths)
    for row in np.flatnonzero(may_reach).tolist():
        text = arena.text(starts[row], ends[row])
        wide[row] += sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return wide
