"""Language detectors on labelled texts: right, wrong and without a language per length; speed and memory.

    python -m benchmarks.language [SENTENCES.tsv] [--detector NAME]...

SENTENCES.tsv has the columns language and text. NAME is what LAION_ETL_PARSE_LANGUAGE_DETECTOR takes. The
sentences are also cut to their first words, and Airflow's own translations serve as a second set of texts,
short ones that no detector was trained on as far as its documentation says.
"""

import argparse
import csv
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from laion_etl.parse.language import LanguageDetector, language_detector
from laion_etl.settings import ParseSettings

SENTENCES = Path(__file__).parents[2] / "shared" / "data" / "lang" / "sentences.tsv"

# Codes for one language count as equal, also in the labels: the old and new codes of Hebrew, Filipino and
# Tagalog, and the two Norwegian codes, which CLD3 merges. Bosnian, Croatian and Serbian stay three.
SAME = {"iw": "he", "fil": "tl", "no": "nb", "nn": "nb"}

_BANDS = (20, 40, 80)
_RUNS = 3
_MEMORY = """
import sys, numpy, psutil
from laion_etl.parse.language import language_detector
from laion_etl.settings import ParseSettings
before = psutil.Process().memory_info().rss
detector = language_detector(ParseSettings(language_detector=sys.argv[1]))
detector.detect([line.rstrip() for line in open(sys.argv[2], encoding="utf-8")])
print(psutil.Process().memory_info().rss - before)
"""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text and the code of its language."""

    language: str
    text: str


@dataclass(frozen=True, slots=True)
class Score:
    """Counts of texts with the right, a wrong and no language."""

    right: int
    wrong: int
    none: int

    def shares(self) -> list[str]:
        """Percent right, wrong and without a language, and right of those with one."""
        total = self.right + self.wrong + self.none
        counts = (self.right / total, self.wrong / total, self.none / total)
        precision = self.right / max(1, self.right + self.wrong)
        return [f"{100 * share:.1f}" for share in (*counts, precision)]


def sentences(path: Path) -> list[Labelled]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [Labelled(row["language"], row["text"]) for row in rows]


def interface_texts() -> list[Labelled]:
    """Airflow's user interface in 20 languages: texts of 5 characters and more, unlike the English ones."""
    spec = find_spec("airflow")
    if spec is None or spec.origin is None:
        return []
    folder = Path(spec.origin).parent / "ui" / "dist" / "i18n" / "locales"
    texts = {
        language.name: {
            text
            for file in language.glob("*.json")
            for text in _strings(json.loads(file.read_text(encoding="utf-8")))
            if len(text) >= 5 and "{{" not in text
        }
        for language in folder.glob("*")
    }
    english = texts.get("en", set())
    return [
        Labelled(name.partition("-")[0], text)
        for name in sorted(texts)
        for text in sorted(texts[name] if name == "en" else texts[name] - english)
    ]


def _strings(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for child in node.values():
            yield from _strings(child)


def first_words(text: str, chars: int) -> str:
    """At most that many characters from the start, cut between words if possible."""
    if len(text) <= chars:
        return text
    words = text[: chars + 1].rpartition(" ")[0]
    return words or text[:chars]


def score(detector: LanguageDetector, texts: Sequence[Labelled]) -> Score:
    found = detector.detect([item.text for item in texts]).codes
    none = found.count("")
    right = sum(_same(code, item.language) for code, item in zip(found, texts, strict=True))
    return Score(right, len(texts) - right - none, none)


def _same(code: str, label: str) -> bool:
    return SAME.get(code, code) == SAME.get(label, label)


def by_length(texts: Sequence[Labelled]) -> dict[str, list[Labelled]]:
    """The texts in bands of their length in characters, and all of them."""
    bands: dict[str, list[Labelled]] = {}
    low = 0
    for high in (*_BANDS, sys.maxsize):
        name = f"{low + 1} to {high}" if high < sys.maxsize else f"over {low}"
        bands[name] = [item for item in texts if low < len(item.text) <= high]
        low = high
    return {name: band for name, band in bands.items() if band} | {"all": list(texts)}


def worst_languages(detector: LanguageDetector, texts: Sequence[Labelled], limit: int = 12) -> str:
    """The languages with the fewest right answers: percent right, and the wrong answers."""
    counts: Counter[str] = Counter(item.language for item in texts)
    taken: dict[str, Counter[str]] = {language: Counter() for language in counts}
    found = detector.detect([item.text for item in texts]).codes
    for code, item in zip(found, texts, strict=True):
        if not _same(code, item.language):
            taken[item.language][code or "none"] += 1
    right = {language: 100 - 100 * taken[language].total() / counts[language] for language in counts}
    return ", ".join(
        f"{language} {right[language]:.0f} ({' '.join(dict(taken[language].most_common(2)))})"
        for language in sorted(counts, key=right.__getitem__)[:limit]
    )


def macro_percent(detector: LanguageDetector, texts: Sequence[Labelled]) -> float:
    """Mean over languages of the percent right."""
    languages = sorted({item.language for item in texts})
    shares = []
    for language in languages:
        own = [item for item in texts if item.language == language]
        shares.append(score(detector, own).right / len(own))
    return 100 * sum(shares) / len(shares)


def texts_per_cpu_s(detector: LanguageDetector, texts: Sequence[str]) -> float:
    """Best of three runs, CPU seconds of all threads."""
    best = float("inf")
    for _ in range(_RUNS):
        start = time.process_time()
        detector.detect(texts)
        best = min(best, time.process_time() - start)
    return len(texts) / best


def added_megabytes(name: str, path: Path) -> float:
    """Memory growth of a process with numpy that creates the detector and runs it on the sentences."""
    command = [sys.executable, "-c", _MEMORY, name, str(path)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) / 1e6


def accuracy_table(
    title: str, detectors: dict[str, LanguageDetector], sets: dict[str, list[Labelled]]
) -> Table:
    table = Table("characters", "texts", "detector", "right %", "wrong %", "none %", "right of decided %")
    table.title = title
    for name, texts in sets.items():
        for detector_name, detector in detectors.items():
            table.add_row(name, str(len(texts)), detector_name, *score(detector, texts).shares())
    return table


def english_table(detectors: dict[str, LanguageDetector], sets: dict[str, list[Labelled]]) -> Table:
    """English separately: it is its own subset, and the hardest language to detect in a few words."""
    table = Table("texts", "of them English", "detector", "found %", "none %", "English where it says so %")
    table.title = "English"
    for name, texts in sets.items():
        labels = [item.language == "en" for item in texts]
        for detector_name, detector in detectors.items():
            codes = detector.detect([item.text for item in texts]).codes
            own = [code for code, english in zip(codes, labels, strict=True) if english]
            decided = [english for code, english in zip(codes, labels, strict=True) if code == "en"]
            shares = (
                own.count("en") / len(own),
                own.count("") / len(own),
                sum(decided) / max(1, len(decided)),
            )
            table.add_row(name, str(len(own)), detector_name, *(f"{100 * share:.1f}" for share in shares))
    return table


def cost_table(detectors: dict[str, LanguageDetector], texts: Sequence[Labelled], path: Path) -> Table:
    table = Table("detector", "mean over languages, right %", "texts / cpu s", "first 40", "added MB")
    table.title = "Sentences: languages, speed and memory"
    whole = [item.text for item in texts]
    short = [first_words(text, 40) for text in whole]
    for name, detector in detectors.items():
        speeds = (texts_per_cpu_s(detector, whole), texts_per_cpu_s(detector, short))
        table.add_row(
            name,
            f"{macro_percent(detector, texts):.1f}",
            *(f"{speed:,.0f}" for speed in speeds),
            f"{added_megabytes(name, path):.0f}",
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sentences", nargs="?", type=Path, default=SENTENCES)
    parser.add_argument("--detector", action="append", dest="detectors")
    arguments = parser.parse_args()
    names = arguments.detectors or ["cld3", "py3langid"]
    detectors = {name: language_detector(ParseSettings(language_detector=name)) for name in names}
    texts = sentences(arguments.sentences)
    cut = {
        f"first {chars}": [Labelled(item.language, first_words(item.text, chars)) for item in texts]
        for chars in (10, 20, 40)
    }
    console = Console(width=110)
    console.print(accuracy_table("Sentences by length", detectors, by_length(texts)))
    console.print(accuracy_table("Sentences cut to their first words", detectors, cut))
    if interface := interface_texts():
        console.print(accuracy_table("Texts of a user interface", detectors, by_length(interface)))
        console.print(english_table(detectors, by_length(interface)))
    console.print(cost_table(detectors, texts, arguments.sentences))
    for name, detector in detectors.items():
        console.print(f"{name} is worst at (percent right, taken for):", worst_languages(detector, texts))
        console.print(f"{name}, first 20 characters:", worst_languages(detector, cut["first 20"]))


if __name__ == "__main__":
    main()
