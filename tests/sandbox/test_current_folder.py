"""Code in the current folder is run by no process: it may be of an unpacked archive, or another user's."""

import re
import subprocess
import sys
from pathlib import Path

import laion_etl

_SOURCES = Path(laion_etl.__file__).parent
_STARTS = """
import subprocess
from laion_etl.core.programs import python_module

subprocess.run([*python_module("laion_etl"), "--version"], check=True)
"""


def test_modules_of_the_current_folder_are_not_imported(tmp_path: Path) -> None:
    """`laion-etl` looks in the folder of its own program, as Python does with -P; so do its processes."""
    for name in ("laion_etl", "numpy", "json", "typer", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text("open('taken-over', 'w').close()")
    command = [sys.executable, "-P", "-c", _STARTS]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr, ended.stdout.split()[:1]) == (0, "", ["laion-etl"])
    assert not (tmp_path / "taken-over").exists()


def test_every_module_that_is_run_is_run_so() -> None:
    """`python -m` looks in the current folder first."""
    starts = re.compile(r"""(?<!"-P", )["']-m["'],? ?["'\w]""")
    found = [str(path) for path in _SOURCES.rglob("*.py") if starts.search(path.read_text())]
    assert [path for path in found if not path.endswith("core/programs.py")] == [
        str(_SOURCES / "database" / "postgres_programs.py")  # an option of pg_ctl
    ]


def test_a_process_that_was_started_from_the_current_folder_starts_others_so(tmp_path: Path) -> None:
    """Modules of the user's own, such as heads, are found there by `python -m laion_etl`."""
    code = "from laion_etl.core.programs import python_module; print('-P' in python_module('x'))"
    told = [
        subprocess.run([sys.executable, *flags, "-c", code], cwd=tmp_path, capture_output=True, check=True)
        for flags in ([], ["-P"])
    ]
    assert [one.stdout.strip() for one in told] == [b"False", b"True"]
