"""What docs/architecture.md promises: the machine's environment changes no byte of a scored shard."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from laion_etl.io.storage import LocalStore
from laion_etl.score.encode import SPAN
from tests.preloaded_commands import completed
from tests.score.conftest import CRAWL, TINY, scored_files, write_shard
from tests.score.test_stage import more_than_a_span

CORES = ("Prescott", "Haswell", "SkylakeX")  # SSE3, AVX2, AVX-512
ONE = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
TWO = dict.fromkeys(ONE, "2")


def run(arguments: list[str], changes: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """A command in an environment with `changes` to threads and kernels."""
    unset = {*ONE, "OPENBLAS_CORETYPE"}
    env = {name: value for name, value in os.environ.items() if name not in unset} | changes
    return subprocess.run(
        [sys.executable, "-m", *arguments], env=env, capture_output=True, text=True, check=False
    )


def kernels() -> list[str]:
    """Values of OPENBLAS_CORETYPE that this machine can run, each of which gives numpy other bits."""
    found: dict[str, str] = {}
    for core in CORES:
        done = run(["tests.score.blas_probe"], {"OPENBLAS_CORETYPE": core})
        if done.returncode == 0:
            found.setdefault(done.stdout, core)
    return list(found.values())


def scored(
    start: "Callable[[list[str], dict[str, str]], subprocess.CompletedProcess[str]]",
    folder: Path,
    environment: dict[str, str],
    **settings: str,
) -> dict[str, str]:
    """SHA-256 of the files of a shard scored by `laion-etl stage score` in an environment."""
    store = LocalStore(folder)
    write_shard(store, more_than_a_span())
    values = {"store": str(folder), "clip_model": TINY.model, "clip_pretrained": TINY.pretrained, **settings}
    given = {f"LAION_ETL_{name.upper()}": value for name, value in values.items()}
    given |= {"LAION_ETL_CLIP_DEVICE": "cpu", "LAION_ETL_CLIP_PREPARERS": "1"}
    done = start(["laion_etl", "stage", "score", "--crawl", CRAWL, "--shard", "3"], given | environment)
    assert done.returncode == 0, done.stderr
    return scored_files(store)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """In the environment of the tests, which have one thread: a fork can have it."""
    folder = tmp_path_factory.mktemp("expected")

    def fork(arguments: list[str], changes: dict[str, str]) -> "subprocess.CompletedProcess[str]":
        return completed(["-m", *arguments], {**os.environ, **changes}, folder)

    return scored(fork, folder, {}, clip_threads="1", clip_batch_size=str(SPAN))


def test_kernels_threads_and_batch_sizes_change_no_byte(tmp_path: Path, expected: dict[str, str]) -> None:
    """In two runs, each with another BLAS kernel where the machine has several: a start takes seconds."""
    cores = kernels()
    if len(cores) < 2:
        cores = ["", ""]
    for core, threads, count, batch in ((cores[0], TWO, "2", SPAN), (cores[-1], ONE, "1", 150)):
        environment = threads | ({"OPENBLAS_CORETYPE": core} if core else {})
        found = scored(run, tmp_path / count, environment, clip_threads=count, clip_batch_size=str(batch))
        assert found == expected != {}
