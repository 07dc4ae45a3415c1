"""The lock is complete for every supported Python: dependencies are pinned, to versions packages accept.

Judged by the metadata of what is installed, which is the same for all Pythons; no index is asked.
"""

import re
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13")
HERE = default_environment()["python_version"]
# Builds of torch for GPUs need more, each in versions that it pins itself. It also bounds setuptools, which
# pip-compile leaves out.
BY_TORCH = re.compile(r"nvidia-|cuda-|triton")


@pytest.fixture(scope="module", autouse=True)
def installed_is_the_lock() -> None:
    """Skips when other versions than those of the lock are installed."""
    for name, version in lock(HERE).items():
        try:
            found = distribution(name).version.partition("+")[0]  # torch's build is not pinned
        except PackageNotFoundError:
            found = "none"
        if found != version:
            pytest.skip(f"the lock has {name} {version}, installed is {found}: run `make setup`")


def environment(python: str) -> dict[str, str]:
    """Returns the environment that markers see on Linux with that Python."""
    return {**default_environment(), "python_version": python, "python_full_version": f"{python}.0"}  # type: ignore[dict-item]


def written(file: str) -> list[Requirement]:
    """Returns the lines of a requirements file."""
    lines = [re.split(r" [#\\]", line)[0].strip() for line in (ROOT / file).read_text().splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "--hash="))]


@cache
def lock(python: str, file: str = "requirements.txt") -> dict[str, str]:
    """Returns name -> version of the packages that are installed there."""
    found = {}
    for pin in written(file):
        [specifier] = pin.specifier
        assert specifier.operator == "==", pin
        if pin.marker is None or pin.marker.evaluate(environment(python)):
            found[canonicalize_name(pin.name)] = specifier.version
    return found


def needs(name: str, extras: set[str], python: str) -> Iterator[Requirement]:
    """What a package requires there; of one that is for another Python than this one, nothing is known."""
    for text in (name in lock(HERE) and distribution(name).requires) or ():
        need = Requirement(text)
        environments = [{**environment(python), "extra": extra} for extra in ("", *extras)]
        if need.marker is None or any(need.marker.evaluate(one) for one in environments):
            yield need


def asked_for(python: str) -> list[Requirement]:
    """requirements.in, there."""
    return [
        need
        for need in written("requirements.in")
        if need.marker is None or need.marker.evaluate(environment(python))
    ]


@pytest.mark.parametrize("python", PYTHONS)
def test_all_that_is_needed_is_pinned_to_a_version_that_fits(python: str) -> None:
    pins = lock(python)
    waiting = [(need, "requirements.in") for need in asked_for(python)]
    seen, wrong = set[tuple[str, frozenset[str]]](), []
    while waiting:
        need, source = waiting.pop()
        name = canonicalize_name(need.name)
        if (source == "torch" and BY_TORCH.match(name)) or name == "setuptools":
            continue
        if not need.specifier.contains(pins.get(name, "0"), prereleases=True) or name not in pins:
            wrong.append(f"{source} needs {need}, the lock has {pins.get(name)}")
        elif (key := (name, frozenset(need.extras))) not in seen:
            seen.add(key)
            waiting += [(one, name) for one in needs(name, need.extras, python)]
    assert wrong == []
    assert {name for name, _ in seen} == pins.keys()  # and no package that is not needed


@pytest.mark.parametrize("python", PYTHONS)
def test_every_pinned_package_takes_that_python(python: str) -> None:
    refused = [
        name
        for name in lock(python).keys() & lock(HERE).keys()
        if not SpecifierSet(distribution(name).metadata["Requires-Python"] or "").contains(f"{python}.9")
    ]
    assert refused == []


HASHED = [
    "requirements-hashed.txt",
    *(f"docker/requirements-{role}.txt" for role in ("worker", "score", "airflow", "auth")),
]


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_with_hashes_has_the_same_versions(python: str) -> None:
    by_version_only = {"torch", "torchvision"}
    expected = {name: version for name, version in lock(python).items() if name not in by_version_only}
    assert lock(python, "requirements-hashed.txt") == expected


@pytest.mark.parametrize("file", HASHED)
def test_every_pin_has_the_hashes_of_its_files(file: str) -> None:
    lines = (ROOT / file).read_text().splitlines()
    a_hash = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")
    without = [
        line
        for line, following in zip(lines, [*lines[1:], ""], strict=True)
        if not line.startswith((" ", "#")) and not a_hash.fullmatch(following)
    ]
    assert without == []
