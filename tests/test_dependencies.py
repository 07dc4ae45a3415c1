"""What is imported is declared in pyproject.toml; requirements.in and the lock agree with that."""

import ast
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import laion_etl
from laion_etl.cli.extras import EXTRAS

ROOT = Path(__file__).parents[1]

# Files that are used with an extra only, by the start of their path. All others need no extra.
ROOMS = {
    "laion_etl/score/": ["score"],
    "laion_etl/evaluate/": ["score"],
    "laion_etl/minicrawl/aesthetic.py": ["score"],  # trains a head of the demo's model
    "laion_etl/publish/push.py": ["hub"],
    "laion_etl/search/": ["search", "score"],
    "laion_etl/dashboard/": ["dashboard"],
    "laion_etl/io/local_server.py": ["dashboard"],
    "laion_etl/parse/html_": ["warc"],
    "laion_etl/demo/": ["airflow", "search", "score"],
    "laion_etl/airflow/pod": ["kubernetes"],  # pods.py, pod_spec.py, ...
    "laion_etl/airflow/keda.py": ["kubernetes"],
    "laion_etl/airflow/": ["airflow"],
    "dags/": ["airflow"],
    "plugins/": ["airflow"],
}
# Imported by what we import, when it is there: nothing of ours names them.
INDIRECT = {
    "apache-airflow-providers-amazon": "the connection laion_s3 and task logs on S3",
    "apache-airflow-providers-postgres": "the connection laion_postgres",
    "pandas": "open_clip's training",
    "transformers": "open_clip's multilingual text towers",
    "webdataset": "open_clip's training",
}


@cache
def project() -> dict[str, list[Requirement]]:
    """Extra -> what pyproject.toml declares for it; '' is what is always installed."""
    read = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = {"": read["dependencies"], **read["optional-dependencies"]}
    return {extra: [Requirement(line) for line in found] for extra, found in lines.items()}


def declared(*extras: str) -> dict[str, Requirement]:
    """Name -> requirement, of extras and those that they include."""
    found = {}
    for extra in extras:
        for need in project()[extra]:
            if need.name == "laion-etl":
                found |= declared(*need.extras)
            else:
                found[canonicalize_name(need.name)] = need
    return found


def imports(path: Path) -> Iterator[str]:
    """Full names of the modules that a file imports, not of those for type checkers; of `find_spec` too."""
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            waiting += node.orelse
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and re.search(r"(find_spec|import_module)$", ast.unparse(node.func)):
            yield from (one.value for one in node.args if isinstance(one, ast.Constant))


PROVIDERS = cache(packages_distributions)  # reads the metadata of everything that is installed


def distributions(module: str) -> set[str]:
    """Packages that may hold a module; Airflow's share one name and differ in what follows it."""
    if module.startswith("airflow."):
        provider = re.match(r"airflow\.providers\.(standard|cncf\.kubernetes)\b", module)
        return {f"apache-airflow-providers-{provider[1].replace('.', '-')}" if provider else "apache-airflow"}
    return {canonicalize_name(name) for name in PROVIDERS().get(module.partition(".")[0], [])}


@cache
def third_party() -> dict[str, set[str]]:
    """Path -> modules of others that it imports."""
    found = defaultdict(set)
    for folder in ("laion_etl", "dags", "plugins"):
        for path in (ROOT / folder).rglob("*.py"):
            for module in imports(path):
                if module.partition(".")[0] not in {*sys.stdlib_module_names, "laion_etl"}:
                    found[path.relative_to(ROOT).as_posix()].add(module)
    return found


def extras_of(path: str) -> list[str]:
    return next((extras for start, extras in ROOMS.items() if path.startswith(start)), [])


def test_what_a_file_imports_is_declared_for_its_part() -> None:
    wrong = [
        f"{path} imports {module}, which is in {extras_of(path) or 'no extra'}: declare it in pyproject.toml"
        for path, modules in third_party().items()
        for module in modules
        if not distributions(module) & declared("", *extras_of(path)).keys()
    ]
    assert wrong == []


def test_what_is_declared_is_imported() -> None:
    used = {
        name for modules in third_party().values() for module in modules for name in distributions(module)
    }
    unused = declared("", "all").keys() - used - INDIRECT.keys()
    assert unused == set()
    assert declared("all").keys() >= INDIRECT.keys()
    assert not used & INDIRECT.keys(), "imported: take it out of INDIRECT"


def test_all_has_every_extra_but_the_developers() -> None:
    extras = project().keys() - {"", "all", "dev", "docs"}
    assert declared("all") == declared(*extras)
    assert extras == EXTRAS.keys()


@pytest.mark.parametrize("extra", EXTRAS)
def test_a_missing_module_is_looked_for_in_the_extra_that_installs_it(extra: str) -> None:
    for module in EXTRAS[extra]:
        names = {"apache-airflow"} if module == "airflow" else distributions(module)
        assert names & declared(extra).keys(), module
        assert not names & declared("").keys(), f"{module} is always installed"


def test_every_dependency_has_a_lower_bound() -> None:
    for need in declared("", "all", "dev").values():
        assert [one for one in need.specifier if one.operator == ">="], need


def lines(file: str) -> dict[str, Requirement]:
    read = [line.partition(" #")[0].strip() for line in (ROOT / file).read_text().splitlines()]
    needs = [Requirement(line) for line in read if line and not line.startswith("#")]
    return {canonicalize_name(need.name): need for need in needs if need.marker is None}


def test_the_input_of_the_lock_has_the_same_packages() -> None:
    everything, written = declared("", "all", "dev"), lines("requirements.in")
    assert written.keys() == everything.keys()
    for name, need in written.items():
        pins = [one.version for one in need.specifier if one.operator == "=="]
        assert need.extras == everything[name].extras, name
        assert need.specifier == everything[name].specifier or (
            pins and everything[name].specifier.contains(pins[0])
        ), f"{need} in requirements.in, {everything[name]} in pyproject.toml"


def test_the_lock_is_within_what_is_declared() -> None:
    locked = lines("requirements.txt")
    for name, need in declared("", "all", "dev").items():
        [pin] = locked[name].specifier
        assert need.specifier.contains(pin.version), f"{locked[name]} is not {need}"


def test_the_version_stands_once() -> None:
    read = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" in read["project"]["dynamic"]
    assert (ROOT / read["tool"]["hatch"]["version"]["path"]).samefile(str(laion_etl.__file__))
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+)?", laion_etl.__version__)
