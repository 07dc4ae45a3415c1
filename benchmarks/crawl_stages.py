"""The stages of a simulated crawl: their commands, how each is divided among processes, and the sizes.

A stage that is divided has one list of parts: prepare, its ranges side by side, finish. Where this version of
a command cannot be divided, its work is one process; where it does not exist, it is left out.
"""

import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from benchmarks.crawl_rig import Process, Rig
from benchmarks.crawl_work import dashboard_pages
from benchmarks.made_crawl import PAIRS_PER_WAT_FILE, Made
from laion_etl.settings.registry import setting_fields

WAT_FILES = 90_000
BATCHES = 300_000
RANGES = 8  # of a divided stage at every size, so that starting processes is part of the fixed cost
_ROWS_OF_BATCH, _ROWS_OF_WINDOW, _ROWS_OF_FILE, _ROWS_OF_HOST = 10_000, 1_000_000, 1_000_000, 1_000
_CRAWLS = [f"CC-MAIN-2026-{week:02d}" for week in range(4, 52, 4)]


def is_setting(name: str) -> bool:
    """Whether this version has a setting."""
    return name in {field.variable for field in setting_fields()}


@dataclass(frozen=True, slots=True)
class Size:
    """How much of a crawl is simulated; batches and WAT files have 1/thin of their pairs."""

    share: float
    thin: int = 1

    @property
    def name(self) -> str:
        """The name in tables."""
        return f"{self.share:g}" + (f", thin {self.thin}" if self.thin > 1 else "")

    def made(self, number: int = 0) -> Made:
        """The crawl with this number."""
        files = max(1, round(self.share * WAT_FILES))
        return Made(_CRAWLS[number], number, files, PAIRS_PER_WAT_FILE // self.thin)

    @property
    def settings(self) -> dict[str, str]:
        """Settings that shrink with the rows: there are as many windows and files as with all rows."""
        return {
            "LAION_ETL_PLAN_BATCH_SIZE": str(_ROWS_OF_BATCH // self.thin),
            "LAION_ETL_PLAN_MAX_PAIRS_PER_HOST": str(_ROWS_OF_HOST // self.thin),
            "LAION_ETL_PLAN_WINDOW_PAIRS": str(_ROWS_OF_WINDOW // self.thin),
            "LAION_ETL_PUBLISH_ROWS_PER_FILE": str(_ROWS_OF_FILE // self.thin),
            **{name: value for name, value in self._ranges().items() if is_setting(name)},
        }

    def _ranges(self) -> dict[str, str]:
        """Settings that divide stages into ranges; a planned range has at least a window."""
        batches = math.ceil(self.share * BATCHES)
        return {
            "LAION_ETL_PUBLISH_BATCHES_PER_RANGE": str(-(-batches // RANGES)),
            "LAION_ETL_AIRFLOW_PLAN_RANGES": str(RANGES),
        }


@dataclass(frozen=True, slots=True)
class Part:
    """A step of a stage: one process, or one for each partition or range, which may be spread over pods."""

    command: str
    name: str = "whole"
    each: str = ""  # partition, range

    def commands(self, made: Made, ranges: Sequence[str], more: dict[str, str]) -> list[list[str]]:
        """Argument lists of its processes."""
        words = {"crawl": made.crawl, "partitions": f"0-{made.partitions[-1]}", **more}
        if self.each == "partition":
            return [self.command.format(**words, partition=number).split() for number in made.partitions]
        if self.each == "range":
            return [self.command.format(**words, range=one).split() for one in ranges]
        return [self.command.format(**words).split()]


@dataclass(frozen=True, slots=True)
class Stage:
    """How a stage is divided among processes: by `ranges` where its command has `--prepare`, or `parts`.

    What the first part prints fills the placeholders of the others; ranges are those printed last.
    """

    name: str
    parts: tuple[Part, ...] = ()
    ranges: tuple[Part, ...] = ()
    call: Callable[[Rig, Made], list[Process]] | None = None

    @property
    def steps(self) -> tuple[Part, ...]:
        """The parts that this version of the command has, none if it does not know the command."""
        if not self.parts:
            return ()
        words = self.parts[0].command.split(" --")[0]
        help_text = help_of(words)
        return self.ranges if self.ranges and "--prepare" in help_text else self.parts if help_text else ()


@cache
def help_of(command: str) -> str:
    """The help of a command, empty if this version does not have it."""
    asked = [sys.executable, "-m", "laion_etl", *command.split(), "--help"]
    return subprocess.run(asked, check=False, capture_output=True, text=True).stdout


_PLAN = "stage plan --crawl {crawl} --json"
_PUBLISH = "stage publish --crawl {crawl} --expect {partitions} --json"
_LOCATE = "dataset locate --crawl {crawl} --json"
_LOAD = "stage load --crawl {crawl} --partition {partition} --json"
STAGES = (
    Stage("load", (Part(_LOAD, "partitions", "partition"),)),
    Stage(
        "plan",
        (Part(_PLAN),),
        (Part(f"{_PLAN} --prepare", "prepare"), Part(_PLAN + " --range {range}", "ranges", "range")),
    ),
    Stage(
        "publish",
        (Part(_PUBLISH),),
        (
            Part(f"{_PUBLISH} --prepare", "prepare"),
            Part(_PUBLISH + " --range {range}", "ranges", "range"),
            Part(f"{_PUBLISH} --finish", "finish"),
        ),
    ),
    Stage("verify", (Part("dataset verify --json"),)),
    Stage("status", (Part("status --crawl {crawl} --json"),)),
    Stage("dashboard", call=dashboard_pages),
    Stage(
        "locate",
        (Part(_LOCATE),),
        (Part(f"{_LOCATE} --prepare", "prepare"), Part(_LOCATE + " --range {range}", "ranges", "range")),
    ),
    Stage(
        "removal",
        (Part("dataset remove --list {removals} --json"),),
        (
            Part("dataset remove --list {removals} --prepare --json", "prepare"),
            Part("dataset remove --request {id} --range {range} --json", "ranges", "range"),
            Part("dataset republish --request {id} --prepare --json", "prepare publish"),
            Part("dataset republish --request {id} --range {range} --json", "publish ranges", "range"),
            Part("dataset remove --request {id} --finish --json", "finish"),
        ),
    ),
    Stage("forget", (Part("db forget --crawl {crawl} --json"),)),
)
