"""The command lines of the pages, and what the pages say about them and show of their output.

A block of lines is indented by four spaces more than the text around it, or stands between fences. Comments
above it, which no reader sees, say what a test cannot know:

    <!-- not run: needs a cluster -->    why no test runs these commands, or prints these lines
    <!-- exit code 1 -->                 what the commands end with, where it is not 0
    <!-- printed -->                     the block is a part of what the commands above it print
"""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
PROGRAMS = {
    *(
        "airflow",
        "autofaiss",
        "aws",
        "cp",
        "curl",
        "docker",
        "docker/try.sh",
        "export",
        "helm",
        "img2dataset",
    ),
    *("kubectl", "laion-etl", "ls", "make", "manifests", "manifests()", "pip", "python", "unset"),
}
# A shell function of docs/kubernetes.md.
_FUNCTIONS = {"manifests": ("python", "-m", "laion_etl.airflow.fleet_manifests")}
_CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
# What stands for a value that the reader has.
_PLACEHOLDER = re.compile(r"[A-Z]+|<.+>|\.\.\.")
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

    @property
    def module(self) -> tuple[str, ...]:
        """The module that `python -m` runs, here or in a container, and its arguments; else empty."""
        words = (*_FUNCTIONS.get(self.program, (self.program,)), *self.words[1:])
        words = words[words.index("--") + 1 :] if "--" in words else words
        return words[2:] if words[:2] == ("python", "-m") else ()

    def filled_in(self) -> "CommandLine":
        """With a value that is a number and a name in place of what stands for one."""
        words = self.words[:-1] if self.words[-1:] == ("...",) else self.words
        return replace(self, words=tuple("1" if _PLACEHOLDER.fullmatch(word) else word for word in words))


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
    bodies = (words[1:] if words[:1] == ["{"] else words for words in parts)  # of a shell function
    return [_command_line(words, place) for words in bodies if words and words != ["}"]]


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


def commands_in_sentences(page: Path) -> list[CommandLine]:
    """What a page has between backticks, its blocks aside, as if it were a command line."""
    lines = page.read_text().splitlines()
    for block in blocks(page):
        first = block.first_line - 1
        lines[first : first + len(block.lines)] = [""] * len(block.lines)
    text = "\n".join(lines)
    found = []
    for code in _CODE.finditer(text):
        line = text.count("\n", 0, code.start()) + 1
        found += command_lines(" ".join(code[1].split()), f"{relative(page)}:{line}")
    return found


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
                goes_on = self._in_item and (not blank or line[0] == " ")
                self._in_item = bool(_ITEM.match(line)) or goes_on
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
