"""Sets up an empty database as an additional server for key ranges, and records it in the first one.

The additional server is marked first, so that no other list can use it, and then the first one records all in
one transaction. If it is killed in between, run it again with the same list.
"""

from collections.abc import Sequence
from uuid import UUID

from psycopg import Connection

from laion_etl.core.errors import DatabaseError
from laion_etl.database.connection import Database
from laion_etl.database.key_ranges import KeyRanges
from laion_etl.database.locks import HeldLocks, Lock, run_locked
from laion_etl.database.queries import query
from laion_etl.database.range_locks import run_with_ranges

# Held while servers are added.
SERVERS = Lock(6)


def is_new(database: Database) -> bool:
    """Whether nothing was ever loaded into a database."""
    ((has_partitions,),) = database.rows("servers.has_partitions")
    return not has_partitions


def add_servers(database: Database, further: Sequence[Database], from_no: int) -> None:
    """Record the servers from number `from_no` on, of an empty first server: all get their ranges at once.

    Raises DatabaseError for a server that has data, or is part of another list.
    """

    def add(held: HeldLocks) -> None:
        ((first_id, _, _),) = database.rows("servers.this")
        if len(database.rows("servers.recorded")) != from_no:
            return  # another program has done it
        count = 1 + len(further)
        homes = [number % count for number in KeyRanges.of(database).numbers]
        ids = [_claimed(one, number, first_id, homes) for number, one in enumerate(further, 1)]

        def record(connection: Connection) -> None:
            if not _is_empty(connection):
                raise DatabaseError(
                    "cannot divide the key ranges: a loader has begun with one server; stop it, and run "
                    "`laion-etl db move-ranges`"
                )
            record_servers(connection, ids, from_no)
            set_homes(connection, homes)

        numbers = KeyRanges.of(database).numbers
        run_with_ranges(database, held.run, numbers, "set-up of servers", record)

    run_locked(database, [SERVERS], "set-up of servers", add)


def claim_servers(database: Database, further: Sequence[Database], from_no: int) -> list[UUID]:
    """Mark the servers from `from_no` on as those of a first server that has pairs; return their ids.

    They have no range yet.
    """
    ((first_id, _, _),) = database.rows("servers.this")
    homes = [home for _, home, _, _ in database.rows("servers.homes")]
    return [
        _claimed(one, number, first_id, homes) for number, one in enumerate(further, 1) if number >= from_no
    ]


def record_servers(connection: Connection, ids: Sequence[UUID], from_no: int) -> None:
    """Record servers in the first one."""
    for server_no, server_id in enumerate(ids, from_no):
        connection.execute(query("servers.record_server"), {"server_no": server_no, "server_id": server_id})


def set_homes(connection: Connection, homes: Sequence[int]) -> None:
    """Record on a server which one has each range."""
    for range_no, server_no in enumerate(homes):
        keys = {"range_no": range_no, "server_no": server_no, "moving_to": None, "moved_from": None}
        connection.execute(query("servers.set_home"), keys)


def _claimed(server: Database, server_no: int, first_id: UUID, homes: Sequence[int]) -> UUID:
    """Mark a server as number `server_no` of a list; return its id."""

    def claim(connection: Connection) -> UUID:
        free = connection.execute(query("locks.take"), SERVERS.keys).fetchone()
        if free is None or not free[0]:
            raise DatabaseError(
                f"cannot use Postgres at {server.public_name} as server {server_no}: it is the first "
                "server, or another program is setting it up; every server needs a database of its own"
            )
        keys = {"server_no": server_no, "first_id": first_id}
        if _is_empty(connection):
            connection.execute(query("servers.claim"), keys)
        row = connection.execute(query("servers.this")).fetchone()
        if row is None or row[1:] != (server_no, first_id):
            raise DatabaseError(
                f"cannot use Postgres at {server.public_name} as server {server_no}: it has pairs of its "
                "own, or is part of another list of servers; use an empty database"
            )
        ((ranges,),) = connection.execute(query("load.key_ranges")).fetchall()
        if ranges != len(homes):
            raise DatabaseError(
                f"cannot use Postgres at {server.public_name} as server {server_no}: it has {ranges} key "
                f"ranges and the first server has {len(homes)}; use an empty database without a schema"
            )
        if _is_empty(connection):
            set_homes(connection, homes)
        return UUID(str(row[0]))

    return server.run(claim)


def _is_empty(connection: Connection) -> bool:
    return connection.execute(query("servers.has_partitions")).fetchone() == (False,)
