"""Without extras: every command shows its help, and one that lacks a package says which extra to install."""

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from laion_etl.cli.extras import EXTRAS
from tests.parse.wat_files import image, page_record, write_wat

ROOT = Path(__file__).parents[1]
ALL = [module for modules in EXTRAS.values() for module in modules]
CRAWL = ("--crawl", "C")


def without(modules: Iterable[str], folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LAION_ETL_")}
    return subprocess.run(
        [sys.executable, "-m", "tests.hidden_modules", ",".join(modules), *arguments],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_needs_no_extra(tmp_path: Path) -> None:
    done = without(ALL, tmp_path, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert " stage " in done.stdout


def test_parse_needs_no_extra(tmp_path: Path) -> None:
    wat = write_wat(tmp_path / "a.wat.gz", [page_record("https://e.org/", [image("a.jpg", "A red car")])])
    done = without(ALL, tmp_path, "stage", "parse", *CRAWL, "--partition", "0", wat)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "data" / "pairs" / "C" / "part-00000.parquet").is_file()


@pytest.mark.parametrize(
    ("hidden", "arguments", "refusal"),
    [
        (
            ["torch"],
            ["stage", "score", *CRAWL],
            "stage score: the package torch is missing; pip install 'laion-etl[score]'",
        ),
        (["torch"], ["run", "CC-MAIN-2024-38"], "run: the package torch is missing"),
        (
            EXTRAS["score"],
            ["stage", "score", *CRAWL],
            "stage score: the packages torch, safetensors, regex are missing",
        ),
        (ALL, ["demo"], "pip install 'laion-etl[airflow,score,search]'"),
        (["airflow"], ["demo"], "demo: the package airflow is missing; pip install 'laion-etl[airflow]'"),
        (
            ["usearch"],
            ["search", "index"],
            "search index: the package usearch is missing; pip install 'laion-etl[search]'",
        ),
        (["usearch"], ["search", "query", "a car"], "search query: the package usearch is missing"),
        (
            ["fastapi"],
            ["search", "serve"],
            "search serve: the package fastapi is missing; pip install 'laion-etl[search]'",
        ),
        (
            ["uvicorn"],
            ["dashboard"],
            "dashboard: the package uvicorn is missing; pip install 'laion-etl[dash",
        ),
        (
            ["torch"],
            ["model", "eval", "zero-shot", "."],
            "model eval zero-shot: the package torch is missing",
        ),
        (
            ["torch"],
            ["model", "eval", "retrieval", *CRAWL],
            "model eval retrieval: the package torch is missing",
        ),
        (["torch"], ["dataset", "train-check", *CRAWL], "dataset train-check: the package torch is missing"),
    ],
)
def test_a_command_names_the_extra_that_it_lacks(
    hidden: list[str], arguments: list[str], refusal: str, tmp_path: Path
) -> None:
    done = without(hidden, tmp_path, *arguments)
    [line] = done.stderr.splitlines()
    assert done.returncode == 2
    assert line.startswith("error: cannot run ")
    assert refusal in line
    assert not (tmp_path / "data").exists(), "refused before any work"


def test_a_package_that_only_some_settings_need_is_named_when_it_is_needed(tmp_path: Path) -> None:
    (tmp_path / "images" / "car").mkdir(parents=True)
    (tmp_path / "images" / "car" / "a.jpg").write_bytes(b"")
    done = without(["open_clip"], tmp_path, "model", "eval", "zero-shot", "images")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "error: cannot run model eval zero-shot: the package open_clip is missing; "
        "pip install 'laion-etl[score]'"
    )


def test_a_download_worker_imports_nothing_large_that_it_does_not_use(tmp_path: Path) -> None:
    (tmp_path / "laion_etl.toml").write_text('[core]\ndatabase_url = "postgresql://u@127.0.0.1:1/x"\n')
    done = without(["numba", "pandas", "requests"], tmp_path, "stage", "download", *CRAWL)
    assert done.stderr.startswith("error: cannot connect to Postgres")  # by then all is imported


def test_a_missing_package_of_no_extra_is_a_bug_with_a_traceback(tmp_path: Path) -> None:
    done = without(["pyarrow.parquet"], tmp_path, "dataset", "verify")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_warc_files_need_their_extra(tmp_path: Path) -> None:
    (tmp_path / "laion_etl.toml").write_text('[parse]\nsource = "warc"\n')
    done = without(["selectolax"], tmp_path, "stage", "parse", *CRAWL, "--partition", "0", "a.warc.gz")
    assert done.returncode == 2
    assert "the package selectolax is missing; pip install 'laion-etl[warc]'" in done.stderr
