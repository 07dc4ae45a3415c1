"""The compiled loops of CLD3 give the answers of its own library, and leave to it what they do not decide."""

import csv
import random
from pathlib import Path

import gcld3
import numpy as np
import pytest

from laion_etl.parse.cld3_model import Cld3Network
from laion_etl.parse.kernels.languages import NOT_DECIDED, TOO_SHORT
from laion_etl.parse.kernels.words import LAST_POINT
from laion_etl.parse.language import Cld3
from laion_etl.settings import ParseSettings

MIN_BYTES, MAX_BYTES = 5, 2_000
CLOSE = 1e-5  # sums of floats in another order

# Runs of letters in many scripts, one letter in another script, marks, emoji, digits, entities and tags.
PIECES = (
    "the red house", "Дом на холме", "夏の緑の野原", "여름 들판", "بيت أحمر", "בית אדום", "ΕΛΛΗΝΙΚΑ",
    "บ้านสีแดง", "लाल घर", "İstanbul", "Straße", "naïve", "e\u0301te\u0301", "x", "Я", "é", "12:30", "🎉🏳️",
    "&amp;", "<b>", "&c", "a1b2c3", "ＡＢＣ", "№5", "ǅ", "K", "𝐁𝐨𝐥𝐝", "…", "'s", "-", "ᄒ", "ー", "ﬁn", "Ⱥ",
)  # fmt: skip


@pytest.fixture(scope="module")
def network() -> Cld3Network:
    return Cld3Network(MIN_BYTES, MAX_BYTES)


@pytest.fixture(scope="module")
def library() -> gcld3.NNetLanguageIdentifier:
    return gcld3.NNetLanguageIdentifier(MIN_BYTES, MAX_BYTES)


def differences(
    texts: list[str], network: Cld3Network, library: gcld3.NNetLanguageIdentifier
) -> list[tuple[str, str, str]]:
    """Texts for which the loops and the library differ."""
    found = network.find(texts)
    others = []
    for row, text in enumerate(texts):
        number = int(found.languages[row])
        if number == NOT_DECIDED:
            continue
        name = "und" if number == TOO_SHORT else network.names[number]
        right = library.FindLanguage(text)
        if name != right.language or abs(right.probability - float(found.probabilities[row])) > CLOSE:
            others.append((text, right.language, name))
    return others


def mixed_texts(count: int, seed: int) -> list[str]:
    chance = random.Random(seed)
    return [
        "".join(
            chance.choice(PIECES) + chance.choice(("", " ", " ", ", "))
            for _ in range(chance.choice((1, 2, 3, 5, 9, 14)))
        )
        for _ in range(count)
    ]


def test_mixed_texts_have_the_answers_of_the_library(
    network: Cld3Network, library: gcld3.NNetLanguageIdentifier
) -> None:
    assert differences(mixed_texts(6_000, 1), network, library) == []


def test_words_of_random_characters_have_the_answers_of_the_library(
    network: Cld3Network, library: gcld3.NNetLanguageIdentifier
) -> None:
    chance = random.Random(2)
    blocks = [chance.randrange(0x21, 0xD000) for _ in range(400)]
    texts = [
        "".join(chr(point + chance.randrange(24)) if chance.random() < 0.9 else " " for _ in range(12))
        for point in blocks * 5
    ]
    assert differences(texts, network, library) == []


@pytest.mark.parametrize("probe", ["{0}{0}{0}{0}{0}", "abcde{0}xyz"])
def test_characters_have_the_answers_of_the_library(
    probe: str, network: Cld3Network, library: gcld3.NNetLanguageIdentifier
) -> None:
    points = [point for point in range(1, LAST_POINT, 13) if not 0xD800 <= point < 0xE000]
    assert differences([probe.format(chr(point)) for point in points], network, library) == []


def test_sentences_have_the_answers_of_the_library_and_few_are_left_to_it(
    shared_data: Path, network: Cld3Network, library: gcld3.NNetLanguageIdentifier
) -> None:
    with (shared_data / "lang" / "sentences.tsv").open(encoding="utf-8", newline="") as lines:
        sentences = [row["text"] for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)]
    texts = [*sentences, *(text[:40] for text in sentences), *(text.upper() for text in sentences)]
    assert differences(texts, network, library) == []
    assert np.mean(network.find(texts).languages == NOT_DECIDED) < 0.05


@pytest.mark.parametrize(
    "text",
    [
        "Istanbul'da İyi bir gün",  # a capital with a lower case of two characters
        "A character of the third plane: 𠀀",
        "na " * 60,  # a part of it is left out
        "a b c d e f g h i j k l m n o p q r s t u v w x y z",  # more than a quarter is spaces
        "A red circle on a wide green field. " * 70,  # pieces of it are read
        "a control \x01 character in the text",
    ],
)
def test_what_is_not_decided_is_left_to_the_library(
    text: str, network: Cld3Network, library: gcld3.NNetLanguageIdentifier
) -> None:
    assert network.find([text]).languages.tolist() == [NOT_DECIDED]
    right = library.FindLanguage(text)
    found = Cld3(ParseSettings()).detect(["The house on the hill is red", text, "Das Haus brennt"])
    assert found.codes[1] == (right.language.partition("-")[0] if right.is_reliable else "")
    assert found.probabilities[1] == pytest.approx(right.probability, abs=1e-7)


def test_croatian_and_bosnian_count_with_less(library: gcld3.NNetLanguageIdentifier) -> None:
    texts = ["vijesti more", "kuća dobar", "voda noć", "selo put", "lijepa kuća", "gradska kuća", "novi put"]
    found = Cld3(ParseSettings()).detect(texts)
    right = [library.FindLanguage(text) for text in texts]
    assert any(one.language in ("hr", "bs") and 0.5 <= one.probability < 0.7 for one in right)
    assert found.codes == [one.language.partition("-")[0] if one.is_reliable else "" for one in right]


def test_a_text_of_the_most_bytes_and_one_more(
    network: Cld3Network, library: gcld3.NNetLanguageIdentifier
) -> None:
    chance = random.Random(3)
    words = ["".join(chance.choices("abcdefghijklmnoprstuv", k=chance.randrange(3, 9))) for _ in range(400)]
    for size in (MAX_BYTES - 3, MAX_BYTES - 2, MAX_BYTES - 1, MAX_BYTES):
        text = " ".join(words)[:size].rstrip()
        assert differences([text], network, library) == []
    assert network.find([" ".join(words)[: MAX_BYTES + 9]]).languages.tolist() == [NOT_DECIDED]


def test_lone_surrogates_are_for_the_caller(network: Cld3Network) -> None:
    with pytest.raises(UnicodeEncodeError):
        network.find(["fine", "\ud800"])


def test_no_texts(network: Cld3Network) -> None:
    assert network.find([]).languages.size == 0
    assert network.find(["", ""]).languages.tolist() == [TOO_SHORT, TOO_SHORT]
