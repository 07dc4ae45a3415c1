"""The wheel: built here, installed into a fresh environment next to this one's packages, and run there."""

import contextlib
import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from textwrap import indent

import pyarrow.parquet as pq
import pytest
from hatchling.build import build_wheel

from laion_etl import __version__
from laion_etl.demo.demo import DAG_FILE
from laion_etl.minicrawl.build import MiniCrawl
from tests.airflow.conftest import write_catalogue

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
ENTRY_POINT = (
    "EntryPoint(name='laion_etl', value='laion_etl.airflow.plugin:LaionEtlPlugin', group='airflow.plugins')"
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by the backend that pyproject.toml names, as pip would call it; without network."""
    folder = tmp_path_factory.mktemp("wheel")
    with contextlib.chdir(ROOT):
        return folder / build_wheel(str(folder))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bin/ of a fresh environment with the wheel; packages of others are the tests'."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=False)
    run([sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), *PIP, str(wheel)], folder)
    [site_packages] = folder.glob("lib/python*/site-packages")
    # After what is installed here, and as plain paths: .pth files in them, of this checkout, are not read.
    others = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (site_packages / "others.pth").write_text("\n".join(others) + "\n")
    return folder / "bin"


PIP = ("install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check")


def run(command: list[str], folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A command that succeeds; it sees no settings and no modules of this checkout."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("LAION_ETL_", "PYTHONPATH", "PIP_"))}
    done = subprocess.run(
        command, cwd=folder, env=kept | variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def files(folder: str) -> set[str]:
    """Paths of all files in a folder of the checkout, but bytecode."""
    found = [path.relative_to(ROOT) for path in (ROOT / folder).rglob("*") if path.is_file()]
    return {path.as_posix() for path in found if "__pycache__" not in path.parts}


def test_the_wheel_holds_the_package_and_what_it_reads(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == files("laion_etl") | {f"laion_etl/{name}" for name in files("sql")}
    for kind in ("sql", "json", "safetensors", "pth", "j2", "css", "js", "html", "txt", "typed"):
        assert any(name.endswith(f".{kind}") for name in names), kind


def test_the_wheel_declares_what_it_needs(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = archive.read(name).decode()
    assert f"\nVersion: {__version__}\n" in metadata
    assert "\nRequires-Dist: typer>=" in metadata
    for extra in ("score", "airflow", "kubernetes", "search", "dashboard", "all", "dev"):
        assert f"\nProvides-Extra: {extra}\n" in metadata


def test_what_runs_is_the_wheel_with_its_sql(installed: Path, tmp_path: Path) -> None:
    done = run([str(installed / "python"), str(ROOT / "tests" / "installed_places.py")], tmp_path)
    places = {name: Path(place) for name, place in json.loads(done.stdout).items()}
    package = places["package"].parent
    assert package.is_relative_to(installed.parent)
    assert places["sql"] == package / "sql"


@pytest.mark.parametrize("plugins", ["missing", str(ROOT / "plugins")], ids=["alone", "and a checkout"])
def test_two_lines_in_a_dag_file_are_all_that_airflow_needs(
    installed: Path, tmp_path: Path, plugins: str
) -> None:
    assert indent(DAG_FILE, " " * 4) in (ROOT / "docs" / "how-to" / "airflow.md").read_text()
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "mine.py").write_text(DAG_FILE)
    variables = {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": plugins,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "LAION_ETL_CATALOGUE": str(write_catalogue(tmp_path / "catalogue.json", ["CC-MAIN-2024-38"])),
    }
    # -P: tests/ has a folder airflow, which the script must not import.
    script = ["-P", str(ROOT / "tests" / "airflow_parts.py")]
    done = run([str(installed / "python"), *script], tmp_path, **variables)
    found = json.loads(done.stdout.splitlines()[-1])
    source = f"laion-etl=={__version__}: {ENTRY_POINT}"
    # The packages of the tests, which this environment sees, have this checkout's entry point, too.
    found["errors"].pop(source, None)
    assert found == {
        "dags": ["crawl_CC-MAIN-2024-38", "new_crawls"],
        "timetables": ["laion_etl.airflow.timetable.CrawlTimetable"],
        "pages": ["laion", "laion_dump", "laion_run"],
        "deadlines": ["laion_etl.airflow.alerts.RunCreated"],
        "source": source,
        "others": [],
        "errors": {},
    }


def test_the_version_is_that_of_the_wheel(installed: Path, tmp_path: Path) -> None:
    assert run([str(installed / "laion-etl"), "--version"], tmp_path).stdout == f"laion-etl {__version__}\n"


def test_the_wheel_parses_a_wat_file(installed: Path, minicrawl: MiniCrawl, tmp_path: Path) -> None:
    parse = [
        str(installed / "laion-etl"),
        "stage",
        "parse",
        "--crawl",
        minicrawl.crawl,
        "--partition",
        "0",
        "--json",
    ]
    done = run([*parse, str(minicrawl.wat_files[0])], tmp_path)
    counted = json.loads(done.stdout.splitlines()[-1])
    assert counted["kept"] > 0
    assert counted["input"] == counted["kept"] + sum(counted["dropped"].values())
    pairs = tmp_path / "data" / "pairs" / minicrawl.crawl / "part-00000.parquet"
    assert pq.read_table(pairs).num_rows == counted["kept"]


def test_shells_complete_commands(installed: Path, tmp_path: Path) -> None:
    command = str(installed / "laion-etl")
    words = {"COMP_WORDS": "laion-etl da", "COMP_CWORD": "1"}
    # Without this Typer asks the process tree for the shell, and this one may run under any.
    named = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    assert "complete" in run([command, "--show-completion", "bash"], tmp_path, **named).stdout
    done = run([command], tmp_path, _LAION_ETL_COMPLETE="complete_bash", **words)
    assert done.stdout.split() == ["dashboard", "dataset"]
