"""Command lines of the pages are read by the parsers of the commands themselves; nothing is run.

So an option that was renamed, a value that is not allowed and an argument too many are found with page and line. Those
that a test runs are in tests/integration/test_documented_runs.py.
"""

import argparse
import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import pytest
from typer._click.exceptions import MissingParameter
from typer.exceptions import Exit, TyperException
from typer.main import get_command

from laion_etl.cli import app
from tests.documented_commands import PAGES, ROOT, Block, CommandLine, blocks, command_lines, relative

# It has the commands of its day.
CURRENT = [page for page in PAGES if page.name != "CHANGELOG.md"]
_CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_TARGET = re.compile(r"^([a-z][a-z-]*):", re.MULTILINE)
# What stands in prose for a number or a value that the reader has.
_PLACEHOLDER = re.compile(r"[A-Z]+|<.+>|\.\.\.")
# A shell function of docs/kubernetes.md.
_FUNCTIONS = {"manifests": ("python", "-m", "laion_etl.airflow.fleet_manifests")}


class _Parsed(Exception):
    """The arguments were read."""


@pytest.mark.parametrize("page", CURRENT, ids=relative)
def test_command_lines_are_ones_that_the_commands_accept(page: Path) -> None:
    found = [one for block in blocks(page) for one in block.commands]
    assert [problem for one in found for problem in problems(one)] == []


@pytest.mark.parametrize("page", CURRENT, ids=relative)
def test_commands_in_a_sentence_have_options_and_values_that_exist(page: Path) -> None:
    """They may leave out what the sentence is not about."""
    found = [one for block in commands_in_sentences(page) for one in block]
    assert [problem for one in found for problem in problems(one, complete=False)] == []


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("laion-etl db forget --crawls C", "No such option: --crawls"),
        ("laion-etl db forget", "Missing option"),
        ("laion-etl crawl list C", "unexpected extra argument"),
        ("laion-etl stage parse --crawl C --partition x", "not a valid int"),
        ("laion-etl stage parse --crawl C --partition -1", "not in the range"),
        ("laion-etl stage eat --crawl C", "No such command"),
        ("python -m benchmarks.crawl_size --shares", "unrecognized arguments"),
        ("python -m laion_etl.airflow.fleet_manifests C --consumer publish", "invalid choice"),
        ("python -m benchmarks.nothing", "there is no module benchmarks.nothing"),
        ("make dem", "there is no target dem"),
        ("make soak HOURS=1", "there is no variable HOURS"),
    ],
)
def test_a_wrong_command_line_is_found(line: str, problem: str) -> None:
    [command] = command_lines(line, "page.md:7")
    [found] = problems(command)
    assert found.startswith(f"page.md:7: {line}: ")
    assert problem in found


def commands_in_sentences(page: Path) -> Iterator[list[CommandLine]]:
    text = page.read_text()
    for block in blocks(page):
        text = text.replace("\n".join(block.lines), "")
    for code in _CODE.finditer(text):
        line = text.count("\n", 0, code.start()) + 1
        yield command_lines(" ".join(code[1].split()), f"{relative(page)}:{line}")


def problems(command: CommandLine, *, complete: bool = True) -> list[str]:
    """What is wrong with a command line; `complete`: nothing that is needed may be left out."""
    words = (*_FUNCTIONS.get(command.program, (command.program,)), *command.words[1:])
    if "--" in words and "python" in words:  # kubectl exec ... -- python -m ...
        words = words[words.index("python") :]
    arguments = [word.strip("[]") for word in words[1:] if word != "..."]
    complete = complete and "..." not in words
    try:
        if words[0] == "laion-etl":
            _parse_ours(arguments, complete)
        elif words[0] == "make":
            _parse_make(arguments)
        elif words[:2] == ("python", "-m"):
            _parse_module(arguments[1:], complete)
    except _WrongError as error:
        return [f"{command.place}: {' '.join(command.words)}: {error}"]
    return []


class _WrongError(Exception):
    """The parser of a command does not accept its arguments."""


@cache
def _ours() -> Any:
    """All commands; making them takes a tenth of a second, and the pages have hundreds of lines."""
    return get_command(app)


def _parse_ours(arguments: Sequence[str], complete: bool) -> None:
    rest = list(arguments) if complete else [_filled_in(word) for word in arguments]
    command, name, above = _ours(), "laion-etl", None
    try:
        while True:
            if hasattr(command, "commands") and not rest and not complete:
                return  # a group
            above = command.make_context(name, rest, parent=above)
            if not hasattr(command, "commands"):
                return
            rest = [*above._protected_args, *above.args]
            name, command, rest = command.resolve_command(above, rest)
    except MissingParameter as error:
        if complete:
            raise _WrongError(error.format_message()) from error
    except TyperException as error:
        raise _WrongError(error.format_message()) from error
    except Exit:  # --help
        return


def _filled_in(word: str) -> str:
    return "1" if _PLACEHOLDER.fullmatch(word) else word


def _parse_make(arguments: Sequence[str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for word in arguments:
        variable, assigned, _ = word.partition("=")
        if assigned and f"$({variable})" not in makefile and f"$(or $({variable})" not in makefile:
            raise _WrongError(f"there is no variable {variable}")
        if not assigned and word not in _TARGET.findall(makefile):
            raise _WrongError(f"there is no target {word}")


def _parse_module(arguments: Sequence[str], complete: bool) -> None:
    name, *rest = arguments
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise _WrongError(f"there is no module {name}")
    if (rest or complete) and "argparse" in Path(found.origin).read_text():
        _parse_by_argparse(name, [_filled_in(word) for word in rest])


def _parse_by_argparse(name: str, arguments: Sequence[str]) -> None:
    parse = argparse.ArgumentParser.parse_args

    def parse_only(parser: argparse.ArgumentParser, *given: Any) -> NoReturn:
        parse(parser, *given)
        raise _Parsed

    def fail(_: argparse.ArgumentParser, message: str) -> NoReturn:
        raise _WrongError(message)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
        patch.setattr(argparse.ArgumentParser, "error", fail)
        patch.setattr(sys, "argv", [name, *arguments])
        with pytest.raises(_Parsed):
            importlib.import_module(name).main()
