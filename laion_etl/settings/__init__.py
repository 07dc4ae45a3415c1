"""Every knob: its unit, its default and why. Read from LAION_ETL_* and one TOML file.

A knob `field` of group `download` is `LAION_ETL_DOWNLOAD_FIELD` in the environment and
`field = ...` under `[download]` in the TOML file (LAION_ETL_CONFIG, else ./laion_etl.toml);
the knobs of the first group have no group name. The environment wins over the file.
docs/configuration.md is generated from this package.
"""

from laion_etl.settings.curating import ClipSettings, IndexSettings, PublishSettings, SafetySettings
from laion_etl.settings.gathering import DownloadSettings, LoadSettings, ParseSettings, PlanSettings
from laion_etl.settings.groups import Settings, of_stage
from laion_etl.settings.knob import PREFIX
from laion_etl.settings.operating import (
    AirflowSettings,
    AlertSettings,
    CoreSettings,
    DatabaseSettings,
    KubernetesSettings,
)
from laion_etl.settings.reading import Knob, knobs, load_settings

__all__ = [
    "PREFIX",
    "AirflowSettings",
    "AlertSettings",
    "ClipSettings",
    "CoreSettings",
    "DatabaseSettings",
    "DownloadSettings",
    "IndexSettings",
    "Knob",
    "KubernetesSettings",
    "LoadSettings",
    "ParseSettings",
    "PlanSettings",
    "PublishSettings",
    "SafetySettings",
    "Settings",
    "knobs",
    "load_settings",
    "of_stage",
]
