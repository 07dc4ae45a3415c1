"""The documentation: links lead somewhere, settings exist; commands: test_documented_commands.py."""

import re
from functools import cache
from pathlib import Path

import pytest

from laion_etl.settings import setting_fields
from tests.documented_commands import PAGES, relative

ROOT = Path(__file__).parents[1]
HOW_TO = sorted(set((ROOT / "docs" / "how-to").glob("*.md")) - {ROOT / "docs" / "how-to" / "README.md"})
# Tests that run the Python of a page; a block of any other page needs a line above it: <!-- not run: why -->
RUN_BY = {
    "docs/formats.md": ("tests/publish/test_loaders.py", "tests/evaluate/test_train_check.py"),
    "docs/how-to/airflow.md": ("tests/airflow/test_dags.py",),
    "docs/how-to/own-dags.md": ("tests/airflow/test_dags.py",),
    "docs/languages.md": ("tests/parse/test_language.py",),
    "docs/library.md": ("tests/test_examples.py",),
}
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
_BLOCK = re.compile(r"(?m)^(?:    .*\n|\n(?=    ))+|```.*?```", re.DOTALL)
_HEADING = re.compile(r"(?m)^#{1,6} (.+)$")


each_page = pytest.mark.parametrize("page", PAGES, ids=relative)


@cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    plain = (re.sub(r"[`*]|\]\([^)]*\)|\[", "", heading).lower() for heading in _HEADING.findall(text))
    return frozenset(re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain)


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    text = _BLOCK.sub("\n", page.read_text())
    for target in (one or other for one, other in _LINK.findall(text)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        found = (page.parent / name).resolve() if name else page
        assert found.exists(), target
        if anchor and found.suffix == ".md":
            assert anchor in anchors(found), target


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=relative)
def test_a_page_begins_with_who_needs_it_and_ends_with_what_next(page: Path) -> None:
    title, first, *_, last = page.read_text().strip().split("\n\n")
    assert title.startswith("# ")
    assert re.fullmatch(r"\*[^*].*\*", first, re.DOTALL), first
    assert last.startswith("Next: "), last


@each_page
def test_a_page_whose_commands_need_the_environment_says_how_to_enter_it(page: Path) -> None:
    text = page.read_text()
    if found := re.search(r"(?m)^ {4,}(?:[A-Z_]+=\S+ )*laion-etl ", text):
        assert "`source .venv/bin/activate`" in text[: found.start()]


@pytest.mark.parametrize("page", HOW_TO, ids=relative)
def test_a_how_to_page_has_steps_and_says_what_can_go_wrong(page: Path) -> None:
    text = page.read_text()
    assert "\n1. " in text
    assert "\n2. " in text
    assert "\n## What can go wrong\n" in text


@each_page
def test_every_python_block_is_run_by_a_test_or_says_why_not(page: Path) -> None:
    blocks = re.findall(r"(.*)\n+ *```python\n", page.read_text())
    tests = RUN_BY.get(relative(page), ())
    assert blocks or not tests
    assert all(page.name in (ROOT / test).read_text() for test in tests)
    assert tests or all(re.match(r" *<!-- not run: .+ -->", before) for before in blocks)


def test_the_list_of_how_to_pages_has_each_with_its_title() -> None:
    listed = re.findall(
        r"^\| \[(.+)\]\((.+)\) \|", (HOW_TO[0].parent / "README.md").read_text(), re.MULTILINE
    )
    titles = {(page.read_text().partition("\n")[0].removeprefix("# "), page.name) for page in HOW_TO}
    assert set(listed) == titles


@each_page
def test_settings_that_a_page_names_exist(page: Path) -> None:
    if page.name == "CHANGELOG.md":
        return  # it has those of its day
    known = {"LAION_ETL_CONFIG", *(field.variable for field in setting_fields())}
    named = set(re.findall(r"\bLAION_ETL_[A-Z0-9_]*[A-Z0-9]\b(?![_*])", page.read_text()))
    assert named - known == set()


_FIGURE = re.compile(r"[\d.]+ (?:times|min|s)\b")


def figures(page: Path, heading: str) -> list[str]:
    return [figure for row in rows(page, heading) for cell in row for figure in _FIGURE.findall(cell)]


def test_figures_of_the_first_page_are_those_of_the_latest_measurements() -> None:
    latest = figures(ROOT / "benchmarks" / "RESULTS.md", "Today's figures")
    shown = [
        *figures(ROOT / "README.md", "What you get"),
        *figures(ROOT / "README.md", "How it scales"),
        *figures(ROOT / "docs" / "comparison.md", "Speed, today"),
    ]
    assert len(shown) > 12
    assert [figure for figure in shown if figure not in latest] == []


def rows(page: Path, heading: str) -> list[list[str]]:
    """The rows of the first table below a heading."""
    _, _, section = page.read_text().partition(f"\n## {heading}\n")
    table = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert table is not None, heading
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[0].splitlines()[2:]]
