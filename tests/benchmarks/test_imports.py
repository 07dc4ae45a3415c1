"""Benchmarks run rarely; the names that they import from the project are there all the same."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("laion_etl", "tests", "benchmarks", "scripts")


def source(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    found = [path.with_suffix(".py"), path / "__init__.py"]
    return next((one for one in found if one.is_file()), None)


@cache
def names_of(path: Path) -> frozenset[str]:
    """The names that a module defines or imports, also in branches."""
    tree = ast.parse(path.read_text())
    return frozenset(_names(tree))


def _names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.alias):
            yield node.asname or node.name


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").rglob("*.py")), ids=lambda path: path.stem)
def test_what_a_benchmark_imports_is_there(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OURS:
            module = source(str(node.module))
            assert module is not None or (ROOT / str(node.module).replace(".", "/")).is_dir(), node.module
            known = names_of(module) if module else frozenset()
            missing = {one.name for one in node.names} - known
            assert not [one for one in missing if source(f"{node.module}.{one}") is None], node.module
