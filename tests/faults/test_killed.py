"""`laion-etl run` as a process that is killed at every stage: run again, it ends with the same bytes."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from laion_etl.database.embedded import EmbeddedServer
from laion_etl.minicrawl.build import MiniCrawl
from laion_etl.minicrawl.web import MiniWeb
from tests.forks import Fork
from tests.runs import files, finish_run, run_command, run_environment, start_run

pytestmark = pytest.mark.slow


def wait_for(folder: Path, pattern: str, running: "Fork | subprocess.Popen[bytes]") -> None:
    """Until a file of this pattern is there; the process must still be running."""
    end = time.monotonic() + 1200
    while not any(folder.glob(pattern)):
        assert running.poll() is None, running.stdout.read() if running.stdout else ""
        assert time.monotonic() < end, f"no {pattern}"
        time.sleep(0.01)


def test_a_run_killed_at_every_stage_ends_with_the_same_bytes(
    tmp_path: Path, postgres: EmbeddedServer, miniweb: MiniWeb, minicrawl: MiniCrawl, undisturbed_run: Path
) -> None:
    url = postgres.url(f"killed_{os.getpid()}")
    killed = run_environment(tmp_path, url, str(minicrawl.folder), miniweb.connect_to)
    for pattern in (
        "pairs/*/part-00000.parquet",
        "load/*/part-00001.json",
        "batches/*/*000001.parquet",
        "shards/*/*000000.tar",
        "scored/*/*000000.tar",  # one that stays: that of a file being written may be missed
        "dataset/laion/*/manifest.json",
    ):
        running = start_run(minicrawl.crawl, killed)
        wait_for(tmp_path, pattern, running)
        others = children_of(running.pid, "laion")  # one scores, others decode
        running.kill()
        for pid in others:
            with suppress(ProcessLookupError):  # they end by themselves when their parent has
                os.kill(pid, signal.SIGKILL)
        running.finished()
    finish_run(minicrawl.crawl, killed)
    expected, found = files(undisturbed_run), files(tmp_path)
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    # A record of what a process used has a name of its own: half of one stays when its process is killed.
    assert not [path for path in tmp_path.rglob("*.partial") if "usage" not in path.parts]


@pytest.mark.parametrize("in_background", [False, True])
def test_sigterm_gives_the_batch_back_at_no_cost(
    tmp_path: Path, postgres: EmbeddedServer, miniweb: MiniWeb, minicrawl: MiniCrawl, in_background: bool
) -> None:
    name = f"terminated_{os.getpid()}_{in_background}"
    env = run_environment(tmp_path, postgres.url(name), miniweb.url, miniweb.connect_to)
    running = start_in_background(minicrawl.crawl, env) if in_background else start_run(minicrawl.crawl, env)
    with psycopg.connect(postgres.url(name), autocommit=True) as db:
        wait_for(tmp_path, "batches/*/_stats.json", running)
        while not db.execute("select 1 from batch where state = 'downloading'").fetchone():
            assert running.poll() is None
            time.sleep(0.01)
        running.terminate()
        assert running.stdout is not None
        with running.stdout:
            output = running.stdout.read().decode()
        assert running.wait() == 130, output
        assert "stopped; run the same command again to continue" in output
        assert "Traceback" not in output, output
        rows = db.execute(
            "select distinct state::text, attempts from batch where state not in ('downloaded', 'scored')"
        ).fetchall()
    assert rows == [("ready", 0)]


def start_in_background(crawl: str, env: dict[str, str]) -> "subprocess.Popen[bytes]":
    """As a shell script has it: with SIGINT ignored, which no fork can have."""
    command = [sys.executable, "-m", "laion_etl", *run_command(crawl)]
    ignoring = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", *command]
    return subprocess.Popen(ignoring, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def test_no_decoder_outlives_a_killed_worker(
    tmp_path: Path, postgres: EmbeddedServer, miniweb: MiniWeb, minicrawl: MiniCrawl
) -> None:
    name = f"orphans_{os.getpid()}"
    env = run_environment(tmp_path, postgres.url(name), miniweb.url, miniweb.connect_to)
    running = start_run(minicrawl.crawl, env)
    end = time.monotonic() + 1200
    while not (children := decoders_of(running.pid)):
        assert running.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)
    running.kill()
    end = time.monotonic() + 1200
    while any(Path(f"/proc/{pid}").exists() and not is_zombie(pid) for pid in children):
        assert time.monotonic() < end
        time.sleep(0.05)


def decoders_of(parent: int) -> list[int]:
    """Decoders of a worker: forks of a process that it has started."""
    return [pid for server in servers_of(parent) for pid in children_of(server, "decoder_process")]


def servers_of(parent: int) -> list[int]:
    return children_of(parent, "decoder_process")


def children_of(parent: int, module: str) -> list[int]:
    """Processes of a module that a process has started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text()
            command = (folder / "cmdline").read_text()
        except OSError:
            continue  # it has ended
        if int(stat.rpartition(")")[2].split()[1]) == parent and module in command:
            found.append(int(folder.name))
    return found


def is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
