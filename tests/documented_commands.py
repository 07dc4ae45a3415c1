"""The command lines of the pages: where they stand, what a page says about them, and what it shows of their output.

A block of lines is indented by four spaces more than the text around it, or stands between fences. Comments above it, which
no reader sees, say what a test cannot know:

    <!-- not run: needs a cluster -->    why a test does not run these commands, or whose output this is instead
    <!-- exit code 1 -->                 what the commands end with, where it is not 0
    <!-- printed -->                     the block is a part of what the commands above it print
"""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        ROOT / "benchmarks" / "RESULTS.md",
        *(ROOT / "examples").glob("*.md"),
    ]
)
# What the lines of a block of commands begin with.
PROGRAMS = frozenset(
    "airflow autofaiss aws cp curl docker docker/try.sh export helm img2dataset kubectl laion-etl ls make "
    "manifests manifests() pip python unset".split()
)
_ASSIGNMENT = re.compile(r"([A-Z][A-Z0-9_]*)=(.*)", re.DOTALL)
_MARK = re.compile(r" *<!-- (not run:.*|printed|exit code \d+) -->")
_FENCE = re.compile(r"( *)```(\w*)")
_ITEM = re.compile(r"(?:\d+\.|[-*]) ")
_OPERATORS = "|&;()<>"


@dataclass(frozen=True, slots=True)
class CommandLine:
    """One command, without its comment, of a line that may have several."""

    place: str
    environment: Mapping[str, str]
    words: tuple[str, ...]

    @property
    def program(self) -> str:
        """The first word; empty where variables are set and nothing is run."""
        return self.words[0] if self.words else ""


@dataclass(frozen=True)
class Block:
    """A block of a page, without its indentation."""

    page: str
    first_line: int
    language: str
    lines: tuple[str, ...]
    marks: tuple[str, ...]

    @property
    def place(self) -> str:
        return f"{self.page}:{self.first_line}"

    @property
    def reason_not_to_run(self) -> str | None:
        """None where there is no mark, else what it says, which may be nothing."""
        marks = [mark for mark in self.marks if mark.startswith("not run:")]
        return marks[0].removeprefix("not run:").strip() if marks else None

    @property
    def printed(self) -> bool:
        return "printed" in self.marks

    @property
    def exit_code(self) -> int:
        codes = [int(mark.removeprefix("exit code ")) for mark in self.marks if mark.startswith("exit code ")]
        return codes[0] if codes else 0

    @cached_property
    def commands(self) -> tuple[CommandLine, ...]:
        """The commands; none for a block of something else."""
        if self.printed or self.language not in ("", "sh"):
            return ()
        found = tuple(self._command_lines())
        return found if found and found[0].program in PROGRAMS else ()

    def _command_lines(self) -> Iterator[CommandLine]:
        joined, number = "", self.first_line
        for offset, line in enumerate(self.lines):
            joined += line.removesuffix("\\") + "\n"
            if not line.endswith("\\") and (found := command_lines(joined, f"{self.page}:{number}")):
                yield from found
                joined, number = "", self.first_line + offset + 1


def command_lines(line: str, place: str) -> list[CommandLine]:
    """The commands of a line; none where a quotation goes on behind it."""
    lexer = shlex.shlex(re.sub(r"(?m)(?:^|\s)#\s.*", "", line), posix=True, punctuation_chars=_OPERATORS)
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        tokens = [*lexer, ";"]
    except ValueError:
        return []
    ends = [-1, *(at for at, token in enumerate(tokens) if token and set(token) <= set(_OPERATORS))]
    parts = (tokens[before + 1 : end] for before, end in pairwise(ends))
    return [_command_line(words, place) for words in parts if words]


def _command_line(words: Sequence[str], place: str) -> CommandLine:
    environment: dict[str, str] = {}
    rest = list(words)
    while rest and (found := _ASSIGNMENT.fullmatch(rest[0])):
        environment[found[1]] = found[2]
        rest.pop(0)
    if rest:
        rest[0] = rest[0].removeprefix(".venv/bin/")
    return CommandLine(place, environment, tuple(rest))


def relative(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in its order."""
    return list(_Reader(relative(page), page.read_text().splitlines()).blocks())


class _Reader:
    """Reads a page line by line."""

    def __init__(self, page: str, lines: Sequence[str]) -> None:
        self._page = page
        self._lines = lines
        self._at = 0
        self._in_item = False
        self._marks: list[str] = []

    def blocks(self) -> Iterator[Block]:
        blank = True
        while self._at < len(self._lines):
            line = self._lines[self._at]
            if found := _MARK.fullmatch(line):
                self._marks.append(found[1])
            elif fence := _FENCE.match(line):
                yield self._fenced(len(fence[1]), fence[2])
                continue
            elif blank and line.startswith(" " * self._indent):
                yield self._indented()
                continue
            elif line.strip():
                self._marks.clear()
                self._in_item = bool(_ITEM.match(line)) or self._in_item and (not blank or line[0] == " ")
            blank = not line.strip() or found is not None
            self._at += 1

    @property
    def _indent(self) -> int:
        return 8 if self._in_item else 4

    def _fenced(self, indent: int, language: str) -> Block:
        first = self._at + 1
        while self._lines[self._at + 1].strip() != "```":
            self._at += 1
        lines = [line[indent:] for line in self._lines[first : self._at + 1]]
        self._at += 2
        return self._block(first, language, lines)

    def _indented(self) -> Block:
        first, indent = self._at, " " * self._indent
        while self._at < len(self._lines) and (
            self._lines[self._at].startswith(indent) or not self._lines[self._at]
        ):
            self._at += 1
        lines = [line.removeprefix(indent) for line in self._lines[first : self._at]]
        while not lines[-1]:
            lines.pop()
        return self._block(first, "", lines)

    def _block(self, first: int, language: str, lines: Sequence[str]) -> Block:
        marks, self._marks = tuple(self._marks), []
        return Block(self._page, first + 1, language, tuple(lines), marks)
