"""Which files of the package the compiled code of its kernels follows from."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).parents[1] / "laion_etl"
_MAKERS = frozenset({"kernel", "borrowing_kernel"})
_ENDS = _PACKAGE / "core" / "numba_cache.py"  # what it calls decides where code is kept, not what it is


def sources_of_kernels() -> set[Path]:
    """Return the files with kernels, and those with what kernels use: constants, types, functions."""
    found: set[tuple[Path, str]] = set()
    for path in _PACKAGE.rglob("*.py"):
        for name in _kernels(path):
            _follow(path, name, found)
    return {path for path, _ in found}


def _kernels(path: Path) -> Iterator[str]:
    if b"numba_cache import" not in path.read_bytes():  # reading all as Python takes seconds
        return
    for node in _tree(path).body:
        if isinstance(node, ast.FunctionDef) and _MAKERS & _names(*node.decorator_list):
            yield node.name


def _follow(path: Path, name: str, found: set[tuple[Path, str]]) -> None:
    """Add where a name of a module gets its meaning, and the names in that meaning."""
    if (path, name) in found:
        return
    if (origin := _imported(path).get(name)) is not None:
        _follow(origin, name, found)
    elif name in (meanings := _meanings(path)):
        found.add((path, name))
        for used in _names(meanings[name]) if path != _ENDS else ():
            _follow(path, used, found)


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_bytes())


@cache
def _imported(path: Path) -> dict[str, Path]:
    """Return the modules of this package that names are imported from; none is renamed there."""
    found = {}
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("laion_etl."):
            source = _PACKAGE.joinpath(*str(node.module).split(".")[1:]).with_suffix(".py")
            found |= {alias.asname or alias.name: source for alias in node.names if source.exists()}
    return found


@cache
def _meanings(path: Path) -> dict[str, ast.stmt]:
    found: dict[str, ast.stmt] = {}
    for node in _tree(path).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign):
            found |= dict.fromkeys(_names(*node.targets), node)
        elif isinstance(node, ast.AnnAssign):
            found |= dict.fromkeys(_names(node.target), node)
    return found


def _names(*nodes: ast.AST) -> set[str]:
    return {one.id for node in nodes for one in ast.walk(node) if isinstance(one, ast.Name)}
