"""The groups of commands: their help, their old names, and that the whole project names current ones."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from laion_etl.cli import app
from laion_etl.cli.old_names import OLD_NAMES
from laion_etl.core.commands import stage_command
from tests.test_cli import laion_etl

ROOT = Path(__file__).parents[1]
TREE: Any = typer.main.get_command(app)
GROUPS = ("crawl", "dataset", "search", "model", "stage", "db")
ALONE = ("demo", "estimate", "run", "status", "diagnose", "dashboard")
# They have old names on purpose: the aliases, their tests, and what changed when.
HISTORY = {"laion_etl/cli/old_names.py", "tests/test_command_names.py", "CHANGELOG.md"}


def commands(group: Any = TREE, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command and group below a group, with the words that start it."""
    for name, command in group.commands.items():
        words = (*above, name)
        yield words, command
        if hasattr(command, "commands"):
            yield from commands(command, words)


KNOWN = dict(commands())


def test_help_shows_what_a_newcomer_needs_first(tmp_path: Path) -> None:
    done = laion_etl(tmp_path, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    shown = re.findall(r"^│ ([a-z][a-z-]*)  ", done.stdout, re.MULTILINE)
    assert shown[:4] == ["demo", "crawl", "estimate", "run"]
    assert sorted(shown) == sorted(GROUPS + ALONE)


@pytest.mark.parametrize("words", KNOWN, ids=" ".join)
def test_every_command_and_option_has_a_sentence(words: tuple[str, ...]) -> None:
    command = KNOWN[words]
    sentences = [command.help, *(one.help for one in command.params if one.name != "help")]
    for sentence in sentences:
        assert sentence
        assert sentence[0].isupper()
        assert sentence.endswith(".")


@pytest.mark.parametrize("old", OLD_NAMES, ids=" ".join)
def test_an_old_name_starts_the_same_command(
    old: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    new = OLD_NAMES[old]
    with typer.main.get_command(app).make_context("laion-etl", [*old, "--option", "x"]) as context:
        name, command, rest = TREE.resolve_command(context, [*old, "--option", "x"])
    assert (name, command, rest) == (" ".join(new), KNOWN[new], ["--option", "x"])
    assert capsys.readouterr().err == (
        f"warning: `laion-etl {' '.join(old)}` is now `laion-etl {name}`; version 0.3 removes the old name\n"
    )


@pytest.mark.parametrize(
    "arguments", [["search", "index"], ["search", "--help"], ["search"], ["stage", "load"]]
)
def test_a_current_name_is_never_taken_for_an_old_one(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with TREE.make_context("laion-etl", arguments.copy()) as context:
        name, command, rest = TREE.resolve_command(context, arguments.copy())
    assert (name, command, rest) == (arguments[0], KNOWN[arguments[0],], arguments[1:])
    assert capsys.readouterr().err == ""


def test_a_task_of_the_previous_version_sees_no_difference(tmp_path: Path) -> None:
    """The same stdout, result file and exit code, and no line that could pass for the cause of a failure."""
    new = laion_etl(tmp_path, "crawl", "list", "--json", RUN_ID="run/task")
    result = tmp_path / "result.json"
    old = laion_etl(tmp_path, "--result", str(result), "crawls", "--json", RUN_ID="run/task")
    assert (old.returncode, old.stdout, old.stderr) == (0, new.stdout, new.stderr)
    assert result.read_text() == old.stdout.splitlines()[-1]


def test_a_result_file_is_written_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAION_ETL_STORE", str(tmp_path / "store"))
    run = CliRunner().invoke
    for arguments in (["status"], ["crawls"], ["demo"], ["stage", "plan", "--crawl", "C"]):
        refused = run(app, ["--result", "result.json", *arguments])
        assert refused.exit_code == 2
        assert "--result: without --json there is no result to write" in " ".join(refused.stderr.split())
        assert not Path("result.json").exists()
    assert run(app, ["--result", "result.json", "status", "--help"]).exit_code == 0
    written = run(app, ["--result", "result.json", "dataset", "verify", "--json"])
    assert written.exit_code, "there is no dataset"
    written = run(app, ["--result", "result.json", "crawl", "list", "--json"])
    assert Path("result.json").read_text() == written.stdout.rstrip("\n")


def test_an_old_name_fails_with_the_same_exit_code(tmp_path: Path) -> None:
    old = laion_etl(tmp_path, "load", "--crawl", "C", "--partition", "0", STROE="x")
    new = laion_etl(tmp_path, "stage", "load", "--crawl", "C", "--partition", "0", STROE="x")
    assert old.returncode == new.returncode == 2
    assert old.stdout == new.stdout == ""
    assert old.stderr.splitlines()[1:] == new.stderr.splitlines()


def test_every_stage_that_airflow_starts_is_a_command() -> None:
    dags = [*(ROOT / "laion_etl" / "airflow").glob("*.py"), *(ROOT / "docs").rglob("*.md")]
    stages = {stage for path in dags for stage in re.findall(r'\bstage="([a-z]+)"', path.read_text())}
    assert {
        "crawls",
        "estimate",
        "discover",
        "parse",
        "load",
        "plan",
        "download",
        "score",
        "publish",
        "index",  # of docs/how-to/own-dags.md
    } <= stages
    assert not [stage for stage in stages if stage_command(stage) not in KNOWN]


def completions(line: str) -> tuple[list[str], set[str]]:
    """What bash offers for a line by the script of --show-completion, and what is imported for that."""
    program = shlex.quote(str(Path(sys.executable).with_name("laion-etl")))
    script = f"""
        eval "$({program} --show-completion bash 2>/dev/null)"
        completing=$(complete -p laion-etl | grep -o -- "-F [^ ]*" | cut -c4-)
        COMP_WORDS=({line}) COMP_CWORD={len(line.split()) - 1}
        $completing {program}
        echo "${{COMPREPLY[@]}}"
    """
    # Without the first Typer asks the process tree for the shell, and this one may run under any.
    more = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1", "PYTHONPROFILEIMPORTTIME": "1"}
    done = subprocess.run(
        ["bash", "--norc", "-c", script], env=os.environ | more, capture_output=True, text=True, check=True
    )
    return done.stdout.split(), {row.rpartition("|")[2].strip() for row in done.stderr.splitlines()}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("laion-etl da", ["dashboard", "dataset"]),
        ("laion-etl dataset ver", ["verify"]),
        ("laion-etl stage p", ["parse", "plan", "publish"]),
        ("laion-etl mem", []),
        ("laion-etl dataset diff --js", ["--json"]),
    ],
)
def test_bash_completes_commands_without_importing_what_they_need(line: str, expected: list[str]) -> None:
    offered, imported = completions(line)
    assert offered == expected
    assert "laion_etl.cli" in imported
    heavy = {"numpy", "pyarrow", "torch", "numba", "psycopg", "boto3", "rich", "trio", "laion_etl.settings"}
    assert not heavy & imported


def named_commands() -> Iterator[tuple[str, str, str]]:
    """File and first two words of every `laion-etl ...` in the project."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        if name in HISTORY or (ROOT / name).suffix in {".gz", ".png", ".jpg", ".safetensors"}:
            continue
        text = (ROOT / name).read_text(errors="replace")
        for first, second in re.findall(r"laion-etl[ \n]([a-z][a-z-]*)\b(?: ([a-z][a-z-]*)\b)?", text):
            yield name, first, second
        for first, second in re.findall(r'"-m", "laion_etl", "([a-z-]+)"(?:, "([a-z-]+)")?', text):
            yield name, first, second


def test_nothing_names_a_command_that_is_not_there() -> None:
    old_only = {old[0] for old in OLD_NAMES} - set(GROUPS)
    found = list(named_commands())
    wrong = [
        f"{name}: laion-etl {first} {second}".rstrip()
        for name, first, second in found
        if first in old_only or (first in GROUPS and second and (first, second) not in KNOWN)
    ]
    assert wrong == []
    assert len(found) > 100
