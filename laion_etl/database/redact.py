"""Carries out removal requests in Postgres: a pair loses its URL and caption but keeps its key, so that it
still counts as seen.

Rows without text already exist (imported keys); plan gives them an empty slot in the batch, which is never
fetched.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any
from uuid import UUID

import numpy as np
from psycopg import Connection

from laion_etl.database.connection import Database
from laion_etl.database.dedupe_keys import DedupeRule, as_keys
from laion_etl.database.locks import PLANNERS, HeldLocks, run_locked
from laion_etl.database.queries import query
from laion_etl.database.range_locks import run_with_ranges
from laion_etl.database.servers import RangeServers, range_servers
from laion_etl.settings import Settings

_IDS_AT_ONCE = 10_000
_PURPOSE = "removal of pairs"


def redact_pairs(pair_ids: Iterable[str], settings: Settings, database: Database) -> int:
    """Empties the rows of pairs; returns how many had texts. These stay on disk until the next vacuum.

    `pair_ids`: hexadecimal. Only the owner of the schema may do this. Rows are found by their key, except
    where pairs are deduped by URL: there the whole table is read once per 100,000 ids.
    """
    ids = sorted(pair_ids)
    with range_servers(database) as servers:
        redact = _Redaction(ids, servers, settings.database.bulk_timeout_s).run
        return run_locked(database, [PLANNERS], _PURPOSE, redact)


@dataclass(frozen=True, slots=True)
class _Redaction:
    """The removal of the texts of some pairs, by their hexadecimal ids in order."""

    ids: list[str]
    servers: RangeServers
    timeout_s: float

    def run(self, held: HeldLocks) -> int:
        """Empty their rows; return how many had texts."""
        by_url = self.servers.first.rows("load.rule") == [(DedupeRule.URL,)]
        name = "removal.redact_pairs_of_urls" if by_url else "removal.redact_pairs"
        return sum(
            self._empty(held, server, name, {"ids": part, "first": first, "last": last})
            for part in self._parts()
            for server, first, last in (self.servers.slices() if by_url else self._bounds(part))
        )

    def _parts(self) -> Iterator[list[str]]:
        for start in range(0, len(self.ids), _IDS_AT_ONCE):
            yield self.ids[start : start + _IDS_AT_ONCE]

    def _bounds(self, ids: list[str]) -> Iterator[tuple[Database, UUID, UUID]]:
        """Yield bounds of the key ranges that have some of these ids, ascending, each with its server."""
        keys = as_keys(np.frombuffer(b"".join(map(bytes.fromhex, ids)), np.uint8).reshape(-1, 16))
        for number, (first, end) in enumerate(pairwise(self.servers.ranges.places(keys))):
            if first < end:
                server = self.servers.databases[self.servers.homes[number]]
                yield server, UUID(hex=ids[first]), UUID(hex=ids[end - 1])

    def _empty(self, held: HeldLocks, server: Database, name: str, keys: dict[str, Any]) -> int:
        run = held.run if server is self.servers.first else server.run
        ranges = self.servers.ranges.between(keys["first"], keys["last"])
        work = partial(_execute, name=name, keys=keys)
        return run_with_ranges(server, run, ranges, _PURPOSE, work, self.timeout_s)


def _execute(connection: Connection, name: str, keys: dict[str, object]) -> int:
    return connection.execute(query(name), keys).rowcount
