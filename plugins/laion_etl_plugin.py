"""Registers what laion_etl.airflow adds to Airflow."""

from laion_etl.airflow.alerts import LaionAlertsPlugin
from laion_etl.airflow.dashboard import LaionDashboardPlugin
from laion_etl.airflow.forms import LaionFormsPlugin
from laion_etl.airflow.hosts import LaionHostsPlugin
from laion_etl.airflow.timetable import LaionTimetablePlugin

__all__ = [
    "LaionAlertsPlugin",
    "LaionDashboardPlugin",
    "LaionFormsPlugin",
    "LaionHostsPlugin",
    "LaionTimetablePlugin",
]
