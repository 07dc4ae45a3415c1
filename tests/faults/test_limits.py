"""Limits of a process, and files of another kind than expected, end in one line that says what to do."""

import errno
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from laion_etl.core.errors import DatabaseRefusedError, InputError, StorageError
from laion_etl.core.limits import limit_reached
from laion_etl.database.embedded import running_server
from laion_etl.io.remote_files import open_input
from laion_etl.io.storage import LocalStore
from tests.test_cli import one_line_error


def test_a_limit_of_memory_that_is_reached_by_imports() -> None:
    command = f"ulimit -v 300000; exec {sys.executable} -m laion_etl status --crawl C"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 75
    assert one_line_error(done).startswith("error: cannot go on: out of memory; raise the limit")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "ulimit -u"),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (ImportError("x.so: failed to map segment from shared object"), "ulimit -v"),
        (MemoryError(), "ulimit -v"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "quota"),
        (OSError(errno.EFBIG, "File too large"), "ulimit -f"),
        (RuntimeError("a bug"), None),
        (OSError(errno.EBADF, "Bad file descriptor"), None),
        (ImportError("No module named x"), None),
    ],
)
def test_which_errors_are_limits(error: Exception, said: str | None) -> None:
    later = OSError("the library could not be loaded")
    later.__context__ = error
    for one in (error, later):
        reached = limit_reached(one)
        assert (said is None) == (reached is None)
        assert (said or "") in (reached or "")


def test_a_closed_terminal_does_not_end_a_command_under_nohup() -> None:
    command = f"trap '' HUP; exec {sys.executable} -m tests.reading_at_the_end 0 --version"
    pipe = subprocess.PIPE
    with subprocess.Popen(["bash", "-c", command], stdin=pipe, stdout=pipe, stderr=pipe) as ending:
        assert ending.stdin
        assert ending.stdout
        while ending.stdout.readline() != b"ending\n":
            assert ending.poll() is None
        ending.send_signal(signal.SIGHUP)
        ending.stdin.close()
        assert ending.wait() == 0


def test_a_pipe_that_no_process_writes_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.wat.gz")
    with pytest.raises(InputError, match="it is a pipe, not a file; check the path"):
        open_input(str(tmp_path / "a.wat.gz"))


def test_a_pipe_of_the_shell_is_read() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"a line")
    os.close(writing)
    with open_input(f"/dev/fd/{reading}") as file:
        assert file.read() == b"a line"
    os.close(reading)


@pytest.mark.parametrize("below", ["", "/folder"])
def test_a_file_in_the_place_of_the_store(below: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="a file is where a folder must be; move it away, or set LAION_"):
        LocalStore(Path(f"{tmp_path}/file{below}")).check()


def test_a_file_in_the_place_of_the_data_folder_is_no_outage(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with ExitStack() as stack, pytest.raises(DatabaseRefusedError, match=r"File exists: .*; fix that"):
        stack.enter_context(running_server(tmp_path / "file"))
