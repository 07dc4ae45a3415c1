"""Languages of alt texts: CLD3 as the original did it, py3langid, or a detector of one's own.

A detector is given many texts at once, after cleaning and after duplicates are gone: nearly all the time
of the loops below is spent in the model, 30 µs for a text of 40 characters in CLD3 against 0.6 µs for
reading its answer. docs/languages.md has the accuracy of both per length.

`cld3-py` is the same network as pycld3's, with wheels for current Pythons; it imports as gcld3. Both
models are imported when they are asked for, so that a run loads one of them.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from laion_etl.errors import SettingsError
from laion_etl.factories import load_factory
from laion_etl.parse.language_codes import CLD3_CODES, checked_languages
from laion_etl.settings import ParseSettings

_KNOB = "LAION_ETL_PARSE_LANGUAGE_DETECTOR"


class Languages(NamedTuple):
    """Row i is text i: ISO 639 code ('' when not reliable) and the probability of the best guess, 0 to 1."""

    codes: list[str]
    probabilities: list[float]


class Detector(Protocol):
    """What a detector offers; see docs/languages.md for one's own.

    One with an attribute `languages`, a frozenset of all codes it may answer, has LAION_ETL_PARSE_LANGUAGES
    checked against them.
    """

    def detect(self, texts: Sequence[str]) -> Languages:
        """The languages of texts in their order; a text it can't judge gets the code ''."""
        ...


class Cld3:
    """CLD3 with the original's limits; reliable is a probability of 0.7 and more (hr, bs: 0.5)."""

    languages = CLD3_CODES

    def __init__(self, settings: ParseSettings) -> None:
        import gcld3

        self._identifier = gcld3.NNetLanguageIdentifier(
            min_num_bytes=settings.language_min_bytes, max_num_bytes=settings.language_max_bytes
        )

    def detect(self, texts: Sequence[str]) -> Languages:
        """Codes as CLD3 names them (`iw`, `no`, `fil`); script suffixes as in `ru-Latn` are dropped."""
        find = self._identifier.FindLanguage
        found = Languages([], [])
        for text in texts:
            try:
                result = find(text)
            except TypeError:  # a lone surrogate, which UTF-8 can't carry
                result = find(_encoded(text).decode())
            found.codes.append(result.language.partition("-")[0] if result.is_reliable else "")
            found.probabilities.append(result.probability)
        return found


class Py3Langid:
    """py3langid: naive Bayes over byte n-grams, 139 languages; better than CLD3 on short texts.

    Its model also knows texts in no language (numbers, markup, identifiers): their code is ''. About 80 MB.
    """

    # CLD3's names, as LAION-5B has them: a dataset means the same whichever detector made it.
    _CODES = {"he": "iw", "tl": "fil", "zxx": ""}  # noqa: RUF012 - never written

    def __init__(self, settings: ParseSettings) -> None:
        from py3langid.langid import (  # type: ignore[import-untyped]
            MODEL_FILE,
            LanguageIdentifier,
        )

        identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        self._classify = identifier.classify
        self.languages = frozenset(self._CODES.get(code, code) for code in identifier.labels) - {""}
        self._min_bytes = settings.language_min_bytes
        self._max_bytes = settings.language_max_bytes
        self._min_probability = settings.language_min_probability

    def detect(self, texts: Sequence[str]) -> Languages:
        """Codes as CLD3 names them; '' below `language_min_probability`."""
        found = Languages([], [])
        for text in texts:
            code, probability = self._best(_encoded(text))
            found.codes.append(code if probability >= self._min_probability else "")
            found.probabilities.append(probability)
        return found

    def _best(self, text: bytes) -> tuple[str, float]:
        if len(text) < self._min_bytes:
            return "", 0.0
        code, probability = self._classify(text[: self._max_bytes])  # it passes over a character cut in two
        return self._CODES.get(code, code), probability


class NoDetector:
    """Every text is in no language: for who finds languages elsewhere, or doesn't ask."""

    languages: frozenset[str] = frozenset()

    def __init__(self, settings: ParseSettings) -> None:
        pass

    def detect(self, texts: Sequence[str]) -> Languages:
        """'' and 0 for all."""
        return Languages([""] * len(texts), [0.0] * len(texts))


_SHIPPED: dict[str, Callable[[ParseSettings], Detector]] = {
    "cld3": Cld3,
    "py3langid": Py3Langid,
    "none": NoDetector,
}


def language_detector(settings: ParseSettings) -> Detector:
    """The detector that `language_detector` names: `cld3`, `py3langid`, `none` or `module:factory`.

    A factory is called with the settings and returns a Detector. Raises SettingsError when there is none.
    """
    name = settings.language_detector
    factory = _SHIPPED.get(name) or load_factory(name, _KNOB, ", ".join(_SHIPPED))
    detector = factory(settings)
    if not callable(getattr(detector, "detect", None)):
        raise SettingsError(f"{_KNOB}={name!r}: what the factory returned has no method detect(texts)")
    return detector


def languages_kept(settings: ParseSettings, detector: Detector) -> list[str]:
    """The codes that captions to keep have, '' for none; empty: all are kept. Raises SettingsError."""
    known = getattr(detector, "languages", None)
    return checked_languages(settings.languages, known, settings.language_detector)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "replace")
