"""Loads the ranges of a partition, on each server those that it has, on all servers at the same time."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from laion_etl.database.connection import Database
from laion_etl.database.range_load import LoadWork, RangeLoad
from laion_etl.database.row_writer import PageWriter
from laion_etl.database.servers import RangeServers
from laion_etl.settings import Settings


@dataclass(frozen=True, slots=True)
class ServersLoad:
    """The load of a version of a partition; `is_new`: no version of it was ever loaded."""

    work: LoadWork
    servers: RangeServers
    is_new: bool
    settings: Settings

    def run(self) -> set[int]:
        """Load the ranges that no version has loaded; return the partitions whose stats have changed."""
        parts = self.servers.by_server(self.servers.ranges.numbers)
        failed = threading.Event()
        with ThreadPoolExecutor(len(parts)) as pool:
            done = [pool.submit(self._load, server, own, len(parts), failed) for server, own in parts]
            try:
                return set().union(*(one.result() for one in done))
            finally:
                failed.set()  # also when this thread is interrupted

    def _load(self, server: Database, own: Sequence[int], servers: int, failed: threading.Event) -> set[int]:
        """Load ranges of one server, with its share of the connections."""
        timeout_s = self.settings.database.bulk_timeout_s
        connections = max(1, self.settings.load.connections // servers)
        changed: set[int] = set()
        where = self.work.me.partition_no, self.work.first_page
        try:
            with server.another() as for_pages:
                _ = for_pages.connection  # too few connections are noticed before there is a transaction
                pages = PageWriter(for_pages, *where, may_exist=not self.is_new, timeout_s=timeout_s)
                while (left := set(own) - server.run(self.work.begun).keys()) and not failed.is_set():
                    load = RangeLoad(self.work, pages, timeout_s, left, failed)
                    changed |= load.run(server, connections)
        except BaseException:
            failed.set()
            raise
        return changed
