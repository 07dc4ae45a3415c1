"""Alerts: failed and late tasks, late runs, and a digest of how a run ended.

An alert goes to the log, and to mail and a webhook if they are configured. Every alert is stored under
`alerts/<crawl>/`, so that the same one is recognised and not sent twice. When one cause hits many partitions
of a run, only the first alerts are sent; the run's digest counts all of them.
Units that are failed or late right now are listed under `unresolved/`, which the dashboard reads.

Sending never raises: an alert must not fail the task it reports.
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
