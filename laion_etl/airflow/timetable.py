"""A crawl as a schedule: one entry, at the crawl's release date, whose partition key is the crawl's id."""

import secrets
from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Any

from airflow.exceptions import InvalidPartitionKeyError
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction, Timetable
from pendulum import DateTime, instance


class CrawlTimetable(Timetable):
    """Never starts a run on its own (building a dataset is a decision); can be triggered and backfilled.

    `crawl_id` is the only partition key, `released` (a day, UTC) its partition date.
    """

    partitioned = True
    # Backfills need this; the scheduler still starts nothing: see next_dagrun_info.
    can_be_scheduled = True

    def __init__(self, crawl_id: str, released: date) -> None:
        self.crawl_id = crawl_id
        self.released = released
        self.description = f"Manually or by backfill; {crawl_id} was released on {released.isoformat()}"

    @property
    def summary(self) -> str:
        """The schedule as shown in the UI."""
        return f"crawl of {self.released.isoformat()}"

    @property
    def partition_date(self) -> DateTime:
        """Midnight UTC of the release day."""
        return instance(datetime(self.released.year, self.released.month, self.released.day, tzinfo=UTC))

    def next_dagrun_info(
        self, *, last_automated_data_interval: DataInterval | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        """None: the scheduler never starts a crawl."""
        del last_automated_data_interval, restriction
        return None

    def iter_partition_dagrun_infos(self, *, earliest: datetime, latest: datetime) -> Iterable[DagRunInfo]:
        """The crawl, if its date lies in the window, both ends included; used by backfills."""
        when = self.partition_date
        if earliest <= when <= latest:
            yield DagRunInfo(
                run_after=when, data_interval=None, partition_date=when, partition_key=self.crawl_id
            )

    def infer_manual_data_interval(self, *, run_after: DateTime) -> DataInterval:
        """For `airflow dags trigger`, which gives every run a logical date."""
        return DataInterval.exact(run_after)

    def generate_run_id(self, *, run_type: Any, run_after: DateTime, **extra: Any) -> str:
        """`backfill__2024-09-16T00:00:00+00:00__CC-MAIN-2024-38__1f3a`: a crawl may be backfilled again."""
        del extra
        suffix = f"{run_after.isoformat()}__{self.crawl_id}__{secrets.token_hex(2)}"
        return str(run_type.generate_run_id(suffix=suffix))

    def serialize(self) -> dict[str, Any]:
        return {"crawl_id": self.crawl_id, "released": self.released.isoformat()}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> "CrawlTimetable":
        return cls(data["crawl_id"], date.fromisoformat(data["released"]))

    def resolve_partition_date(self, partition_key: str | None) -> datetime | None:
        """The release date, also for a run without a key: there is only one partition.

        A backfill of missing runs searches by this date.
        """
        return self.partition_date if partition_key is None else self._decode_partition_date(partition_key)

    def _decode_partition_date(self, partition_key: str) -> datetime:
        if partition_key != self.crawl_id:
            raise InvalidPartitionKeyError(
                f"the partition key of this DAG is {self.crawl_id}, not {partition_key!r}; "
                f"every crawl has its own DAG, crawl_{partition_key}"
            )
        return self.partition_date
