"""Mapped tasks, and the two between and after them, killed at random moments and run again: the same bytes.

`make kills` kills each task 50 times; the normal run of the tests once. The moments are drawn from a seed.
"""

import os
import random
import shutil
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest

from laion_etl.core.errors import StoreOutageError
from laion_etl.database.connection import open_database
from laion_etl.database.embedded import EmbeddedServer
from laion_etl.database.load import load_partition
from laion_etl.io.storage import Guard, LocalStore, NewFile
from laion_etl.plan.stage import prepare_plan
from laion_etl.publish.compared_ranges import compare_ranges
from laion_etl.publish.ranges import hash_range, publish_range
from laion_etl.publish.stage import prepare_variants, publish_variants
from laion_etl.removal.lists import read_list
from laion_etl.removal.stage import prepare as prepare_removal
from laion_etl.removal.stage import prepare_publications, rewrite_range
from laion_etl.removal.work import Work
from laion_etl.settings import Settings, load_settings
from tests.database.pairs import numbered_pairs, write_pairs
from tests.database.templates import copied, freeze
from tests.preloaded_commands import completed
from tests.publish.test_image_dedupe import with_hashes
from tests.publish.test_joined_samples import write as write_with_embeddings
from tests.publish.world import CRAWL, build_world, write_world

KILLS = int(os.environ.get("KILLS", "1"))  # of each task, at most 50 in one test
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Task:
    """A mapped task, the state before it, and the commands after it that show its results."""

    command: str
    prepare: Callable[[LocalStore, Settings], None]
    after: tuple[str, ...] = ()
    settings: dict[str, str] = field(default_factory=dict)
    database: bool = False


PLAN = {"LAION_ETL_PLAN_BATCH_SIZE": "20", "LAION_ETL_PLAN_WINDOW_PAIRS": "60"}
NEAR = {
    "LAION_ETL_PUBLISH_BATCHES_PER_RANGE": "2",
    "LAION_ETL_PUBLISH_DUPLICATES": "near",
    "LAION_ETL_PUBLISH_VARIANTS": "research,research-safe",
}
JOINED = {"LAION_ETL_PUBLISH_BATCHES_PER_RANGE": "2", "LAION_ETL_PUBLISH_RESHARD": "7"}


def loaded(store: LocalStore, settings: Settings, *, partitions: int) -> None:
    for partition in range(3):
        write_pairs(store, "C", partition, numbered_pairs(partition * 80, partition * 80 + 100))
    with open_database(settings) as database:
        for partition in range(3 - partitions, 3):
            load_partition("C", partition, settings, store, database)


def planned(store: LocalStore, settings: Settings) -> None:
    loaded(store, settings, partitions=3)
    with open_database(settings) as database:
        assert len(prepare_plan("C", settings, store, database).ranges) > 1


def to_be_published(store: LocalStore, settings: Settings, *, steps: int) -> None:
    """A crawl whose images are hashed (step 1) and compared (step 2)."""
    write_world(with_hashes(3), store)
    prepared = prepare_variants(CRAWL, settings, store)
    assert prepared == 2
    for number in (1, 2) if steps else ():
        hash_range(CRAWL, number, 2, settings, store, settings.publish.variants)
    if steps > 1:
        compare_ranges(CRAWL, settings, store, settings.publish.variants)


def to_be_finished(store: LocalStore, settings: Settings) -> None:
    to_be_published(store, settings, steps=2)
    for number in (1, 2):
        publish_range(CRAWL, number, 2, settings, store, settings.publish.variants)


def to_be_joined(store: LocalStore, settings: Settings) -> None:
    write_with_embeddings(build_world(batches=4, samples=12), store)
    assert prepare_variants(CRAWL, settings, store) == 2


def published(store: LocalStore, settings: Settings) -> None:
    write_with_embeddings(build_world(batches=4, samples=12), store)
    publish_variants(CRAWL, settings, store)


class Unwritable(LocalStore):
    """Writes no shards."""

    def create(self, name: str, guard: Guard | None = None) -> AbstractContextManager[NewFile]:
        if name.startswith(("shards/", "scored/")):
            raise StoreOutageError(f"cannot write {name}: the disk is full")
        return super().create(name, guard)


def to_be_removed(store: LocalStore, settings: Settings) -> None:
    """A removal of one range, which would be rewritten at once if that were possible."""
    write_world(build_world(batches=3, samples=10), store)
    publish_variants(CRAWL, settings, store)
    with pytest.raises(StoreOutageError):
        prepare_removal(read_list(b"example.org\nexample.com", "listed"), settings, Unwritable(store.root))


def to_be_republished(store: LocalStore, settings: Settings) -> None:
    """A removal whose files are rewritten; the first of two ranges is copied, the second is read."""
    world = build_world(batches=4, samples=12)
    write_with_embeddings(world, store)
    publish_variants(CRAWL, settings, store)
    request = read_list(world.batches[3][0]["url"].encode(), "listed")
    work = prepare_removal(request, settings, store)
    assert isinstance(work, Work)
    rewrite_range(request.id, 1, work.ranges, settings, store)
    assert prepare_publications(request.id, settings, store).tasks == 2


TASKS = {
    "load": Task(
        "stage load --crawl C --partition 0",
        partial(loaded, partitions=2),
        ("stage plan --crawl C",),
        PLAN,
        database=True,
    ),
    "plan": Task("stage plan --crawl C --range 2/3", planned, ("stage plan --crawl C",), PLAN, database=True),
    "hashes": Task(
        f"stage publish --crawl {CRAWL} --hashes 1/2", partial(to_be_published, steps=0), (), NEAR
    ),
    "compare": Task(f"stage publish --crawl {CRAWL} --compare", partial(to_be_published, steps=1), (), NEAR),
    "publish": Task(
        f"stage publish --crawl {CRAWL} --range 1/2", partial(to_be_published, steps=2), (), NEAR
    ),
    "finish": Task(f"stage publish --crawl {CRAWL} --finish", to_be_finished, (), NEAR),
    "joined": Task(f"stage publish --crawl {CRAWL} --range 1/2", to_be_joined, (), JOINED),
    "verify": Task("dataset verify --range 1/2 --json", published, (), JOINED),
    "index": Task("search index --range 1/2", published, ("search index",), JOINED),
    "remove": Task("dataset remove --request {request} --range 1/1", to_be_removed),
    **{
        f"republish {number}": Task(
            f"dataset republish --request {{request}} --range {number}/2",
            to_be_republished,
            (
                f"dataset republish --request {{request}} --range {3 - number}/2",
                "dataset remove --request {request} --finish",
            ),
            JOINED,
        )
        for number in (1, 2)
    },
}


@dataclass(frozen=True)
class Before:
    """The state before a task, to be copied for each try."""

    task: Task
    store: Path
    template: str
    postgres: EmbeddedServer

    def begin(self, folder: Path) -> "Try":
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.store, folder)
        plain = {key: value for key, value in os.environ.items() if not key.startswith("LAION_ETL_")}
        environment = plain | self.task.settings | {"LAION_ETL_STORE": str(folder)}
        if self.task.database:
            url = copied(self.postgres, self.template, f"try_{uuid4().hex}")
            environment["LAION_ETL_DATABASE_URL"] = url
        [*requests] = (folder / "removals").glob("*.json")
        return Try(environment, folder, requests[0].stem if requests else "")


@dataclass(frozen=True)
class Outcome:
    """What a task printed, and the files when it had ended and when the commands after it had."""

    output: str
    of_task: dict[str, bytes]
    files: dict[str, bytes]


@dataclass(frozen=True)
class Try:
    """One try: its store, and its database, if it has one."""

    environment: dict[str, str]
    store: Path
    request: str

    def kill_at(self, moment: int, command: str) -> bool:
        """Run a command until it is killed at a moment; return False if it ended before."""
        return self._run_counted(moment, command)[0] != 0

    def count_moments(self, command: str) -> tuple[str, int]:
        """Run a command to the end and return its output, and how many moments it has."""
        code, output = self._run_counted(0, command)
        assert code == 0, command
        return output, int(self._moments.read_text())

    def complete(self, command: str) -> str:
        """Run a command to the end and return its output."""
        code, output = self._run("laion_etl", *self._arguments(command))
        assert code == 0, command
        return output

    def outcome(self, task: Task, output: str, undisturbed: Outcome | None = None) -> Outcome:
        """Return the outcome of a task that has printed `output`, once the commands after it have run.

        Where all is in files, and these are those that the `undisturbed` task left, the same commands would
        make the same of them: they are not run.
        """
        of_task = self._files()
        if undisturbed is not None and not task.database and of_task == undisturbed.of_task:
            return Outcome(output, of_task, undisturbed.files)
        for command in task.after:
            self.complete(command)
        return Outcome(output, of_task, self._files())

    @property
    def _moments(self) -> Path:
        return self.store.with_suffix(".moments")

    def _run_counted(self, moment: int, command: str) -> tuple[int, str]:
        counted = (str(self._moments), str(moment), *self._arguments(command))
        return self._run("tests.killed_command", *counted)

    def _arguments(self, command: str) -> list[str]:
        return command.format(request=self.request).split()

    def _run(self, module: str, *arguments: str) -> tuple[int, str]:
        """Return the exit code and standard output."""
        done = completed(["-m", module, *arguments], self.environment, ROOT)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        return done.returncode, done.stdout.replace(str(self.store), "STORE")

    def _files(self) -> dict[str, bytes]:
        """All files but those that say what processes used: that is recorded for each of them."""
        found = (path for path in self.store.rglob("*") if path.is_file())
        files = {str(path.relative_to(self.store)): path.read_bytes() for path in found}
        return {name: data for name, data in files.items() if not name.startswith("usage/")}


@pytest.mark.parametrize("name", TASKS)
def test_a_task_killed_at_any_moment_and_run_again_leaves_the_same_bytes(
    name: str, tmp_path: Path, postgres: EmbeddedServer, migrated_template: str
) -> None:
    before = prepared(TASKS[name], tmp_path, postgres, migrated_template)
    calm, command = before.begin(tmp_path / "calm"), before.task.command
    output, last = calm.count_moments(command)
    expected = calm.outcome(before.task, output)
    killed = 0
    for number in range(KILLS):
        moment = random.Random(f"{name} {number}").randint(1, last)
        disturbed = before.begin(tmp_path / "disturbed")
        killed += disturbed.kill_at(moment, command)
        found = disturbed.outcome(before.task, disturbed.complete(command), expected)
        assert sorted(found.files) == sorted(expected.files), f"killed at {moment} of {last}"
        different = [one for one in found.files if found.files[one] != expected.files[one]]
        assert different == [], f"{moment} of {last}"
        assert found.output == expected.output
    assert killed >= KILLS - KILLS // 10, "nearly all moments come before the end"
    print(f"{name}: killed {killed} times among {last:,} moments")


def prepared(task: Task, folder: Path, postgres: EmbeddedServer, migrated: str) -> Before:
    """Create the state before a task."""
    store, template = folder / "before", ""
    store.mkdir()
    settings = load_settings(task.settings)
    if task.database:
        template = f"before_{uuid4().hex}"
        url = copied(postgres, migrated, template)
        settings = replace(settings, core=replace(settings.core, database_url=url))
    task.prepare(LocalStore(store), settings)
    if task.database:
        freeze(postgres, template)
    return Before(task, store, template, postgres)
