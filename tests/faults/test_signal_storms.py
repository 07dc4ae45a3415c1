"""`laion-etl run` under storms of signals to its whole process group, as a terminal or systemd sends them.

It ends soon and in plain words, leaves no process, and the next run ends with the same bytes.
"""

import os
import random
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg
import pytest

from laion_etl.database.embedded import EmbeddedServer
from laion_etl.minicrawl.build import MiniCrawl
from laion_etl.minicrawl.web import MiniWeb
from tests.faults.test_killed import wait_for
from tests.forks import Fork
from tests.runs import files, finish_run, run_environment, start_run

pytestmark = pytest.mark.slow

LONGEST_S = 240  # for a hang
STOPPED = "stopped; run the same command again to continue"


def test_storms_of_signals_change_nothing(
    tmp_path: Path, postgres: EmbeddedServer, miniweb: MiniWeb, minicrawl: MiniCrawl, undisturbed_run: Path
) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")  # shown when the test fails
    moments = random.Random(seed)
    url = postgres.url(f"storms_{os.getpid()}")
    env = run_environment(tmp_path, url, str(minicrawl.folder), miniweb.connect_to)
    for pattern, signals in (
        ("pairs/*/*.parquet", [signal.SIGTERM]),
        ("shards/*/*.tar", [signal.SIGTERM, signal.SIGHUP]),
        ("scored/*/*.tar", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]),
    ):
        running = start_run(minicrawl.crawl, env)
        wait_for(tmp_path, pattern, running)
        storm(running, signals, moments)
        output = running.finished()
        assert running.returncode == 130, output
        assert STOPPED in output.splitlines()[-1], output
        assert "Traceback" not in output, output
        wait_until_none_is_left(running.pid)
        with psycopg.connect(url) as connection:
            held = connection.execute("select batch, state from batch where lease_owner is not null")
            assert held.fetchall() == []
    finish_run(minicrawl.crawl, env)
    expected, found = files(undisturbed_run), files(tmp_path)
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    assert not [path for path in tmp_path.rglob("*.partial") if "usage" not in path.parts]


def storm(running: Fork, signals: Sequence[signal.Signals], moments: random.Random) -> None:
    """Signals to all processes of the run, at random moments, until it has ended."""
    end = time.monotonic() + LONGEST_S
    while running.poll() is None:
        assert time.monotonic() < end, "it does not end"
        with suppress(ProcessLookupError):
            os.killpg(running.pid, moments.choice(signals))
        time.sleep(moments.random() / 50)


def wait_until_none_is_left(session: int) -> None:
    """One that was starting ends when it finds that its parent has gone."""
    end = time.monotonic() + LONGEST_S
    while left := [one for one in psutil.process_iter() if is_of(one, session)]:
        assert time.monotonic() < end, left
        time.sleep(0.05)


def is_of(process: psutil.Process, session: int) -> bool:
    with suppress(ProcessLookupError, psutil.NoSuchProcess):
        return os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE
    return False
