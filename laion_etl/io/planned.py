"""What the plan stage leaves in the store for the stages after it."""

from laion_etl.core.schemas import plan_stats_name
from laion_etl.io.storage import Store


def planned_batches(crawl: str, store: Store) -> list[int]:
    """Return the numbers of a crawl's batches, ascending. Raises MissingFileError if it is not planned."""
    return [int(batch) for batch in store.read_stats(plan_stats_name(crawl)).details["batches"]]
