"""The consumers of the batch queue, and how much work it has. Airflow imports this to parse the DAGs."""

from dataclasses import dataclass
from enum import StrEnum


class Consumer(StrEnum):
    """The stages whose workers claim batches from the queue."""

    DOWNLOAD = "download"
    SCORE = "score"


@dataclass(frozen=True, slots=True)
class QueueState:
    """Batches by what a consumer has done with them; `at_work` are among `open`."""

    open: int
    at_work: int
    finished: int
    parked: int
