"""How much work the queue of a crawl has for the workers of a consumer (sql/queries/fleet.sql)."""

from psycopg import sql

from laion_etl.core.consumers import Consumer, QueueState
from laion_etl.database.connection import Database
from laion_etl.database.queries import query


def queue_state(crawl: str, consumer: Consumer, database: Database) -> QueueState:
    """Return the state of a crawl's queue. Raises DatabaseError."""
    (row,) = database.rows(f"fleet.state_{consumer}", {"crawl": crawl})
    return QueueState(*row)


def scaling_query(crawl: str, consumer: Consumer) -> str:
    """Return the statement that KEDA runs to learn how many workers a crawl's queue needs: one integer."""
    lines = query(f"fleet.open_{consumer}").splitlines()
    statement = " ".join(" ".join(line for line in lines if not line.startswith("--")).split())
    return statement.replace("%(crawl)s", sql.Literal(crawl).as_string(None))
