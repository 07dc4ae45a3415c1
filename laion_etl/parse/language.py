"""Detects the language of captions: CLD3 like the original, py3langid, or a custom detector.

A detector gets many texts at once, after cleaning and deduplication. CLD3's library takes 28 µs for a text of
40 characters, which was 60% of a complete parse; compiled loops over the same weights take a fifth of that
(kernels/languages.py), and leave one text in forty to the library. docs/languages.md has the accuracy of both
detectors by text length.

`cld3-py` is the same network as pycld3's, with wheels for current Pythons; it imports as gcld3. Both models
are imported on demand, so that a run loads only one of them.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from laion_etl.core.import_factory import load_choice
from laion_etl.core.quantities import quantity
from laion_etl.core.rule_failures import apply_by_rows
from laion_etl.parse.language_codes import CLD3_CODES, checked_languages
from laion_etl.settings import ParseSettings

_OFTEN_CONFUSED = ("hr", "bs")  # with each other: a lower probability counts as reliable
_LEAST, _LEAST_OF_CONFUSED = 0.7, 0.5
_VARIABLE = "LAION_ETL_PARSE_LANGUAGE_DETECTOR"


class Languages(NamedTuple):
    """Row i is text i: ISO 639 code ('' if not reliable) and the probability of the best guess, 0 to 1."""

    codes: list[str]
    probabilities: list[float]


class LanguageDetector(Protocol):
    """The interface of detectors; docs/languages.md shows how to write one.

    LAION_ETL_PARSE_LANGUAGES is checked against the attribute `languages`, a frozenset of all codes that the
    detector may answer, where it has one.
    """

    def detect(self, texts: Sequence[str]) -> Languages:
        """Returns the languages of texts in their order; '' for a text it cannot classify."""
        ...


class Cld3:
    """CLD3 with the original's limits; a probability of at least 0.7 counts as reliable (hr, bs: 0.5)."""

    languages = CLD3_CODES

    def __init__(self, settings: ParseSettings) -> None:
        import gcld3

        from laion_etl.parse.cld3_model import Cld3Network  # numba, which takes half a second to import

        limits = settings.language_min_bytes, settings.language_max_bytes
        self._identifier = gcld3.NNetLanguageIdentifier(*limits)
        self._network = Cld3Network(*limits)
        # The last two are those of NOT_DECIDED and TOO_SHORT, -2 and -1.
        self._codes = [*(_code(name) for name in self._network.names), "", ""]
        self._least = np.array([_least(code) for code in self._codes], np.float32)

    def detect(self, texts: Sequence[str]) -> Languages:
        """Returns CLD3's codes (`iw`, `no`, `fil`) without script suffixes as in `ru-Latn`."""
        try:
            return self._detect(texts)
        except UnicodeEncodeError:  # a lone surrogate, which cannot be encoded in UTF-8
            return self._detect([_encoded(text).decode() for text in texts])

    def _detect(self, texts: Sequence[str]) -> Languages:
        found = self._network.find(texts)
        reliable = found.probabilities >= self._least[found.languages]
        codes = [self._codes[number] for number in np.where(reliable, found.languages, -1).tolist()]
        for row in found.undecided:
            result = self._identifier.FindLanguage(texts[row])
            probability, code = np.float32(result.probability), _code(result.language)
            codes[row] = code if probability >= np.float32(_least(code)) else ""
            found.probabilities[row] = probability
        return Languages(codes, found.probabilities.tolist())


def _least(code: str) -> float:
    return _LEAST_OF_CONFUSED if code in _OFTEN_CONFUSED else _LEAST


def _code(language: str) -> str:
    return language.partition("-")[0]


class Py3Langid:
    """py3langid: naive Bayes over byte n-grams, 139 languages; better than CLD3 on short texts. About 80 MB.

    Its model also recognises texts in no language (numbers, markup, identifiers): their code is ''.
    """

    # CLD3's codes, which LAION-5B uses: a code means the same whichever detector a dataset was made with.
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
        """Returns CLD3's codes; '' below `language_min_probability`."""
        found = Languages([], [])
        for text in texts:
            code, probability = self._best(_encoded(text))
            found.codes.append(code if probability >= self._min_probability else "")
            found.probabilities.append(probability)
        return found

    def _best(self, text: bytes) -> tuple[str, float]:
        if len(text) < self._min_bytes:
            return "", 0.0
        code, probability = self._classify(text[: self._max_bytes])  # it ignores a character cut in two
        return self._CODES.get(code, code), probability


class NoDetector:
    """Leaves every language empty, for datasets that need none or detect it elsewhere."""

    languages: frozenset[str] = frozenset()

    def __init__(self, settings: ParseSettings) -> None:
        pass

    def detect(self, texts: Sequence[str]) -> Languages:
        """Returns '' and 0 for every text."""
        return Languages([""] * len(texts), [0.0] * len(texts))


_SHIPPED: dict[str, Callable[[ParseSettings], LanguageDetector]] = {
    "cld3": Cld3,
    "py3langid": Py3Langid,
    "none": NoDetector,
}


def detected(
    detector: LanguageDetector, texts: Sequence[str], failed: Callable[[int, Exception], None]
) -> tuple[pa.StringArray, pa.FloatArray]:
    """Returns codes and probabilities of texts; null, and passed to `failed`, where the detector raises.

    The same goes for texts for which it returns no language.
    """
    codes: list[pa.Array] = [pa.array([], pa.string())]
    probabilities: list[pa.Array] = [pa.array([], pa.float32())]

    def apply(start: int, end: int) -> None:
        part = texts[start:end]
        found = detector.detect(part)
        columns = pa.array(found.codes, pa.string()), pa.array(found.probabilities, pa.float32())
        if any(len(column) != len(part) or column.null_count for column in columns):
            raise ValueError(
                f"the language detector returned no language for some of {quantity(len(part), 'text')}"
            )
        codes.append(columns[0])
        probabilities.append(columns[1])

    def fail(row: int, error: Exception) -> None:
        codes.append(pa.nulls(1, pa.string()))
        probabilities.append(pa.nulls(1, pa.float32()))
        failed(row, error)

    apply_by_rows(apply, len(texts), fail)
    return pa.concat_arrays(codes), pa.concat_arrays(probabilities)


def language_detector(settings: ParseSettings) -> LanguageDetector:
    """Returns the detector that the setting names: `cld3`, `py3langid`, `none` or `module:factory`.

    A factory is called with the settings and returns a LanguageDetector. Raises SettingsError if it does not.
    """
    protocol = "LanguageDetector (docs/languages.md)"
    return load_choice(settings.language_detector, _VARIABLE, _SHIPPED, settings, "detect(texts)", protocol)


def languages_kept(settings: ParseSettings, detector: LanguageDetector) -> list[str]:
    """The codes that captions to keep have, '' for none; empty: all are kept. Raises SettingsError."""
    known = getattr(detector, "languages", None)
    return checked_languages(settings.languages, known, settings.language_detector)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "replace")
