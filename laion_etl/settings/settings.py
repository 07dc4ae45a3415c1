"""All groups of settings together."""

from dataclasses import dataclass, field
from pathlib import Path

from laion_etl.settings.airflow import AirflowSettings
from laion_etl.settings.alerts import AlertSettings
from laion_etl.settings.core import DEFAULT_CRAWL_SOURCE, CoreSettings
from laion_etl.settings.database import DatabaseSettings
from laion_etl.settings.download import DownloadSettings
from laion_etl.settings.kubernetes import KubernetesSettings
from laion_etl.settings.load import LoadSettings
from laion_etl.settings.parse import ParseSettings
from laion_etl.settings.plan import PlanSettings
from laion_etl.settings.prices import PricesSettings
from laion_etl.settings.publish import PublishSettings
from laion_etl.settings.score import ClipSettings, SafetySettings
from laion_etl.settings.search import IndexSettings


@dataclass(frozen=True, slots=True)
class Settings:
    """All groups; `store_uri` and `collinfo_uri` fill in the defaults that depend on other settings."""

    core: CoreSettings = field(default_factory=CoreSettings)
    parse: ParseSettings = field(default_factory=ParseSettings)
    database: DatabaseSettings = field(default_factory=DatabaseSettings)
    load: LoadSettings = field(default_factory=LoadSettings)
    plan: PlanSettings = field(default_factory=PlanSettings)
    download: DownloadSettings = field(default_factory=DownloadSettings)
    clip: ClipSettings = field(default_factory=ClipSettings)
    safety: SafetySettings = field(default_factory=SafetySettings)
    publish: PublishSettings = field(default_factory=PublishSettings)
    index: IndexSettings = field(default_factory=IndexSettings)
    alerts: AlertSettings = field(default_factory=AlertSettings)
    airflow: AirflowSettings = field(default_factory=AirflowSettings)
    kubernetes: KubernetesSettings = field(default_factory=KubernetesSettings)
    prices: PricesSettings = field(default_factory=PricesSettings)

    @property
    def store_uri(self) -> str:
        """Folder or s3:// URL of the store."""
        return self.core.store or self.core.data_dir

    @property
    def data_path(self) -> Path:
        """The local folder for the embedded Postgres and blocklists."""
        return Path(self.core.data_dir)

    @property
    def registered_path(self) -> Path:
        """File of the crawls that `laion-etl crawl list --refresh --register` found."""
        return Path(self.core.registered) if self.core.registered else self.data_path / "crawls.json"

    @property
    def collinfo_uri(self) -> str:
        """Path or URL of the list of all crawls."""
        if self.core.collinfo:
            return self.core.collinfo
        if self.core.crawl_source == DEFAULT_CRAWL_SOURCE:
            return "https://index.commoncrawl.org/collinfo.json"
        return f"{self.core.crawl_source.rstrip('/')}/collinfo.json"


def of_stage(entries: tuple[str, ...], stage: str) -> str:
    """Returns the value of a stage in a list by stages (`parse=4,other=1`); '' if it has none."""
    found = dict(entry.split("=", 1) for entry in entries)
    return found.get(stage, found.get("other", ""))


def names_of_stage(entries: tuple[str, ...], stage: str) -> tuple[str, ...]:
    """Returns the names of a stage in a list of `NAME` and `STAGE=NAME`: of all stages, then its own."""
    found: dict[str, list[str]] = {}
    for entry in entries:
        of, _, name = entry.rpartition("=")
        found.setdefault(of, []).append(name)
    return (*found.get("", []), *found.get(stage, found.get("other", [])))
