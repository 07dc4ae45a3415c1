"""Knowledge of hosts that the workers of a database share (sql/013_hosts.sql), and their share of each host.

The problem: hosts are thinly spread over batches, so without it each batch asks 6,600 to 9,500 hosts for
robots.txt and tdmrep.json again, and waits for those that are dead; and a host that is in all batches gets
requests from all workers at once. The choice: one query before a batch, and a few statements after it. A
worker never writes back what it has read, because a fact would then confirm itself.

How many requests a second a host gets from all workers is divided by the number of workers that are at work.
Refused: tokens for each host, leased by the batch's query. Pairs are assigned to batches by a hash, so the
hosts for which a limit matters are in every batch anyway, and all workers would write to the same rows to
learn what one number says (RESULTS.md).

Without a database, and while it does not answer, a batch is downloaded as if nothing was known.
"""

import logging
import secrets
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any
from uuid import UUID

from psycopg import Connection

from laion_etl.core.errors import DatabaseError
from laion_etl.core.stage_stats import fingerprint
from laion_etl.database.connection import Database
from laion_etl.database.queries import query
from laion_etl.download import RULES_VERSION
from laion_etl.download.host_facts import FactKind, HostFact
from laion_etl.download.request_url import Origin
from laion_etl.settings import DownloadSettings

_ROWS_PER_STATEMENT = 2_000  # locked together, for some ten milliseconds
_EXPIRED_PER_BATCH = 20_000  # deleted after a batch, twice what it can add

_KINDS = frozenset(FactKind)

# What the answers of hosts depend on. Workers with other values share nothing.
_SCOPE = (
    "user_agent",
    "robots_txt",
    "tdmrep",
    "retries",
    "longest_wait_s",
    "max_redirects",
    "ports",
    "verify_tls",
    "resolve_timeout_s",
    "connect_timeout_s",
    "tls_timeout_s",
    "first_byte_timeout_s",
    "idle_timeout_s",
    "timeout_s",
    "connect_to",
    "allow_networks",
)

_log = logging.getLogger(__name__)


class SharedHosts:
    """The shared knowledge as one worker sees it. `workers`: how many are at work, this one included."""

    def __init__(self, database: Database, settings: DownloadSettings) -> None:
        self.workers = 1
        self._database = database
        self._scope = fingerprint(RULES_VERSION, {name: getattr(settings, name) for name in _SCOPE})
        self._keys = {"worker": secrets.token_hex(16), "lease_s": settings.lease_s}

    def read(self, origins: Iterable[Origin]) -> dict[Origin, HostFact]:
        """Return what is known of origins."""
        asked = {self._key(origin): origin for origin in origins}
        keys = {**self._keys, "origins": list(asked)}

        def work(connection: Connection) -> list[Any]:
            self._beat(connection)
            return connection.execute(query("hosts.read"), keys).fetchall()

        try:
            rows = self._database.run(work)
        except DatabaseError as error:
            _log.warning("cannot read what is known of hosts, all of them are asked: %s", error)
            return {}
        return {
            asked[key]: HostFact(FactKind(kind), bytes(content))
            for key, kind, content in rows
            if kind in _KINDS  # a newer version may have others
        }

    def write(self, facts: Mapping[Origin, HostFact]) -> None:
        """Share what this worker has found out by itself."""
        rows = list(facts.items())
        try:
            for first in range(0, len(rows), _ROWS_PER_STATEMENT):
                part = rows[first : first + _ROWS_PER_STATEMENT]
                keys = {
                    **self._keys,
                    "origins": [self._key(origin) for origin, _ in part],
                    "kinds": [fact.kind.value for _, fact in part],
                    "contents": [fact.content for _, fact in part],
                }
                self._run("hosts.write", keys)
            self._run("hosts.delete_expired", {"most": _EXPIRED_PER_BATCH})
        except DatabaseError as error:
            _log.warning("cannot share what was found out about hosts: %s", error)

    def beat(self, database: Database) -> None:
        """Report that this worker is at work, and count the others. Raises DatabaseError."""
        database.run(self._beat)

    def leave(self) -> None:
        """Report that this worker has ended."""
        try:
            self._run("hosts.leave", self._keys)
        except DatabaseError as error:  # then its row expires
            _log.warning("cannot report the end of this worker: %s", error)

    def _beat(self, connection: Connection) -> None:
        connection.execute(query("hosts.live"), self._keys)
        row = connection.execute(query("hosts.count_live")).fetchone()
        self.workers = max(1, row[0]) if row else 1

    def _run(self, name: str, keys: Mapping[str, Any]) -> None:
        self._database.run(lambda connection: connection.execute(query(name), keys))

    def _key(self, origin: Origin) -> UUID:
        scheme, host, port = origin
        return UUID(bytes=sha256(f"{self._scope} {scheme}://{host}:{port}".encode()).digest()[:16])
