"""The codes by which `LAION_ETL_PARSE_LANGUAGES` names languages, checked against those of a detector.

A code that no detector answers would keep nothing: after hours, a whole crawl of empty partitions.
"""

import re
from collections.abc import Sequence
from typing import Final

from laion_etl.core.errors import SettingsError

NONE: Final = "none"  # captions without a reliable language

# kLanguageNames of CLD3 (task_context_params.cc) without its suffixes for Latin script, which we drop.
# fmt: off
CLD3_CODES: Final = frozenset(
    [
        "af", "am", "ar", "az", "be", "bg", "bn", "bs", "ca", "ceb", "co", "cs", "cy", "da", "de", "el",
        "en", "eo", "es", "et", "eu", "fa", "fi", "fil", "fr", "fy", "ga", "gd", "gl", "gu", "ha",
        "haw", "hi", "hmn", "hr", "ht", "hu", "hy", "id", "ig", "is", "it", "iw", "ja", "jv", "ka",
        "kk", "km", "kn", "ko", "ku", "ky", "la", "lb", "lo", "lt", "lv", "mg", "mi", "mk", "ml", "mn",
        "mr", "ms", "mt", "my", "ne", "nl", "no", "ny", "pa", "pl", "ps", "pt", "ro", "ru", "sd", "si",
        "sk", "sl", "sm", "sn", "so", "sq", "sr", "st", "su", "sv", "sw", "ta", "te", "tg", "th", "tr",
        "uk", "ur", "uz", "vi", "xh", "yi", "yo", "zh", "zu",
    ]
)
# fmt: on

# Today's code, or another one in use -> the code that detectors give, which LAION-5B has too.
_SAME_LANGUAGE: Final = {
    "he": "iw",
    "tl": "fil",
    "nb": "no",
    "in": "id",
    "jw": "jv",
    "ji": "yi",
    "cn": "zh",
    "eng": "en",
}
_LONGEST_CODE: Final = 3
_CODE: Final = re.compile(rf"[a-z]{{2,{_LONGEST_CODE}}}")
_NO_LANGUAGE: Final = frozenset({"", NONE, "nolang", "und", "zxx"})  # "und" and "zxx" are those of ISO 639


def code_of(given: object) -> str | None:
    """Return a code as detectors answer it, '' for no language; None for anything that is not a code.

    Capitals, scripts and regions (`EN`, `zh-Hant`, `pt_BR`) do not matter, and `he` is `iw`. A code that no
    detector answers stays as it is.
    """
    if given is None:
        return ""
    if not isinstance(given, str):
        return None
    short = re.split("[-_]", given.strip().lower())[0]
    if short in _NO_LANGUAGE:
        return ""
    return _SAME_LANGUAGE.get(short, short) if _CODE.fullmatch(short) else None


def checked_languages(asked: Sequence[str], known: frozenset[str] | None, detector: str) -> list[str]:
    """The codes as a detector answers them, '' for `none`.

    `known`: all codes the detector may answer; None where it does not say, then any is taken.
    Raises SettingsError naming the first code that is not known, and one that may be meant.
    """
    for code in asked:
        if code != NONE and known is not None and code not in known:
            raise SettingsError(_unknown(code, known, detector))
    return ["" if code == NONE else code for code in asked]


def _unknown(code: str, known: frozenset[str], detector: str) -> str:
    meant = _meant(code, known)
    hint = (
        f"did you mean {meant}?" if meant else f"it knows {', '.join(sorted(known)) or 'no language at all'};"
    )
    return (
        f"cannot keep captions in the language {code[:40]!r}: the detector {detector} does not know it; "
        f"{hint} LAION_ETL_PARSE_LANGUAGES takes codes such as en,de, and none for captions without one"
    )


def _meant(code: str, known: frozenset[str]) -> str:
    """The code that may be meant: by other capitals, a region, another standard, or an English name."""
    lower = code.strip().lower()
    short = lower.partition("-")[0].partition("_")[0]
    candidates = (short, _SAME_LANGUAGE.get(short, ""), lower[:2] if len(short) > _LONGEST_CODE else "")
    return next((candidate for candidate in candidates if candidate in known), "")
