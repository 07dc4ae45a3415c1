"""Counters of thousands of batches: what sql/010_progress.sql keeps, moved together now and then.

Progress is the sum of two tables and right at any moment. Programs that change many batches at once call
this, so that the second one stays short; workers do it every so many results.
"""

from laion_etl.database.connection import Database

_MAX_TURNS = 1_000  # others may add rows as fast as they are moved


def roll_up(database: Database) -> None:
    """Move the changes of batches into the counters of their thousands, in short transactions."""
    for _ in range(_MAX_TURNS):
        ((moved,),) = database.rows("queue.roll_up")
        if not moved:
            return
