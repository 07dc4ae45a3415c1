"""What a decoder can do after it was taken over: nothing but compute and answer."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from laion_etl.sandbox import seccomp
from laion_etl.sandbox.limits import confined_environment

_SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "aws-secret",
    "LAION_ETL_DATABASE_URL": "postgresql://me:db-secret@host/db",
    "AIRFLOW__CORE__FERNET_KEY": "fernet-secret",
    "AIRFLOW_CONN_LAION_ETL": "conn-secret",
    "HF_TOKEN": "hub-secret",
}

needs_seccomp = pytest.mark.skipif(not seccomp.supported(), reason="this kernel does not filter system calls")


@cache
def _report() -> dict[str, dict[str, str]]:
    with TemporaryDirectory() as folder:
        secret = Path(folder) / "secret"
        secret.write_text("secret")
        ended = subprocess.run(
            [sys.executable, "-m", "tests.sandbox.taken_over", str(secret), folder],
            env=confined_environment({**os.environ, **_SECRETS}) | {"PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert secret.read_text() == "secret"
        assert list(Path(folder).iterdir()) == [secret]
    found: dict[str, dict[str, str]] = json.loads(ended.stdout)
    return found


@needs_seccomp
def test_a_taken_over_decoder_reaches_nothing() -> None:
    results = _report()["results"]
    assert len(results) > 20
    assert {name: result for name, result in results.items() if not result.startswith("refused")} == {}


def test_a_decoder_sees_no_secret() -> None:
    assert not _SECRETS.keys() & _report()["environment"].keys()
    assert "-secret" not in json.dumps(_report()["environment"])


def test_without_a_filter_no_file_socket_or_program_can_be_opened(tmp_path: Path) -> None:
    """On a kernel without seccomp the limits still hold; the program runs with the filter left out."""
    attempts = ("read a file", "write a file", "list a folder", "open a socket", "make a pipe")
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.sandbox.unfiltered",
            str(tmp_path / "absent"),
            str(tmp_path),
            *attempts,
        ],
        env=confined_environment() | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    results = json.loads(ended.stdout)["results"]
    assert sorted(results) == sorted(attempts)
    assert [result for result in results.values() if "Too many open files" not in result] == []


def test_a_kernel_without_filters_is_named_once_and_the_parent_hides_its_memory() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.sandbox.unfiltered_parent"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stderr.count("seccomp") == 1
    assert ended.stdout.strip() == "dumpable: 0"


@needs_seccomp
def test_a_process_ends_if_its_filter_is_refused() -> None:
    command = [sys.executable, "-m", "tests.sandbox.refused"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("cannot confine a process")
    assert ended.stdout == ""
