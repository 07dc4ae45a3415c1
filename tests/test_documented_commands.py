"""Command lines of the pages are read by the parsers of the commands themselves; nothing is run.

So an option that was renamed, a value that is not allowed and an argument too many are found with page and
line. What can be run is run by tests/integration/test_documented_runs.py; it also looks at arguments of
`python -m`. tests/airflow/test_documented_airflow.py reads those of `airflow`.
"""

import importlib.util
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer._click.exceptions import BadOptionUsage, MissingParameter
from typer.exceptions import Exit, TyperException
from typer.main import get_command

from laion_etl.cli import app
from tests.cluster_commands import WrongCommandError, check_helm, check_kubectl
from tests.documented_commands import (
    PAGES,
    ROOT,
    CommandLine,
    blocks,
    command_lines,
    commands_in_sentences,
    relative,
)

# It has the commands of its day.
CURRENT = [page for page in PAGES if page.name != "CHANGELOG.md"]
# Command lines that tests run, blocks of what they print, and command lines that are marked as not run.
RUN, PRINTED, MARKED = 83, 21, 77
RUN_BY_A_TEST = {"laion-etl"}
BY_THE_TEST = {"", "export", "unset"}  # they set variables
_TABLE = re.compile("[│┃]")
_TARGET = re.compile(r"^([a-z][a-z-]*):", re.MULTILINE)


@pytest.mark.parametrize("page", CURRENT, ids=relative)
def test_command_lines_are_ones_that_the_commands_accept(page: Path) -> None:
    found = [one for block in blocks(page) for one in block.commands]
    assert [problem for one in found for problem in problems(one)] == []


@pytest.mark.parametrize("page", CURRENT, ids=relative)
def test_commands_in_a_sentence_have_options_and_values_that_exist(page: Path) -> None:
    """They may leave out what the sentence is not about."""
    found = [one.filled_in() for one in commands_in_sentences(page)]
    assert [problem for one in found for problem in problems(one, complete=False)] == []


@pytest.mark.parametrize("page", CURRENT, ids=relative)
def test_a_mark_gives_a_reason_and_what_is_printed_follows_a_command(page: Path) -> None:
    ran = False
    for block in blocks(page):
        reason = block.reason_not_to_run
        assert reason is None or len(reason.split()) >= 3, block.place
        assert ran or not block.printed, f"{block.place}: no command above it is run"
        assert block.printed or block.marks or not _TABLE.search("\n".join(block.lines)), (
            f"{block.place}: printed?"
        )
        ran = ran or bool(block.commands and reason is None)


def test_every_command_line_is_run_or_says_why_not() -> None:
    """A number that changes here is seen by who changes it."""
    found = [(block, one) for page in CURRENT for block in blocks(page) for one in block.commands]
    run = [one for block, one in found if block.reason_not_to_run is None and one.program not in BY_THE_TEST]
    assert [f"{one.place}: {one.words}" for one in run if one.program not in RUN_BY_A_TEST] == []
    marked = [one for block, one in found if block.reason_not_to_run is not None]
    printed = [block for page in CURRENT for block in blocks(page) if block.printed]
    assert (len(run), len(printed), len(marked)) == (RUN, PRINTED, MARKED)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("laion-etl db forget --crawls C", "No such option: --crawls"),
        ("laion-etl db forget", "Missing option"),
        ("laion-etl crawl list C", "unexpected extra argument"),
        ("laion-etl stage parse --crawl C --partition x", "should be a valid integer"),
        ("laion-etl stage parse --crawl C --partition -1", "should be greater than"),
        ("laion-etl crawl list --json=1", "does not take a value"),
        ("laion-etl eat --crawl C", "No such command"),
        ("python -m benchmarks.nothing", "there is no module benchmarks.nothing"),
        ("make dem", "there is no target dem"),
        ("make soak HOURS=1", "there is no variable HOURS"),
        ("kubectl -n laion get pods --labels", "unrecognized arguments: --labels"),
        ("kubectl -n laion eat pods", "invalid choice: 'eat'"),
        ("kubectl get pods -l stage=parse", "use -n"),
        ("kubectl -n laion get pods -l crawls=CC-MAIN-2024-38", "pods have no label crawls"),
        ("kubectl -n laion get pods -l stage=parsing", "there is no stage parsing"),
        ("kubectl -n laion logs deploy/airflow-scheduler", "there is no deployment airflow-scheduler"),
        ("kubectl -n airflow port-forward svc/airflow-statsd 8080", "has no port 8080"),
        ("kubectl -n laion describe secret/laion-pars", "there is no secret laion-pars"),
        ("kubectl apply -f docker/kubernetes/rules.yaml", "there is no docker/kubernetes/rules.yaml"),
        ("kubectl apply -k docker", "there is no kustomization in docker"),
        ("helm upgrade airflow apache-airflow/airflow -n data", "expect the release airflow"),
        ("helm upgrade airflow apache-airflow/airflow -n airflow --version 1.0", "not for version 1.0"),
        ("helm template airflow apache-airflow/airflow -n airflow --set redis.on=1", "has no redis.on"),
        ("helm uninstall airflow -n airflow --purge", "unrecognized arguments: --purge"),
    ],
)
def test_a_wrong_command_line_is_found(line: str, problem: str) -> None:
    [command] = command_lines(line, "page.md:7")
    [found] = problems(command)
    assert found.startswith(f"page.md:7: {line}: ")
    assert problem in found


@pytest.mark.parametrize(
    ("part", "wrong", "problem"),
    [
        ('"envFrom"', '"envfrom"', "unknown field"),
        ('"laion-owner"', '"laion-admin"', "there is no secret laion-admin"),
        ('"laion-load"', '"laion-loader"', "there is no serviceaccount laion-loader"),
        ("--image=registry", "--image=register", "is not"),
        ('"db", "migrate"', '"db", "migrates"', "No such command"),
        ('"db", "migrate"', '"migrate"', "is an old name"),
    ],
)
def test_a_wrong_pod_is_found(part: str, wrong: str, problem: str) -> None:
    page = ROOT / "docs" / "kubernetes.md"
    [run] = [one for block in blocks(page) for one in block.commands if "run" in one.words]
    words = [word.replace(part, wrong) for word in run.words]
    [found] = problems(replace(run, words=tuple(words)))
    assert problem in found


def problems(command: CommandLine, *, complete: bool = True) -> list[str]:
    """What is wrong with a command line; `complete`: nothing that is needed may be left out."""
    arguments = [word.strip("[]") for word in command.words[1:] if word != "..."]
    try:
        if command.program == "laion-etl":
            _parse_ours(arguments, complete and "..." not in command.words)
        elif command.program == "make":
            _parse_make(arguments)
        elif command.program == "kubectl":
            inside = check_kubectl(arguments, complete)
            if inside[:1] == ("laion-etl",):
                _parse_ours(inside[1:], complete=True)
        elif command.program == "helm":
            check_helm(arguments, complete)
        if command.module:
            _find_module(command.module[0])
    except (_WrongError, WrongCommandError) as error:
        return [f"{command.place}: {' '.join(command.words)}: {error}"]
    return []


class _WrongError(Exception):
    """The parser of a command does not accept its arguments."""


@cache
def _ours() -> Any:
    """All commands; making them takes a tenth of a second, and the pages have hundreds of lines."""
    return get_command(app)


def _parse_ours(arguments: Sequence[str], complete: bool) -> None:
    rest, command, name, above = list(arguments), _ours(), "laion-etl", None
    if rest and (old := command._renamed(rest)):
        raise _WrongError(f"{' '.join(old)} is an old name")
    try:
        while True:
            if hasattr(command, "commands") and not rest and not complete:
                return  # a group
            above = command.make_context(name, rest, parent=above)
            if not hasattr(command, "commands"):
                return
            rest = [*above._protected_args, *above.args]
            name, command, rest = command.resolve_command(above, rest)
    except (BadOptionUsage, MissingParameter) as error:
        if complete:
            raise _WrongError(error.format_message()) from error
    except TyperException as error:
        raise _WrongError(error.format_message()) from error
    except Exit:  # --help
        return


def _find_module(name: str) -> None:
    if not importlib.util.find_spec(name):
        raise _WrongError(f"there is no module {name}")


def _parse_make(arguments: Sequence[str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for word in arguments:
        variable, assigned, _ = word.partition("=")
        if assigned and f"$({variable})" not in makefile and f"$(or $({variable})" not in makefile:
            raise _WrongError(f"there is no variable {variable}")
        if not assigned and word not in _TARGET.findall(makefile):
            raise _WrongError(f"there is no target {word}")
