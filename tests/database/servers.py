"""Databases on additional embedded servers, and what a crawl writes to several of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from laion_etl.database.connection import Database, open_database
from laion_etl.database.embedded import EmbeddedServer
from laion_etl.database.servers import range_servers
from laion_etl.io.storage import Store
from laion_etl.settings import CoreSettings, Settings
from tests.database.templates import copied, freeze
from tests.shared_folder import SharedFolder

TEMPLATE = "laion_template"


def further_server(shared: SharedFolder, number: int) -> EmbeddedServer:
    """A server of the run, with a template of our tables."""

    def start(folder: Path) -> EmbeddedServer:
        place = shared.start_server("tests.database.server", folder, "--short-lived")
        server = EmbeddedServer(Path(place))
        with open_database(Settings(core=CoreSettings(database_url=server.url(TEMPLATE)))):
            pass
        freeze(server, TEMPLATE)
        return server

    return shared.once(f"pg{number}", start)


def new_database(server: EmbeddedServer) -> str:
    """URL of a new database with our tables and nothing in them."""
    return copied(server, TEMPLATE, f"test_{uuid4().hex}")


def with_servers(settings: Settings, urls: list[str]) -> Settings:
    """Settings whose key ranges are on these servers."""
    return replace(settings, core=replace(settings.core, database_url="", database_urls=tuple(urls)))


def result(store: Store, database: Database) -> dict[str, Any]:
    """What load and plan write: the queue, the counters of partitions, and every file with its bytes."""
    batches = "select batch, pairs, file, state::text from batch order by 1"
    partitions = """
        select crawl, partition, planned, planning, stats from partition join crawl using (crawl_no)
        order by 1, 2"""
    folders = ("batches", "plan", "ids", "load")
    files = {name: store.read(name) for folder in folders for name in store.list(folder)}
    found = {"batches": database.connection.execute(batches).fetchall()}
    return found | {"partitions": database.connection.execute(partitions).fetchall()} | files


def pairs_by_server(database: Database) -> list[list[Any]]:
    """The pairs of each server, with crawl, partition and page."""
    pairs = """
        select pair_id, crawl, partition, url, caption, language, license, page_url from pair_text
        order by 1"""
    with range_servers(database) as servers:
        return [one.connection.execute(pairs).fetchall() for one in servers.databases]


@contextmanager
def keys_of(database: Database) -> Iterator[list[set[int]]]:
    """The ranges that have pairs or counts, on each server."""
    with range_servers(database) as servers:
        found = []
        for one in servers.databases:
            keys = one.connection.execute("select pair_id from pair").fetchall()
            counts = one.connection.execute("select range_no from partition_range").fetchall()
            of_keys = {number for (key,) in keys for number in servers.ranges.between(key, key)}
            found.append(of_keys | {number for (number,) in counts})
        yield found
