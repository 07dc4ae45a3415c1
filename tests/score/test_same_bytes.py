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
TWO = {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}


def run(arguments: list[str], changes: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """A command in an environment with `changes` to threads and kernels."""
    unset = {*TWO, "OPENBLAS_CORETYPE"}
    env = {name: value for name, value in os.environ.items() if name not in unset} | changes
    return subprocess.run(
        [sys.executable, "-m", *arguments], env=env, capture_output=True, text=True, check=False
    )


def another_kernel() -> str:
    """A value of OPENBLAS_CORETYPE that this machine can run and that gives numpy other bits, or none."""
    own = {name: value for name, value in os.environ.items() if name == "OPENBLAS_CORETYPE"}
    usual = run(["tests.score.blas_probe"], own)
    for core in CORES:
        done = run(["tests.score.blas_probe"], {"OPENBLAS_CORETYPE": core})
        if done.returncode == 0 and done.stdout != usual.stdout:
            return core
    return ""


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
    """All in one run, with another BLAS kernel where the machine has several: a start takes ten seconds."""
    core = another_kernel()
    environment = TWO | ({"OPENBLAS_CORETYPE": core} if core else {})
    found = scored(run, tmp_path, environment, clip_threads="2", clip_batch_size="150")
    assert found == expected != {}
