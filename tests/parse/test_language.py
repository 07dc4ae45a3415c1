"""Both shipped detectors work, and a custom one can be configured."""

import csv
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from laion_etl.core.errors import SettingsError
from laion_etl.parse.language import LanguageDetector, Languages, language_detector
from laion_etl.settings import ParseSettings, load_settings
from tests.documented_code import code_blocks, run_python

DETECTORS = ("cld3", "py3langid")
HERE = __name__

# One name per language where the detectors or the labels differ, and one Norwegian.
SAME = {"iw": "he", "fil": "tl", "no": "nb", "nn": "nb"}


@pytest.fixture(scope="session")
def detectors() -> dict[str, LanguageDetector]:
    return {name: language_detector(ParseSettings(language_detector=name)) for name in DETECTORS}


@pytest.fixture(params=DETECTORS)
def detector(request: pytest.FixtureRequest, detectors: dict[str, LanguageDetector]) -> LanguageDetector:
    return detectors[request.param]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("A red circle on a wide green field in the summer", "en"),
        ("A RED CIRCLE ON A WIDE GREEN FIELD IN THE SUMMER", "en"),
        ("Ein roter Kreis auf einer grünen Wiese im Sommer", "de"),
        ("Un cercle rouge sur une grande prairie verte en été", "fr"),
        ("Un círculo rojo en un campo verde y amplio en verano", "es"),
        ("Красный круг на зелёном поле летом", "ru"),
        ("夏の広い緑の野原にある赤い円", "ja"),
        ("夏天宽阔绿色田野上的红色圆圈", "zh"),
        ("여름의 넓은 초록 들판 위의 빨간 원", "ko"),
        ("دائرة حمراء في حقل أخضر واسع في الصيف", "ar"),
        ("עיגול אדום בשדה ירוק רחב בקיץ", "iw"),  # the name LAION-5B has for Hebrew
        ("Isang pulang bilog sa malawak na luntiang bukid tuwing tag-araw", "fil"),
        ("IMG 20190304 1123", ""),
        ("ab", ""),
        ("", ""),
    ],
)
def test_the_language_of_a_text(detector: LanguageDetector, text: str, code: str) -> None:
    assert detector.detect([text]).codes == [code]


def test_the_script_is_not_part_of_the_code(detectors: dict[str, LanguageDetector]) -> None:
    latin = ["Krasnyy krug na zelonom pole letom v derevne"]  # CLD3 says ru-Latn
    assert detectors["cld3"].detect(latin).codes == ["ru"]


def test_py3langid_knows_short_texts_that_cld3_does_not(detectors: dict[str, LanguageDetector]) -> None:
    texts = ["Zimní krajina", "Une belle maison", "Blumen im Garten", "Casa de campo"]
    right = ["cs", "fr", "de", "es"]
    found = {
        name: sum(a == b for a, b in zip(detectors[name].detect(texts).codes, right, strict=True))
        for name in DETECTORS
    }
    assert found["py3langid"] > found["cld3"]


def test_answers_come_in_the_order_of_the_texts(detector: LanguageDetector) -> None:
    texts = ["The quick brown fox jumps over the lazy dog", "", "Der Hund schläft unter dem alten Baum", "ab"]
    found = detector.detect(texts * 50)
    assert found.codes == ["en", "", "de", ""] * 50
    assert found.probabilities == detector.detect(texts).probabilities * 50


def test_no_texts_give_no_answers(detector: LanguageDetector) -> None:
    assert detector.detect([]) == Languages([], [])


def test_the_probability_is_a_share(detector: LanguageDetector) -> None:
    texts = ["A red circle on a wide green field in the summer", "ab", "", "xq zrt vv", "日本の夏の写真"]
    found = detector.detect(texts)
    assert found.probabilities[0] > 0.7
    assert all(0 <= probability <= 1 for probability in found.probabilities)
    assert {type(probability) for probability in found.probabilities} == {float}


@pytest.mark.parametrize("sentence", ["A red circle on a green field. ", "緑の野原の上の赤い円です。"])
def test_a_long_text_has_the_language_of_its_sentences(detector: LanguageDetector, sentence: str) -> None:
    one, long = detector.detect([sentence, sentence * 400]).codes  # 12,000 bytes and more
    assert one == long != ""


def test_py3langid_looks_at_no_more_bytes_than_allowed() -> None:
    settings = ParseSettings(language_detector="py3langid", language_max_bytes=32)
    text = "Красный круг на поле, and then a long English sentence that goes on and on"
    assert language_detector(settings).detect([text]).codes == ["ru"]  # the cut halves a letter


@pytest.mark.parametrize("text", ["\x00" * 9, "🎉🎉🎉", "�" * 9, "........", "12345", "\n\n\n\n\n"])
def test_a_text_without_letters_has_no_language(detector: LanguageDetector, text: str) -> None:
    assert detector.detect([text]).codes == [""]


@pytest.mark.parametrize(
    "weird", ["\ud800", "\udfff\ud800", "\x00", "\u200d", "\u202e", "\ufffe", "\U0010ffff", "\u0301"]
)
def test_a_broken_character_does_not_affect_the_other_texts(detector: LanguageDetector, weird: str) -> None:
    text = "Ein roter Kreis auf einer grünen Wiese im Sommer"
    found = detector.detect([text, f"{weird}rot", weird * 9, text])
    assert found.codes[0] == found.codes[3] == "de"
    assert len(found.codes) == len(found.probabilities) == 4


def test_the_least_probability_of_py3langid_is_a_setting() -> None:
    texts = ["Blumen im Garten", "Winter", "Casa"]
    strict, lax = (
        language_detector(ParseSettings(language_detector="py3langid", language_min_probability=share))
        for share in (0.99, 0.0)
    )
    assert strict.detect(texts).codes == ["", "", ""]
    assert lax.detect(texts).codes[0] == "de"
    assert strict.detect(texts).probabilities == lax.detect(texts).probabilities


class ByFirstLetter:
    """A custom detector."""

    def detect(self, texts: Sequence[str]) -> Languages:
        return Languages([text[:1].lower() for text in texts], [1.0] * len(texts))


def by_first_letter(settings: ParseSettings) -> LanguageDetector:
    assert settings.language_detector.endswith("by_first_letter")
    return ByFirstLetter()


def returns_nothing(settings: ParseSettings) -> None:
    return None


NO_FUNCTION = 3


def test_a_custom_detector_is_named_by_module_and_function() -> None:
    settings = load_settings({"LAION_ETL_PARSE_LANGUAGE_DETECTOR": f"{HERE}:by_first_letter"})
    assert language_detector(settings.parse).detect(["Xylophone", "Yak"]) == Languages(["x", "y"], [1.0, 1.0])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fasttext", "'fasttext' is not a choice; use cld3, py3langid, none or module:factory"),
        ("", "'' is not a choice"),
        (":factory", "is not a choice"),
        ("laion_etl.parse.language:", "is not a choice"),
        ("no_such_package.module:factory", r"no_such_package.module cannot be imported \(No module named"),
        (f"{HERE}:missing", "has no function missing"),
        (f"{HERE}:NO_FUNCTION", "has no function NO_FUNCTION"),
        (f"{HERE}:returns_nothing", r"the factory returned an object without the method detect\(texts\)"),
    ],
)
def test_a_name_that_is_not_a_detector_is_an_error_of_the_settings(name: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        language_detector(ParseSettings(language_detector=name))
    assert "LAION_ETL_PARSE_LANGUAGE_DETECTOR=" in str(caught.value)


def test_the_detector_of_the_settings_can_be_custom() -> None:
    own = language_detector(ParseSettings(language_detector=f"{HERE}:by_first_letter"))
    assert own.detect(["Zebra"]) == (["z"], [1.0])


def _sentences(shared_data: Path) -> list[tuple[str, str]]:
    with (shared_data / "lang" / "sentences.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [(row["language"], row["text"]) for row in rows]


def _shares(detector: LanguageDetector, sentences: list[tuple[str, str]]) -> tuple[float, float]:
    """Shares of sentences with the right language, and without one."""
    found = detector.detect([text for _, text in sentences]).codes
    right = sum(
        SAME.get(code, code) == SAME.get(label, label)
        for code, (label, _) in zip(found, sentences, strict=True)
    )
    return right / len(sentences), found.count("") / len(sentences)


def _whole(text: str) -> str:
    return text


def _first_20(text: str) -> str:
    return text[:20]


@pytest.mark.parametrize(
    ("name", "part", "min_right", "max_without"),
    [
        ("cld3", _whole, 0.86, 0.06),
        ("cld3", _first_20, 0.64, 0.16),
        ("py3langid", _whole, 0.91, 0.01),
        ("py3langid", _first_20, 0.76, 0.08),
    ],
)
def test_accuracy_on_sentences_in_75_languages(
    detectors: dict[str, LanguageDetector],
    shared_data: Path,
    name: str,
    part: Callable[[str], str],
    min_right: float,
    max_without: float,
) -> None:
    sentences = [(label, part(text)) for label, text in _sentences(shared_data)]
    assert len(sentences) == 1_500
    right, without = _shares(detectors[name], sentences)
    assert right >= min_right
    assert without <= max_without


def test_the_detector_of_the_docs_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for ELDC, which the project does not install."""
    guesses = {
        "shalom": SimpleNamespace(language="he", scores={"he": 0.9}),
        "x": SimpleNamespace(language="", scores={}),
    }
    eldc: Any = ModuleType("eldc")
    eldc.LANGUAGES, eldc.init, eldc.detect_details = ["en", "he"], list, guesses.__getitem__
    monkeypatch.setitem(sys.modules, "eldc", eldc)
    [code] = code_blocks("languages.md", "Your own detector", "python")
    factory: Any = run_python(code)["detector"]
    detector = factory(ParseSettings())
    assert detector.languages == {"en", "iw"}
    assert detector.detect(["shalom", "x"]) == Languages(["iw", ""], [0.9, 0.0])
