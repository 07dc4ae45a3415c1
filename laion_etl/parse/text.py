"""Alt text: mojibake repaired, control characters out, white space folded, cut to length.

The rules are the original's (LAION-5B section 3); what a text must be to be kept is in stage.py.
"""

import unicodedata

import ftfy

# An alt of a hostile page may be megabytes long; repairing more than this many times the kept length
# can't change what is kept.
_REPAIR_FACTOR = 4

# Format characters that are part of words (Persian, Indic scripts) or emoji: kept between others.
_JOINERS = "\u200c\u200d"


def clean_alt(raw: str, max_chars: int) -> str:
    """The alt text as it is stored: at most `max_chars` characters, possibly empty."""
    text = raw[: max_chars * _REPAIR_FACTOR]
    if not text.isascii() or "&" in text:
        text = unicodedata.normalize("NFC", ftfy.fix_text(text))
    if not text.isprintable():
        text = "".join(map(_printable, text))
    return " ".join(text.split())[:max_chars].rstrip()


def _printable(character: str) -> str:
    category = unicodedata.category(character)
    if category in ("Cc", "Zs", "Zl", "Zp"):
        return " "
    if category in ("Cf", "Cs", "Co", "Cn"):  # bidi controls, lone surrogates, private use, unassigned
        return character if character in _JOINERS else ""
    return character
