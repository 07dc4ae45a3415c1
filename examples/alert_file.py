"""A custom alert channel, named in the settings of Airflow's services as module:factory.

PYTHONPATH=examples LAION_ETL_ALERTS_CHANNELS=alert_file:AlertFile
"""

from pathlib import Path

import laion_etl as le


class AlertFile:
    name = "file"

    def __init__(self, _settings: object) -> None:
        self._path = Path("alerts.log")

    def send(self, alert: le.Alert) -> None:
        with self._path.open("a") as file:
            file.write(f"{alert.text}\n\n")
