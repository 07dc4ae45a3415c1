"""What laion_etl adds to Airflow, as one plugin.

An installed laion_etl registers it by its entry point; in a checkout that is not installed,
plugins/laion_etl_plugin.py does. Airflow would refuse a second plugin of the same name, with a warning.
"""

from typing import Any, cast

from airflow.plugins_manager import AirflowPlugin

import laion_etl.airflow.forms  # noqa: F401 - importing it registers the formats of form fields
from laion_etl.airflow.alerts import RunCreated
from laion_etl.airflow.dashboard import VIEWS, Apps
from laion_etl.airflow.hosts import middlewares
from laion_etl.airflow.timetable import CrawlTimetable


class LaionEtlPlugin(AirflowPlugin):
    """Pages of the dashboard, the check of hosts, and the classes that serialized DAGs name."""

    name = "laion_etl"
    # Lists of classes: Airflow's way.
    deadline_references = [RunCreated]  # noqa: RUF012
    external_views = [*VIEWS]  # noqa: RUF012
    fastapi_apps = cast("list[Any]", Apps())  # Airflow only iterates over it
    fastapi_root_middlewares = middlewares()
    timetables = [CrawlTimetable]  # noqa: RUF012
