"""The reference of the library: every public name has its docstring and its place on the page."""

import ast
import inspect
import re
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import laion_etl as le
from laion_etl.api.shards import download
from scripts.docs.site_pages import OUTSIDE, rewritten

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/reference/api.md").read_text()
NAMES = sorted(set(le.__all__) - {"__version__"})
# Classes whose methods users call: each says what it takes.
WITH_ARGUMENTS = ("CrawlRun", "Dataset", "Head", "PairReader", "Scorer", "Shard")


def public(name: str) -> Any:
    """An object by its public name; the package `download` can be called, so it has two docstrings."""
    return download if name == "download" else getattr(le, name)


def function_of(member: object) -> object:
    return getattr(member, "fget", None) or getattr(member, "__func__", member)


def members(made: type) -> dict[str, object]:
    """Public methods and properties that a class itself defines, and what calls or makes it."""
    return {
        name: function_of(member)
        for name, member in vars(made).items()
        if inspect.isfunction(function_of(member)) and not name.startswith("_")
    }


def arguments(function: Any) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]


def described(docstring: str) -> list[str]:
    """Names below `Args:`."""
    section = re.search(r"^Args:\n((?:[ ]+.*\n?|\n(?=[ ]))*)", docstring, re.MULTILINE)
    return re.findall(r"^ {4}(\w+): \S", section[1], re.MULTILINE) if section else []


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_has_a_docstring_of_its_own(name: str) -> None:
    found = public(name)
    assert found.__doc__
    assert not found.__doc__.startswith(f"{found.__name__}(")  # what a dataclass gets without one
    if inspect.isclass(found):
        assert [member for member, function in members(found).items() if not function.__doc__] == []


@pytest.mark.parametrize("name", [name for name in NAMES if inspect.isfunction(public(name))])
def test_a_public_function_says_what_it_takes_and_raises(name: str) -> None:
    docstring = inspect.getdoc(public(name)) or ""
    assert described(docstring) == arguments(public(name))
    assert re.search(r"^Raises:\n {4}\w+Error: ", docstring, re.MULTILINE)


@pytest.mark.parametrize("name", WITH_ARGUMENTS)
def test_methods_say_what_they_take(name: str) -> None:
    made = public(name)
    methods = {f"{name}.{method}": function for method, function in members(made).items()}
    for method, function in methods.items():
        assert described(inspect.getdoc(function) or "") == arguments(function), method


def test_shapes_of_arrays_are_stated() -> None:
    for documented in (le.HeadInput, le.ClipModel.embed_texts, le.ClipModel.embed_images):
        assert "(n, dim)" in (inspect.getdoc(documented) or "")


def test_the_page_has_every_public_name_and_no_other() -> None:
    listed = re.findall(r"^::: ([\w.]+)\.(\w+)$", PAGE, re.MULTILINE)
    objects = [getattr(import_module(module), name) for module, name in listed]
    assert len(objects) == len(NAMES)
    assert [name for name in NAMES if public(name) not in objects] == []
    assert "`laion_etl.__version__`" in PAGE


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    navigation = set(re.findall(r"[\w/-]+\.md$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert navigation == pages | {*OUTSIDE}


def test_links_of_the_site_lead_to_its_pages() -> None:
    page = "[a](../../benchmarks/RESULTS.md#today) [`b`](../../laion_etl/api.py) [c](../formats.md)"
    shown = "[a](../benchmarks/RESULTS.md#today) `b` [c](../formats.md)"
    assert rewritten(page, "how-to/costs.md") == shown
    assert (
        rewritten("[e](../docs/scaling.md#figures)", "benchmarks/RESULTS.md") == "[e](../scaling.md#figures)"
    )
    assert rewritten("![f](../docs/images/a.svg)", "benchmarks/RESULTS.md") == "![f](../images/a.svg)"
    untouched = "[g](https://a.example/b.md) [h](#here)"
    assert rewritten(untouched, "index.md") == untouched


def test_the_site_needs_nothing_that_the_project_installs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert not [line for line in (ROOT / "requirements.txt").read_text().splitlines() if "mkdocs" in line]
    names = [re.split(r"[\[<>]", line)[0] for line in project["docs"]]
    assert names == ["mkdocs", "mkdocs-material", "mkdocstrings"]


def test_public_names_are_imported_from_where_the_page_has_them() -> None:
    """So the page is that of the objects that `import laion_etl` gives."""
    tree = ast.parse((ROOT / "laion_etl/__init__.py").read_text())
    typed = {
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("laion_etl.")
        for alias in node.names
    }
    assert set(re.findall(r"^::: ([\w.]+)$", PAGE, re.MULTILINE)) == typed | {"laion_etl.api.shards.download"}
