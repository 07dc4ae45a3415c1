"""Key ranges on one and two Postgres servers: load by 1, 2 and 4 loaders, plan, and the move to a second.

    python -m benchmarks.servers [--rows 300000] [--rounds 3]

Each server is an embedded one with its own files; all of them, and the loaders, share the cores of this
machine. So the rates do not show what two machines would do: compare the processor seconds, which are what
several servers cost. Loads are four partitions of synthetic pairs into empty tables, as in
`benchmarks.database --only loaders`. Figures go to RESULTS.md by hand.
"""

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from uuid import uuid4

from benchmarks.database import CRAWL, load_one, pairs_file, server_cpu_seconds
from laion_etl.database.connection import Database, open_database
from laion_etl.database.embedded import EmbeddedServer, running_server
from laion_etl.database.move_ranges import move_ranges
from laion_etl.database.servers import range_servers
from laion_etl.io.storage import LocalStore, Store
from laion_etl.plan.stage import plan_batches
from laion_etl.settings import CoreSettings, Settings

_LOADERS = (1, 2, 4)
_PARTITIONS = 4
_WARM_UP = -1


class Bench:
    """Servers, each in a folder of its own, and a store with four partitions."""

    def __init__(self, folder: Path, servers: Sequence[EmbeddedServer], rows: int) -> None:
        self.folder = folder
        self.servers = servers
        self.rows = rows * _PARTITIONS
        self.store: Store = LocalStore(folder / "store")
        for number in range(_PARTITIONS):
            pairs_file(self.store, number, rows)

    def settings(self, servers: int) -> Settings:
        """Settings with new databases on the first servers."""
        name = f"bench_{uuid4().hex}"
        urls = tuple(server.url(name) for server in self.servers[:servers])
        return Settings(core=CoreSettings(data_dir=str(self.folder), database_urls=urls))

    def cpu_seconds(self) -> float:
        """Processor seconds of all servers since they started."""
        return sum(server_cpu_seconds(self.folder / str(number)) for number in range(len(self.servers)))

    def load(self, settings: Settings, loaders: int) -> tuple[float, float, float]:
        """Load all partitions; return seconds, and CPU seconds of the loaders and the servers."""
        with open_database(settings) as database, range_servers(database):
            pass
        with ProcessPoolExecutor(loaders, multiprocessing.get_context("spawn")) as pool:
            one = partial(load_one, settings, self.folder)
            list(pool.map(one, [_WARM_UP] * loaders))
            began, server = time.perf_counter(), self.cpu_seconds()
            client = sum(pool.map(one, range(_PARTITIONS)))
            return time.perf_counter() - began, client, self.cpu_seconds() - server

    def measured(self, action: Callable[[], object]) -> tuple[float, float, float]:
        """The same for an action of this process."""
        began, client, server = time.perf_counter(), time.process_time(), self.cpu_seconds()
        action()
        return time.perf_counter() - began, time.process_time() - client, self.cpu_seconds() - server

    def show(self, what: str, figures: Sequence[tuple[float, float, float]], rows: int) -> None:
        """Print the medians, and the CPU seconds for a million rows."""
        seconds, client, server = (statistics.median(column) for column in zip(*figures, strict=True))
        print(
            f"{what:28} {rows / seconds:9,.0f} rows/s; CPU s a million rows: "
            f"{client / rows * 1e6:5.2f} client, {server / rows * 1e6:5.2f} servers",
            flush=True,
        )


def run(bench: Bench, rounds: int) -> None:
    """Print all figures."""
    for loaders in _LOADERS:
        figures: dict[int, list[tuple[float, float, float]]] = {1: [], 2: []}
        for _ in range(rounds):
            for servers, found in figures.items():  # in turn, as the speed of a machine drifts
                found.append(bench.load(bench.settings(servers), loaders))
        for servers, found in figures.items():
            bench.show(f"load, {loaders} loaders, {servers} servers", found, bench.rows)
    for servers in (1, 2):
        settings = bench.settings(servers)
        bench.load(settings, 1)
        with open_database(settings) as database:
            found = [bench.measured(lambda: plan_batches(CRAWL, settings, bench.store, database))]  # noqa: B023
        bench.show(f"plan, {servers} servers", found, bench.rows)
    one, two = bench.settings(1), bench.settings(2)
    bench.load(one, 1)
    urls = (one.core.server_urls[0], two.core.server_urls[1])
    with open_database(replace(one, core=replace(one.core, database_urls=urls))) as database:
        moved: list[int] = []
        found = [bench.measured(lambda: moved.extend(_moved(database)))]
    bench.show("move from one to two", found, sum(moved))


def _moved(database: Database) -> list[int]:
    return [one.pairs for one in move_ranges(database)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=300_000, help="pairs of a partition")
    parser.add_argument("--rounds", type=int, default=3, help="how often each load is measured")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="laion-bench-", dir="/tmp") as place, ExitStack() as stack:
        folder = Path(place)
        servers = []
        for number in range(2):
            with running_server(folder / str(number)):
                pass  # its settings take effect at the next start
            servers.append(stack.enter_context(running_server(folder / str(number))))
        print(f"load of the machine before: {os.getloadavg()[0]:.1f}, cores: {os.cpu_count()}", flush=True)
        run(Bench(folder, servers, arguments.rows), arguments.rounds)
        print(f"load of the machine after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
