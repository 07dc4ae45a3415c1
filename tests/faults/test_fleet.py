"""Workers of both kinds on one queue, killed, frozen, raced and added at random moments: the same bytes.

The normal suite disturbs them a few times; `FLEET_DISTURBANCES=100 pytest tests/faults/test_fleet.py` more
often, over as many rounds of the crawl as that takes.
"""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from laion_etl.database.embedded import EmbeddedServer
from laion_etl.minicrawl.build import MiniCrawl
from laion_etl.minicrawl.web import MiniWeb
from tests.forks import Fork
from tests.preloaded_commands import command_server, completed
from tests.runs import WAT_FILES, files, finish_run, run_environment
from tests.shared_folder import SharedFolder

pytestmark = pytest.mark.slow

DISTURBANCES = int(os.environ.get("FLEET_DISTURBANCES", "6"))
LIMIT_S = 600
MOST = 3  # workers of a kind
RESET = (
    "update batch set state = 'ready', stats = null, score_stats = null, attempts = 0, outages = 0, "
    "lease_owner = null, race_owner = null, race_expires = null, token = greatest(token, race_token) + 1"
)
# Idle workers race those that have a batch now: these have had theirs for an hour.
AGE = (
    "update batch set claimed_at = claimed_at - interval '1 hour', race_began = null "
    "where state in ('downloading', 'scoring')"
)


@dataclass
class Fleet:
    """Workers of both kinds, and what happened to them."""

    start: Callable[[str], Fork]
    db: psycopg.Connection
    chance: random.Random = field(default_factory=lambda: random.Random(24))
    workers: dict[str, list[Fork]] = field(default_factory=lambda: {"download": [], "score": []})
    frozen: list[Fork] = field(default_factory=list)
    happened: list[str] = field(default_factory=list)

    def alive(self, kind: str) -> list[Fork]:
        return [fork for fork in self.workers[kind] if fork.poll() is None]

    def at_work(self, kind: str) -> list[Fork]:
        return [fork for fork in self.alive(kind) if fork not in self.frozen]

    def left(self, *states: str) -> bool:
        """Whether a batch is in one of these states; by default one that is not the last."""
        asked = [list(states or ("ready", "downloading", "downloaded", "scoring"))]
        rows = self.db.execute("select exists (select from batch where state::text = any (%s))", asked)
        return bool((rows.fetchone() or (False,))[0])

    def claims(self) -> int:
        return int((self.db.execute("select sum(token) from batch").fetchone() or (0,))[0])

    def keep_at_work(self) -> None:
        for kind in self.workers:
            if not self.at_work(kind) and (kind == "score" or self.left("ready", "downloading")):
                self.workers[kind].append(self.start(kind))

    def disturb(self) -> None:
        kind = self.chance.choice(sorted(self.workers))
        victims = self.at_work(kind)
        what = self.chance.choice(("kill", "kill", "freeze", "thaw", "add", "age"))
        if what == "age":
            self.db.execute(AGE)
        elif what == "add" and len(self.alive(kind)) < MOST:
            self.workers[kind].append(self.start(kind))
        elif what == "thaw" and self.frozen:
            self.frozen.pop(self.chance.randrange(len(self.frozen))).send_signal(signal.SIGCONT)
        elif what == "freeze" and victims and len(self.frozen) < 2:
            self.frozen.append(self.chance.choice(victims))
            self.frozen[-1].send_signal(signal.SIGSTOP)
        elif victims:
            what = "kill"
            self.chance.choice(victims).kill()
        else:
            return
        self.happened.append(f"{what} {kind}")

    def until_a_claim(self) -> None:
        """Wait until a batch changes hands, or nothing is left."""
        before, end = self.claims(), time.monotonic() + LIMIT_S
        while self.claims() == before and self.left():
            self.keep_at_work()
            assert time.monotonic() < end, self.happened
            time.sleep(0.02)

    def finish(self) -> None:
        """Let all that are alive go on until they end."""
        for fork in self.frozen:
            fork.send_signal(signal.SIGCONT)
        self.frozen.clear()
        end = time.monotonic() + LIMIT_S
        while self.left():
            self.keep_at_work()
            assert time.monotonic() < end, self.happened
            time.sleep(0.05)
        for fork in (*self.workers["download"], *self.workers["score"]):
            assert fork.wait(LIMIT_S) in {0, -signal.SIGKILL}, fork.args

    def end(self) -> None:
        for fork in (*self.workers["download"], *self.workers["score"]):
            with suppress(ProcessLookupError):
                fork.kill()


@contextmanager
def fleet(env: dict[str, str], folder: Path, crawl: str) -> Iterator[Fleet]:
    server = command_server(SharedFolder.of_this_run(), env)
    with (folder / "workers.log").open("wb") as log:

        def start(stage: str) -> Fork:
            command = ["-m", "laion_etl", "stage", stage, "--crawl", crawl]
            return Fork(server, command, env, folder, (log.fileno(), log.fileno()))

        with psycopg.connect(env["LAION_ETL_DATABASE_URL"], autocommit=True) as db:
            found = Fleet(start, db)
            try:
                yield found
            finally:
                found.end()


def test_workers_killed_frozen_and_added_at_random_leave_the_same_bytes(
    tmp_path: Path, postgres: EmbeddedServer, miniweb: MiniWeb, minicrawl: MiniCrawl, undisturbed_run: Path
) -> None:
    store, crawl = tmp_path / "store", minicrawl.crawl
    url = postgres.url(f"fleet_{os.getpid()}")
    env = run_environment(store, url, str(minicrawl.folder), miniweb.connect_to) | {
        "LAION_ETL_DOWNLOAD_MAX_ATTEMPTS": "1000",
        "LAION_ETL_DATABASE_IDLE_TIMEOUT_S": "3",  # of one that is frozen in a transaction
    }
    for partition in ("0", "1"):
        of = ["--crawl", crawl, "--partition", partition]
        for stage in (["parse", *of, "--wat-files", WAT_FILES], ["load", *of]):
            assert completed(["-m", "laion_etl", "stage", *stage], env, tmp_path).returncode == 0
    assert completed(["-m", "laion_etl", "stage", "plan", "--crawl", crawl], env, tmp_path).returncode == 0
    expected = files(undisturbed_run)
    with fleet(env, tmp_path, crawl) as workers:
        while True:
            while len(workers.happened) < DISTURBANCES and workers.left():
                workers.until_a_claim()
                workers.disturb()
            workers.finish()
            assert workers.db.execute("select distinct state::text from batch").fetchall() == [("scored",)]
            found = files(store)
            for part in ("shards/", "scored/", "score/"):
                wanted = {name: data for name, data in expected.items() if name.startswith(part)}
                made = {name: data for name, data in found.items() if name.startswith(part)}
                assert sorted(made) == sorted(wanted), workers.happened
                assert [name for name in wanted if made[name] != wanted[name]] == [], workers.happened
            raced = workers.db.execute("select count(race_token), count(*) from batch").fetchone()
            if len(workers.happened) >= DISTURBANCES:
                break
            for part in ("shards", "scored", "score"):
                shutil.rmtree(store / part)
            workers.db.execute(RESET)
    finish_run(crawl, env)
    found = files(store)
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    print(f"{len(workers.happened)} disturbances, batches raced: {raced}: {workers.happened}")
