"""The depth of the queue, as KEDA and the task that waits read it."""

from laion_etl.core.consumers import Consumer, QueueState
from laion_etl.core.stage_stats import StageStats
from laion_etl.database.connection import Database
from laion_etl.database.fleet import queue_state, scaling_query
from laion_etl.database.queue import BatchQueue
from laion_etl.settings import Settings

CRAWL = "it's a crawl"  # quoted in the statement


def depth(database: Database, consumer: Consumer) -> int:
    """The result that KEDA gets: it needs one row with one number."""
    ((number,),) = database.connection.execute(scaling_query(CRAWL, consumer)).fetchall()  # type: ignore[call-overload]
    return int(number)


def test_what_is_ready_or_at_work_needs_workers(settings: Settings, database: Database) -> None:
    database.connection.execute("insert into crawl (crawl) values (%s), ('another')", [CRAWL])
    database.connection.execute(
        "insert into batch (batch, crawl_no, pairs, file) select n, 1 + n / 5, 1, "
        """'{"name": "f", "bytes": 1, "sha256": "0"}' from generate_series(1, 6) n"""
    )
    queue = BatchQueue(database, 1, lease_s=60, max_attempts=1)
    assert (depth(database, Consumer.DOWNLOAD), depth(database, Consumer.SCORE)) == (4, 0)
    first, second, third = (queue.claim() for _ in range(3))
    assert first is not None
    assert second is not None
    assert third is not None
    assert depth(database, Consumer.DOWNLOAD) == 4  # or KEDA would stop workers in mid-batch
    queue.complete(first, StageStats("download", CRAWL, "1", "f", 1, 1))
    queue.fail(second, "broken")
    assert depth(database, Consumer.DOWNLOAD) == 2
    assert queue_state(CRAWL, Consumer.DOWNLOAD, database) == QueueState(2, 1, 1, 1)
    assert queue_state("unknown", Consumer.DOWNLOAD, database) == QueueState(0, 0, 0, 0)
    assert queue_state("unknown", Consumer.SCORE, database) == QueueState(0, 0, 0, 0)
    assert depth(database, Consumer.SCORE) == 1
    # What is not downloaded yet is still to be scored; what failed to download will not be.
    assert queue_state(CRAWL, Consumer.SCORE, database) == QueueState(3, 0, 0, 1)
