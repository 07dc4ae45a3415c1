"""What a whole crawl costs, from a simulated one at two sizes a factor of ten apart.

    python -m benchmarks.crawl_size --share 0.0001 0.001 --record

A crawl has 90,000 WAT files, 3 billion pairs and 300,000 batches; a share of 0.001 is 90 WAT files, 3 million
pairs and 300 batches. Every stage that works on all of a crawl runs by its command, on a real Postgres and an
S3 server that answers after 20 to 60 ms: load, plan, publish, verify, status, dashboard, removal and forget.
Parse, download and score are replaced by files like theirs (`made_crawl.py`).

Each stage is measured at each size. A stage whose cost per unit grows with the number of units could not do
a whole crawl, so the cost per unit at the larger size, of that at the smaller one, is what counts: 1 is
proportional, and the start of processes makes it less. The rest is arithmetic: hours of a whole crawl by
stage, with so many pods.

`--thin 10` gives batches and WAT files a tenth of their pairs: as many units for a tenth of the rows. Then
the smaller size is measured with all its rows as well, which says what rows cost. `--minutes` ends a run that
would take longer: what does not fit is left out, by name. `--record` keeps what an earlier run has recorded
and this one does not measure: sizes, crawls one after the other (`--share --crawls 10`), Airflow.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import crawl_size_report as report
from benchmarks.crawl_rig import Cost, Rig, rig
from benchmarks.crawl_size_plot import plot
from benchmarks.crawl_stages import STAGES, Size, Stage
from benchmarks.crawl_work import complete_batches, make_pairs, make_shards, removal_list
from benchmarks.made_crawl import Made
from laion_etl.core.host_resources import usable_cores

_CRAWLS_S = 30.0  # what two small ones take
_AIRFLOW_S = 150.0  # what its start and 64 tasks take
_MARGIN = 1.3  # of what a stage is expected to take
_MADE_BEFORE = "publish"  # batches are downloaded and scored between plan and this stage


@dataclass(slots=True)
class Run:
    """The measurements of one size."""

    size: Size
    batches: int = 0
    pairs: int = 0
    parts: dict[str, dict[str, Cost]] = field(default_factory=dict)  # stage -> part -> cost
    left_out: list[str] = field(default_factory=list)

    def seconds(self, stage: str) -> float:
        """Seconds of a stage."""
        return sum(cost.seconds for cost in self.parts.get(stage, {}).values())

    def to_plain(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(slots=True)
class Budget:
    """Minutes for everything; None: any number."""

    minutes: float | None
    began: float = field(default_factory=time.monotonic)

    def has(self, seconds: float) -> bool:
        """Whether there is enough left."""
        return self.minutes is None or time.monotonic() - self.began + seconds < self.minutes * 60


def say(text: str) -> None:
    """Print progress on stderr."""
    print(f"{datetime.now(UTC):%H:%M:%S} {text}", file=sys.stderr, flush=True)


def stage_costs(
    running: Rig, stage: Stage, made: Made, at_once: int, more: dict[str, str]
) -> dict[str, Cost]:
    """Run a stage; returns the cost of each part, none if this version does not have it."""
    if stage.call is not None:
        cost, _ = running.measured(partial(stage.call, running, made))
        return {"whole": cost}
    costs: dict[str, Cost] = {}
    ranges: list[str] = []
    words = dict(more)
    for number, part in enumerate(stage.steps):
        if number and not ranges:
            break  # the first has done everything
        commands = part.commands(made, ranges, words)
        cost, done = running.measured(partial(running.run, commands, at_once))
        costs[part.name] = cost
        if not number:
            printed = done[0].result
            ranges = [str(one) for one in printed.get("ranges", ())]
            words |= {name: value for name, value in printed.items() if isinstance(value, str)}
        elif not part.each:
            ranges = [str(one) for one in done[0].result.get("ranges", ranges)]
    return costs


def measured_size(
    size: Size, folder: Path, chosen: argparse.Namespace, budget: Budget, before: Run | None
) -> Run:
    """Make a crawl and run every stage on it."""
    run, made = Run(size), size.made()
    growth = size.share / before.size.share if before else 0.0
    with rig(folder, chosen.delay_ms) as running:
        running.env |= size.settings
        say(f"{size.name}: making {made.wat_files:,} WAT files of {made.pairs_per_wat_file:,} pairs")
        run.pairs = make_pairs(running, made, chosen.processes)
        more: dict[str, str] = {}
        for stage in STAGES:
            if stage.name == _MADE_BEFORE:
                say(f"{size.name}: making the shards of {run.batches:,} batches")
                complete_batches(running, made, make_shards(running, made, chosen.processes))
                more["removals"] = str(removal_list(running, made))
            expected = before.seconds(stage.name) * growth * _MARGIN if before else 0.0
            if not budget.has(expected):
                say(f"{size.name}: {stage.name} is left out, it would take {expected:,.0f} s")
                run.left_out.append(stage.name)
                if stage.name in ("load", "plan"):
                    break
                continue
            costs = stage_costs(running, stage, made, chosen.processes, more)
            if not costs:
                continue
            run.parts[stage.name] = costs
            if stage.name == "plan":
                run.batches = count_batches(running, made)
            for part, cost in costs.items():
                say(
                    f"{size.name}: {stage.name} {part}: {cost.seconds:.1f} s, {cost.cpu_s:.1f} CPU s, "
                    f"{cost.requests:,} requests, {cost.rss_bytes / 2**20:,.0f} MiB"
                )
    return run


def count_batches(running: Rig, made: Made) -> int:
    """The batches of a crawl in the store."""
    return len(list((running.store / "batches" / made.crawl).glob("*.parquet")))


def several_crawls(
    size: Size, folder: Path, chosen: argparse.Namespace, budget: Budget
) -> list[dict[str, Any]]:
    """Load and plan one crawl after the other into the same database and store."""
    rows: list[dict[str, Any]] = []
    with rig(folder, chosen.delay_ms) as running:
        running.env |= size.settings
        for number in range(chosen.crawls):
            if rows and not budget.has(_MARGIN * (rows[-1]["load"]["seconds"] + rows[-1]["plan"]["seconds"])):
                say(f"crawls from number {number + 1} on are left out")
                break
            made = size.made(number)
            pairs = make_pairs(running, made, chosen.processes)
            row: dict[str, Any] = {"crawl": number + 1, "pairs": pairs}
            for stage in STAGES[:2]:
                costs = stage_costs(running, stage, made, chosen.processes, {})
                row[stage.name] = report.added(costs.values())
            rows.append(row)
            say(f"crawl {number + 1}: load {row['load']['cpu_s']:.1f}, plan {row['plan']['cpu_s']:.1f} CPU s")
    return rows


def mapped_tasks(folder: Path, tasks: int) -> dict[str, float]:
    """Airflow's own time of a stage with so many mapped tasks."""
    from benchmarks import airflow

    with airflow.rig(folder) as running:
        found = airflow.mapped_tasks(running, tasks)
    return {"tasks": tasks, "seconds": tasks / found["tasks a second"], **found}


@contextmanager
def workplace(parent: Path | None) -> Iterator[Path]:
    """A folder that is deleted at the end."""
    folder = Path(tempfile.mkdtemp(prefix="laion-size-", dir=parent))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def measure(chosen: argparse.Namespace, keep: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Measure all that was asked for; `keep` gets the figures again and again, lest an error loses them."""
    budget = Budget(chosen.minutes)
    shares = sorted(chosen.share)
    others = [share for share in shares if chosen.thin > 1 or share > shares[0]]
    runs: list[Run] = []
    document: dict[str, Any] = {}
    for size in [*map(Size, shares[:1]), *(Size(share, chosen.thin) for share in others)]:
        document.setdefault("sizes", about(chosen) | {"runs": []})
        same = [run for run in runs if run.size.thin == size.thin]
        with workplace(chosen.folder) as folder:
            runs.append(measured_size(size, folder, chosen, budget, same[-1] if same else None))
        document["sizes"]["runs"].append(runs[-1].to_plain())
        keep(document)
    if chosen.crawls > 1 and budget.has(_CRAWLS_S):
        size = Size(chosen.crawls_share)
        with workplace(chosen.folder) as folder:
            rows = several_crawls(size, folder, chosen, budget)
        document["crawls"] = about(chosen) | {"share": size.share, "rows": rows}
        keep(document)
    if chosen.airflow and budget.has(_AIRFLOW_S):
        say(f"Airflow: {chosen.airflow} mapped tasks")
        try:
            with workplace(None) as folder:
                document["airflow"] = about(chosen) | mapped_tasks(folder, chosen.airflow)
        except SystemExit as error:  # on a machine without CPU to spare tasks fail by timeouts
            say(f"Airflow is left out: {error}")
        keep(document)
    return document


def about(chosen: argparse.Namespace) -> dict[str, Any]:
    """When and on what something was measured."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "cores": usable_cores(),
        "load": round(os.getloadavg()[0], 1),
        "delay_ms": list(chosen.delay_ms),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--share", type=float, nargs="*", default=[0.0001, 0.001], help="of a crawl")
    parser.add_argument("--thin", type=int, choices=(1, 2, 5, 10, 20, 50, 100), default=1, help="default: 1")
    parser.add_argument("--minutes", type=float, help="leave out what would take longer; to record: 14")
    parser.add_argument("--processes", type=int, default=2, help="of a divided step at the same time")
    parser.add_argument("--crawls", type=int, default=10, help="in one database, at most 12; 0: none")
    parser.add_argument("--crawls-share", type=float, default=0.0001, help="size of each of them")
    parser.add_argument("--airflow", type=int, default=64, help="mapped tasks of a real Airflow; 0: none")
    parser.add_argument("--delay-ms", type=float, nargs=2, default=(20.0, 60.0), help="of an S3 request")
    parser.add_argument("--folder", type=Path, help="where to work; a share of 0.01 takes 25 GB")
    parser.add_argument(
        "--record", action="store_true", help="write JSON, plot and tables of docs/scaling.md"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    chosen = parser.parse_args()
    chosen.minutes = chosen.minutes or (14.0 if chosen.record else None)

    def keep(document: dict[str, Any]) -> None:
        if chosen.json:
            chosen.json.write_text(json.dumps(document, indent=1) + "\n")
        if chosen.record:
            known = report.recorded() | document
            report.record(known, plot(known))

    report.show(measure(chosen, keep))


if __name__ == "__main__":
    main()
