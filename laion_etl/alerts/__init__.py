"""Alerts: tasks that failed or are late, runs that are late, and how a run ended.

An alert goes to the log, and by mail and to a webhook where these are set. Every alert is kept in the store
under `alerts/<crawl>/`, which is how the same one is recognized and not sent twice. When one cause strikes
many partitions of a run, only the first alerts are sent; the run's digest counts all of them.
What is broken at the moment is listed under `unresolved/`, which the dashboard reads.

Sending never raises: a callback that reports a failure must not fail of it.
"""

from laion_etl.alerts.alert import Alert, Kind, late_after_s, run_folder, span
from laion_etl.alerts.delivery import deliver, wrapped
from laion_etl.alerts.digest import RunEnd, run_digest
from laion_etl.alerts.unresolved import Unit, resolve, unresolved_names

__all__ = [
    "Alert",
    "Kind",
    "RunEnd",
    "Unit",
    "deliver",
    "late_after_s",
    "resolve",
    "run_digest",
    "run_folder",
    "span",
    "unresolved_names",
    "wrapped",
]
