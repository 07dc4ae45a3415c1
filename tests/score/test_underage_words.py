"""Captions that may speak of minors are found in any script, form and inflection.

`underage_probes.tsv` has captions by language: whether they are to be suspect, and what the original's rule
makes of them, which looks for four lower-case substrings.
"""

import json
import unicodedata
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import pytest

from laion_etl.score.safety import PROMPTS, load_prompts
from laion_etl.score.underage_ages import compiled_ages
from laion_etl.score.underage_words import UnderageWords, folded

ORIGINAL = ("teen", "kid", "child", "baby")


class Probe(NamedTuple):
    language: str
    expected: str  # suspect or harmless
    original: str  # drops or passes
    caption: str


def _probes() -> list[Probe]:
    text = Path(__file__).with_name("underage_probes.tsv").read_text(encoding="utf-8")
    return [Probe(*line.split("\t")) for line in text.split("\n")[1:] if line]


PROBES = _probes()
SUSPECT = [probe for probe in PROBES if probe.expected == "suspect"]
HARMLESS = [probe for probe in PROBES if probe.expected == "harmless"]


@pytest.fixture(scope="module")
def words() -> UnderageWords:
    return UnderageWords()


def missed(words: UnderageWords, captions: list[str]) -> list[str]:
    return [caption for caption in captions if not words.found_in(caption)]


def test_the_table_is_as_large_as_it_claims() -> None:
    by_language: dict[str, int] = defaultdict(int)
    for probe in SUSPECT:
        by_language[probe.language] += 1
    assert sum(count >= 8 for count in by_language.values()) >= 15
    assert len(PROBES) >= 300


def test_the_table_says_what_the_original_does() -> None:
    assert [
        probe
        for probe in PROBES
        if any(part in probe.caption for part in ORIGINAL) != (probe.original == "drops")
    ] == []


@pytest.mark.parametrize("language", sorted({probe.language for probe in SUSPECT}))
def test_suspect_captions_are_found(words: UnderageWords, language: str) -> None:
    assert missed(words, [probe.caption for probe in SUSPECT if probe.language == language]) == []


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
def test_the_unicode_form_of_a_caption_does_not_matter(words: UnderageWords, form: str) -> None:
    assert missed(words, [unicodedata.normalize(form, probe.caption) for probe in SUSPECT]) == []


def test_case_invisible_characters_and_surroundings_do_not_matter(words: UnderageWords) -> None:
    captions = [probe.caption for probe in SUSPECT]
    assert missed(words, [caption.upper() for caption in captions]) == []
    assert missed(words, ["\u200d".join(caption) for caption in captions]) == []
    assert missed(words, [f"2020_{caption}-01.jpg" for caption in captions]) == []


def test_harmless_captions_are_not_suspect(words: UnderageWords) -> None:
    assert [probe.caption for probe in HARMLESS if words.found_in(probe.caption)] == []


def test_only_signs_are_dropped_by_the_original_and_not_suspect_here(words: UnderageWords) -> None:
    """The German for a sign, Schild, has "child" in it; "thischild" is no sign."""
    drops = [probe.caption for probe in PROBES if probe.original == "drops"]
    assert all("schild" in caption.lower() for caption in missed(words, drops))
    assert words.found_in("#thischild")


def test_words_of_a_prompt_file_come_on_top() -> None:
    words = UnderageWords(["Gizmo"])
    assert words.found_in("a gizmo")
    assert words.found_in("a child")
    assert not words.found_in("gizmos")
    assert words.identity != UnderageWords().identity


@pytest.mark.parametrize(
    ("word", "caption", "found"),
    [
        ("Grow up", "GROW_UP fast", True),
        ("grow-up", "a grow up day", True),
        ("grow up", "grow upwards", False),
        ("zx9", "club zx9.", True),
        ("zx9", "menuzx9", False),
        ("O'Gizmo", "an o'gizmo here", True),
        ("小机器", "可爱的小机器照片", True),
        ("หุ่น", "รูปหุ่นยนต์", True),
    ],
)
def test_own_words_are_found_whatever_they_consist_of(word: str, caption: str, found: bool) -> None:
    assert not UnderageWords().found_in(caption)
    assert UnderageWords([word]).found_in(caption) == found
    assert UnderageWords([word]).identity != UnderageWords().identity


def test_the_shipped_prompt_files_add_no_word_that_others_would_lack(words: UnderageWords) -> None:
    """A prompt file of one's own is as strict as the shipped ones."""
    shipped = load_prompts(PROMPTS / "clip.json").underage_words
    assert missed(words, sorted(shipped)) == []


def test_every_list_of_ages_is_part_of_the_identity() -> None:
    lists = json.loads((PROMPTS / "underage.json").read_text(encoding="utf-8"))["ages"]
    before, unnoticed = compiled_ages(lists, folded).identity, []
    for name in ("after", "before", "below", "numbers"):
        for language, words in lists[name].items():
            changed = lists | {name: lists[name] | {language: [*words, "zzz"]}}
            if compiled_ages(changed, folded).identity == before:
                unnoticed.append((name, language))
    for name in ("infants", "tens", "not_ages"):
        if compiled_ages(lists | {name: [*lists[name], "zzz"]}, folded).identity == before:
            unnoticed.append((name, ""))
    assert unnoticed == []


def test_folding_is_stable() -> None:
    for probe in PROBES:
        assert folded(folded(probe.caption)) == folded(probe.caption)
