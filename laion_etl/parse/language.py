"""Language of an alt text by CLD3, as the original did it.

`cld3-py` is the same network as pycld3's, with wheels for current Pythons; it imports as gcld3.
"""

from typing import NamedTuple

import gcld3

from laion_etl.settings import ParseSettings


class Language(NamedTuple):
    """ISO 639 code as CLD3 gives it ('' when not reliable) and CLD3's probability."""

    code: str
    probability: float


class LanguageDetector:
    """CLD3 with the original's limits."""

    def __init__(self, settings: ParseSettings) -> None:
        self._identifier = gcld3.NNetLanguageIdentifier(
            min_num_bytes=settings.language_min_bytes, max_num_bytes=settings.language_max_bytes
        )

    def detect(self, text: str) -> Language:
        """The language of a text; `ru-Latn` style script suffixes are dropped."""
        found = self._identifier.FindLanguage(text)
        code = found.language.partition("-")[0] if found.is_reliable else ""
        return Language("" if code == "und" else code, found.probability)
