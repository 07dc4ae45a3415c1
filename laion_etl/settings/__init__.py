"""Every setting, declared once: its type, unit, choices, range, secrecy, and which stage's output it changes.

Settings are read from LAION_ETL_* variables and one TOML file. A setting `field` of group `download` is
`LAION_ETL_DOWNLOAD_FIELD` in the environment and `field = ...` under `[download]` in the TOML file
(LAION_ETL_CONFIG, else ./laion_etl.toml); settings of group core have no group name. The environment takes
precedence over the file. All are checked when they are loaded, so a mistake ends a command before any work
(exit code 2). docs/configuration.md is generated from this package.
"""

from laion_etl.settings.airflow import AirflowSettings
from laion_etl.settings.alerts import AlertSettings
from laion_etl.settings.core import CoreSettings
from laion_etl.settings.database import DatabaseSettings
from laion_etl.settings.download import DownloadSettings
from laion_etl.settings.fields import PREFIX, Stage
from laion_etl.settings.kubernetes import KubernetesSettings
from laion_etl.settings.load import LoadSettings
from laion_etl.settings.loader import load_settings
from laion_etl.settings.parse import ParseSettings
from laion_etl.settings.plan import PlanSettings
from laion_etl.settings.prices import PricesSettings
from laion_etl.settings.publish import PublishSettings
from laion_etl.settings.registry import SettingField, as_environment, recorded, setting_fields, shaping
from laion_etl.settings.score import ClipSettings, SafetySettings
from laion_etl.settings.search import IndexSettings
from laion_etl.settings.settings import Settings, names_of_stage, of_stage

__all__ = [
    "PREFIX",
    "AirflowSettings",
    "AlertSettings",
    "ClipSettings",
    "CoreSettings",
    "DatabaseSettings",
    "DownloadSettings",
    "IndexSettings",
    "KubernetesSettings",
    "LoadSettings",
    "ParseSettings",
    "PlanSettings",
    "PricesSettings",
    "PublishSettings",
    "SafetySettings",
    "SettingField",
    "Settings",
    "Stage",
    "as_environment",
    "load_settings",
    "names_of_stage",
    "of_stage",
    "recorded",
    "setting_fields",
    "shaping",
]
