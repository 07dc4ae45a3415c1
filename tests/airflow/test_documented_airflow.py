"""The `airflow` lines of the pages and of the compose file are read by Airflow's own parser; nothing is run.

One fork of the process that has imported Airflow reads them all. The commands for users come with the auth
manager of the images, which is not installed here: a parser made after its reference reads theirs,
https://airflow.apache.org/docs/apache-airflow-providers-fab/stable/cli-ref.html.
"""

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from laion_etl.crawl import released
from tests.airflow.conftest import Airflow
from tests.cluster_commands import check_kubectl
from tests.documented_commands import (
    PAGES,
    ROOT,
    CommandLine,
    blocks,
    command_lines,
    commands_in_sentences,
)

pytestmark = pytest.mark.airflow

COMPOSE = ROOT / "docker" / "compose.yaml"
PARSE = Path(__file__).with_name("parse_commands.py")
INCOMPLETE = "the following arguments are required"
WRONG = (
    ("plugin",),
    ("pools", "imports", "docker/pools.json"),
    ("pools", "list", "--slots"),
    ("backfill", "create", "--dag-id", "new_crawls", "--from", "2024-09-01"),
)
_CRAWL_DAG = re.compile(r"crawl_(CC-MAIN-\d{4}-\d\d)")
# Files of the image, and what they are copies of.
_IN_IMAGE = {"/opt/airflow/pools.json": "docker/pools.json"}


def airflow_arguments(command: CommandLine) -> Sequence[str]:
    """Of `airflow`, here or in a pod; empty for another command."""
    words = command.words
    if command.program == "kubectl":
        words = check_kubectl(words[1:], complete=False)
    return words[1:] if words[:1] == ("airflow",) else ()


def documented() -> Iterator[CommandLine]:
    """Those of blocks, which are complete."""
    for page in PAGES:
        if page.name != "CHANGELOG.md":
            yield from (one for block in blocks(page) for one in block.commands)
    script = yaml.safe_load(COMPOSE.read_text())["services"]["init"]["command"][-1]
    for line in script.replace("\\\n", " ").splitlines():
        yield from command_lines(line, "docker/compose.yaml")


def mentioned() -> Iterator[CommandLine]:
    """Those of sentences, which may leave out what is needed."""
    for page in PAGES:
        if page.name != "CHANGELOG.md":
            yield from (one.filled_in() for one in commands_in_sentences(page) if len(one.words) > 1)


def users_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(exit_on_error=False)
    create = parser.add_subparsers(required=True).add_parser("create", exit_on_error=False)
    for name in ("username", "firstname", "lastname", "email", "role"):
        create.add_argument(f"-{name[0]}", f"--{name}", required=True)
    create.add_argument("-p", "--password")
    create.add_argument("--use-random-password", action="store_true")
    return parser


def test_airflow_accepts_the_lines_of_the_pages_and_not_what_does_not_exist(airflow: Airflow) -> None:
    lines = [(one, airflow_arguments(one), True) for one in documented()]
    lines += [(one, airflow_arguments(one), False) for one in mentioned()]
    lines = [(one, words, complete) for one, words, complete in lines if words and words[0] != "users"]
    assert len(lines) > 9
    errors = airflow.python_file(PARSE, json.dumps([*(words for _, words, _ in lines), *WRONG]))
    assert all(errors[len(lines) :])
    assert [
        f"{one.place}: {' '.join(words)}: {error}"
        for (one, words, complete), error in zip(lines, errors, strict=False)
        if error and (complete or INCOMPLETE not in error)
    ] == []


def test_the_auth_managers_parser_accepts_the_lines_about_users() -> None:
    lines = [words[1:] for one in documented() if (words := airflow_arguments(one))[:1] == ("users",)]
    assert [users_parser().parse_args(words).role for words in lines] == ["Admin", "Admin"]


def test_dags_dates_and_files_of_the_lines_are_those_of_the_project() -> None:
    for words in map(airflow_arguments, documented()):
        given = dict(pairwise(words))
        dag = given.get("--dag-id", "new_crawls")
        if found := _CRAWL_DAG.fullmatch(dag):
            dates = [datetime.fromisoformat(given[name]).date() for name in ("--from-date", "--to-date")]
            assert dates[0] <= released(found[1]) <= dates[1], words
        else:
            assert dag == "new_crawls", words
        if words[:2] == ("pools", "import"):
            assert (ROOT / _IN_IMAGE.get(words[2], words[2])).is_file(), words
