"""The command line as a user or a task uses it: processes, exit codes, one-line errors."""

import json
import logging
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from laion_etl import __version__
from laion_etl.core.shown_text import ShownLines
from tests.parse.wat_files import image, page_record, write_wat
from tests.preloaded_commands import completed


def laion_etl(folder: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in a folder of its own, with these LAION_ETL_* settings."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LAION_ETL_")}
    environment |= {f"LAION_ETL_{name}": value for name, value in settings.items()}
    return completed(["-m", "laion_etl", *arguments], environment, folder)


def one_line_error(done: subprocess.CompletedProcess[str]) -> str:
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


def test_the_version(tmp_path: Path) -> None:
    """In a new process; the other commands are forks of one that has their imports."""
    command = [sys.executable, "-m", "laion_etl", "--version"]
    new = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    forked = laion_etl(tmp_path, "--version")
    for done in (new, forked):
        assert (done.returncode, done.stdout, done.stderr) == (0, f"laion-etl {__version__}\n", "")


@pytest.mark.parametrize(("longest_s", "code", "said"), [(0, 130, b"error: stopped"), (1_000, 0, b"")])
def test_a_thread_that_reads_on_cannot_hold_the_end_of_a_command(
    longest_s: int, code: int, said: bytes
) -> None:
    """Signals are put off for seconds, in which a traceback would be printed; then one ends the process."""
    command = [sys.executable, "-m", "tests.reading_at_the_end", str(longest_s), "--version"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as ending:
        assert ending.stdin
        assert ending.stdout
        assert ending.stderr
        while ending.stdout.readline() != b"ending\n":
            assert ending.poll() is None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            ending.send_signal(number)
        if code == 0:
            ending.stdin.close()
            assert ending.wait() == code
        assert interrupted(ending) == code
        assert ending.stderr.read().startswith(said)


def test_a_signal_ends_a_command_whose_messages_have_no_reader() -> None:
    command = [sys.executable, "-m", "tests.reading_at_the_end", "0", "--version"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as ending:
        assert ending.stdout
        assert ending.stderr
        while ending.stdout.readline() != b"ending\n":
            assert ending.poll() is None
        ending.stderr.close()
        assert interrupted(ending) == 130


def interrupted(process: subprocess.Popen[bytes]) -> int:
    """Press Ctrl-C until a process ends: just before it waits for a thread, a signal does not wake it."""
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
    return process.returncode


@pytest.mark.parametrize(
    "module", ["laion_etl.command_line", "laion_etl.cli", "laion_etl.cli.score", "laion_etl.cli.score:lost"]
)
def test_ctrl_c_while_a_command_starts_ends_it_in_plain_words(module: str) -> None:
    command = [sys.executable, "-m", "tests.interrupted_start", module, "stage", "score", "--crawl", "C"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (130, "")
    assert one_line_error(done) == "error: stopped; run the same command again to continue"


def test_known_crawls_newest_first(tmp_path: Path) -> None:
    done = laion_etl(tmp_path, "crawl", "list", "--json")
    crawls = json.loads(done.stdout.splitlines()[-1])["crawls"]
    assert len(crawls) > 90
    assert crawls == sorted(crawls, key=lambda crawl: crawl["released"], reverse=True)


def test_a_task_reads_the_last_line(tmp_path: Path) -> None:
    wat = write_wat(tmp_path / "a.wat.gz", [page_record("https://e.org/", [image("a.jpg", "A red car")])])
    done = laion_etl(tmp_path, "stage", "parse", "--crawl", "C", "--partition", "0", wat, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "stage": "parse",
        "crawl": "C",
        "unit": "part-00000",
        "input": 1,
        "kept": 1,
        "dropped": {},
    }
    assert (tmp_path / "data" / "pairs" / "C" / "part-00000.parquet").is_file()


def test_jobs_change_nothing_but_the_time_and_import_no_pandas(tmp_path: Path) -> None:
    """Several in new processes, which write what they import: what tests fork has pandas already."""
    wats = [
        write_wat(
            tmp_path / f"{name}.wat.gz", [page_record(f"https://{name}.org/", [image("a.jpg", "A red car")])]
        )
        for name in ("first", "second", "third")
    ]
    one, two = tmp_path / "1", tmp_path / "2"
    one.mkdir()
    two.mkdir()
    parse = ["stage", "parse", "--crawl", "C", "--partition", "0", *wats, "--json", "--jobs"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LAION_ETL_")}
    new = [sys.executable, "-X", "importtime", "-m", "laion_etl", *parse, "2"]
    by_two = subprocess.run(new, cwd=two, env=environment, capture_output=True, text=True, check=False)
    for done in (laion_etl(one, *parse, "1"), by_two):
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.splitlines()[-1])["kept"] == 3
    name = "data/pairs/C/part-00000.parquet"
    assert (one / name).read_bytes() == (two / name).read_bytes()
    imported = [line.rpartition("|")[2].strip() for line in by_two.stderr.splitlines()]
    assert imported.count("pyarrow") == 3, "the command and its two processes"
    # An import that fails has a line, too: not so what the package would import.
    assert not [name for name in imported if name.startswith("pandas.")]


def test_load_and_plan_use_the_embedded_server(tmp_path: Path) -> None:
    wat = write_wat(tmp_path / "a.wat.gz", [page_record("https://e.org/", [image("a.jpg", "A red car")])])
    for arguments in (
        ("stage", "parse", "--partition", "0", wat),
        ("stage", "load", "--partition", "0"),
        ("stage", "plan", "--prepare"),
    ):
        done = laion_etl(tmp_path, *arguments, "--crawl", "C", "--json")
        assert done.returncode == 0, done.stderr
    planned = json.loads(done.stdout.splitlines()[-1])
    assert (planned["kept"], planned["batches"], planned["ranges"]) == (1, 1, [])
    assert not (tmp_path / "data" / "postgres" / "postmaster.pid").exists()


@pytest.mark.parametrize(
    ("arguments", "settings", "code", "message"),
    [
        (
            ["stage", "load", "--crawl", "C", "--partition", "0"],
            {"STROE": "x"},
            2,
            "did you mean LAION_ETL_STORE",
        ),
        (
            ["stage", "load", "--crawl", "C", "--partition", "0"],
            {"DATABASE_URL": "postgresql://h:1/x"},
            75,
            "LAION_ETL_",
        ),
        (
            ["stage", "parse", "--crawl", "C", "--partition", "0", "no.wat.gz"],
            {},
            1,
            "no.wat.gz: no such file",
        ),
        (
            ["stage", "parse", "--crawl", "C", "--partition", "0", "red\x1b[31m\u202e.wat.gz"],
            {},
            1,
            "red [31m .wat.gz: no such file",  # nothing that controls a terminal
        ),
        (
            ["stage", "score", "--crawl", "C", "--group", "2/2"],
            {},
            1,
            "batches/C/_stats.json: it does not exist",
        ),
        (["stage", "plan", "--crawl", "C", "--range", "0/4"], {}, 2, "invalid --range 0/4; expected I/N"),
        (["stage", "plan", "--crawl", "C", "--range", "١/٢"], {}, 2, "invalid --range ١/٢; expected I/N"),
        (
            ["stage", "score", "--crawl", "C", "--shard", "²"],
            {},
            1,
            "invalid --shard ²; expected a batch number",
        ),
        (["stage", "score", "--crawl", "C"], {"CLIP_DEVICE": "cuda:²"}, 2, "has the wrong form"),
        (["model", "check"], {"CLIP_DEVICE": "cuda:٣"}, 2, "has the wrong form"),
        (["stage", "plan", "--crawl", "C", "--range", "1/2", "--prepare"], {}, 2, "leave one of them out"),
        (
            ["stage", "plan", "--crawl", "C"],
            {},
            1,
            "cannot find C in the database: nothing of it is loaded yet",
        ),
        (["stage", "plan", "--crawl", "C"], {"STORE": "/proc/nowhere"}, 1, "LAION_ETL_STORE"),
        (["crawl", "partitions", "--crawl", "C"], {"CRAWL_SOURCE": "."}, 1, "invalid crawl id 'C'"),
        (
            ["crawl", "partitions", "--crawl", "CC-MAIN-2024-39"],
            {"CRAWL_SOURCE": "."},
            1,
            "did you mean CC-MAIN-2024-3",
        ),
        (["run", "CC-MAIN-2024-38", "--wat-files", "2:1"], {}, 2, "'2:1': the range is empty"),
        (
            ["crawl", "partitions", "--crawl", "CC-MAIN-2024-38"],
            {"CRAWL_SOURCE": "http://127.0.0.1:1"},
            1,
            "the network",
        ),
        (["status", "--crawl", "C"], {"STORE": "s3:///x"}, 1, "write s3://bucket/prefix"),
        (["status", "--crawl", "C"], {"STORE": "~no-such-user/x"}, 1, "there is no such user"),
    ],
)
def test_bad_input_is_one_line_that_says_what_to_do(
    tmp_path: Path, arguments: list[str], settings: dict[str, str], code: int, message: str
) -> None:
    done = laion_etl(tmp_path, *arguments, **settings)
    assert message in one_line_error(done)
    assert done.returncode == code
    recorded = {"postgres", "usage"}  # usage only where the command took a second
    leftovers = [p for p in tmp_path.rglob("*") if p.is_file() and recorded.isdisjoint(p.parts)]
    assert leftovers == []


def test_the_secrets_of_an_address_are_in_no_error(tmp_path: Path) -> None:
    source = "http://me:hidden@127.0.0.1:1/cc?X-Amz-Signature=hidden"
    done = laion_etl(tmp_path, "crawl", "partitions", "--crawl", "CC-MAIN-2024-38", CRAWL_SOURCE=source)
    assert "cannot read http://me:***@127.0.0.1:1/cc?X-Amz-Signature=***" in one_line_error(done)
    assert "hidden" not in done.stdout + done.stderr


def test_a_log_line_controls_no_terminal_and_has_no_secrets() -> None:
    answer = "\x1b[31mred\u202e of s3://me:hidden@host/x?sig=hidden"
    record = logging.LogRecord("laion_etl", logging.WARNING, "", 0, "%s\nnext", (answer,), None)
    assert ShownLines("%(message)s").format(record) == " [31mred  of s3://me:***@host/x?sig=***\nnext"


def test_a_log_line_has_no_line_of_a_private_key() -> None:
    key = "-----BEGIN PRIVATE KEY-----\nhidden\n-----END PRIVATE KEY-----"
    record = logging.LogRecord("laion_etl", logging.WARNING, "", 0, "of\n%s\n it is", (key,), None)
    shown = "of\n-----BEGIN PRIVATE KEY-----***-----END PRIVATE KEY-----\n it is"
    assert ShownLines("%(message)s").format(record) == shown


def test_the_traceback_of_a_bug_has_no_secrets() -> None:
    command = [sys.executable, "-m", "tests.broken_command"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[0] == "Traceback (most recent call last):"
    assert done.stderr.splitlines()[-1] == "KeyError: 'postgresql://me:***@db/laion'"


def test_a_usage_error_is_exit_code_2(tmp_path: Path) -> None:
    done = laion_etl(tmp_path, "stage", "parse", "--crawl", "C")
    assert done.returncode == 2
    assert "--partition" in done.stderr


def test_a_name_may_not_lead_out_of_the_store(tmp_path: Path) -> None:
    done = laion_etl(tmp_path, "stage", "publish", "--crawl", "../../etc")
    assert done.returncode == 2
    assert "invalid name" in done.stderr


def test_an_unreadable_wat_is_named_with_its_offset(tmp_path: Path) -> None:
    path = tmp_path / "cut.wat.gz"
    write_wat(path, [page_record("https://e.org/", [image(f"{n}.jpg", "A red car") for n in range(99)])])
    path.write_bytes(path.read_bytes()[:-40])
    done = laion_etl(tmp_path, "stage", "parse", "--crawl", "C", "--partition", "0", str(path))
    assert done.returncode == 2  # Airflow does not retry it
    assert "cut.wat.gz from byte 0: cut off; fetch it again" in one_line_error(done)
    assert list((tmp_path / "data").rglob("*.parquet*")) == []
