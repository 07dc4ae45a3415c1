"""Check that code and documentation use the project's words; exit with 1 and list each place that does not.

    python scripts/check_words.py [FILE ...]      default: every tracked text file

The phrases and what to write instead are in banned_phrases.txt. A line that must keep a phrase (a quotation,
a field name of a foreign format) ends in a comment with `words: ok`.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PHRASES = Path(__file__).with_name("banned_phrases.txt")
# The history keeps its words; texts in data files and test inputs are data, and the phrases name themselves.
LEFT_OUT = (
    "CHANGELOG.md",
    "scripts/banned_phrases.txt",
    "benchmarks/words.txt",
    "tests/score/underage_probes.tsv",
    "tests/parse/",
    "tests/fuzz/",
    "laion_etl/core/data/",
    "laion_etl/score/prompts/",
    "laion_etl/minicrawl/lexicon.py",
    "laion_etl/minicrawl/pages.py",
)
ALLOWED = "words: ok"


def read_phrases(text: str) -> list[tuple[re.Pattern[str], str]]:
    """Pattern and advice of each line that is not a comment."""
    lines = [line.split("\t") for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(re.compile(pattern, re.IGNORECASE), advice) for pattern, advice in lines]


def findings(text: str, phrases: list[tuple[re.Pattern[str], str]]) -> list[tuple[int, str, str]]:
    """Line number, phrase and advice of everything found in a text."""
    return [
        (number, found[0], advice)
        for number, line in enumerate(text.splitlines(), 1)
        if ALLOWED not in line
        for pattern, advice in phrases
        if (found := pattern.search(line))
    ]


def tracked_files() -> list[str]:
    """Paths, relative to the root, of the files that are checked by default."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.splitlines() if not name.startswith(LEFT_OUT) and _is_text(ROOT / name)]


def _is_text(path: Path) -> bool:
    with path.open("rb") as file:
        return b"\0" not in file.read(8_192)  # as git decides


def main(names: list[str]) -> int:
    """The exit code: 1 when anything was found."""
    phrases = read_phrases(PHRASES.read_text())
    count = 0
    for name in names or tracked_files():
        for line, phrase, advice in findings((ROOT / name).read_text(), phrases):
            print(f"{name}:{line}: {phrase!r}: write {advice}")
            count += 1
    if count:
        print(f"{count} phrases found; see docs/glossary.md")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
