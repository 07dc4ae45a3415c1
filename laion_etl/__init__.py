"""laion_etl: from a Common Crawl crawl to a documented image-text dataset.

As a library (docs/library.md): read_wat, download, Scorer and open_dataset are the stages for callers
without a crawl; Settings and load_settings are what they take; LinkSource, LinkFilter, LanguageDetector,
ImageRule, Head and AlertChannel are what others can write. All are imported when they are first used:
`import laion_etl` takes milliseconds, and every command pays for it.
"""

from importlib import import_module

TYPE_CHECKING = False  # true for type checkers; importing `typing` takes longer than the rest
if TYPE_CHECKING:
    from laion_etl.alerts.alert import Alert as Alert
    from laion_etl.alerts.channels import AlertChannel as AlertChannel
    from laion_etl.api.crawl_run import CrawlRun as CrawlRun
    from laion_etl.api.datasets import Dataset as Dataset
    from laion_etl.api.datasets import open_dataset as open_dataset
    from laion_etl.api.funnel import Funnel as Funnel
    from laion_etl.api.pairs import PairReader as PairReader
    from laion_etl.api.pairs import read_pairs as read_pairs
    from laion_etl.api.pairs import read_wat as read_wat
    from laion_etl.api.scoring import Scorer as Scorer
    from laion_etl.api.shards import Shard as Shard
    from laion_etl.api.shards import download as download
    from laion_etl.core.errors import LaionEtlError as LaionEtlError
    from laion_etl.core.funnel import RecordReason as RecordReason
    from laion_etl.core.head_columns import HeadColumn as HeadColumn
    from laion_etl.download.custom_rules import ImageRule as ImageRule
    from laion_etl.download.images import StoredImage as StoredImage
    from laion_etl.parse.custom_filters import LinkFilter as LinkFilter
    from laion_etl.parse.language import LanguageDetector as LanguageDetector
    from laion_etl.parse.language import Languages as Languages
    from laion_etl.parse.link_batch import LinkBatch as LinkBatch
    from laion_etl.parse.link_batch import link_batches as link_batches
    from laion_etl.parse.link_source import LinkSource as LinkSource
    from laion_etl.parse.page import ImageLink as ImageLink
    from laion_etl.parse.page import Page as Page
    from laion_etl.score.head import Head as Head
    from laion_etl.score.head import HeadInput as HeadInput
    from laion_etl.score.model import ClipModel as ClipModel
    from laion_etl.settings import Settings as Settings
    from laion_etl.settings import load_settings as load_settings

__version__ = "0.2.0.dev0"

_MODULES = {
    "Alert": "laion_etl.alerts.alert",
    "AlertChannel": "laion_etl.alerts.channels",
    "ClipModel": "laion_etl.score.model",
    "CrawlRun": "laion_etl.api.crawl_run",
    "Dataset": "laion_etl.api.datasets",
    "Funnel": "laion_etl.api.funnel",
    "Head": "laion_etl.score.head",
    "HeadColumn": "laion_etl.core.head_columns",
    "HeadInput": "laion_etl.score.head",
    "ImageLink": "laion_etl.parse.page",
    "ImageRule": "laion_etl.download.custom_rules",
    "LaionEtlError": "laion_etl.core.errors",
    "LanguageDetector": "laion_etl.parse.language",
    "Languages": "laion_etl.parse.language",
    "LinkBatch": "laion_etl.parse.link_batch",
    "LinkFilter": "laion_etl.parse.custom_filters",
    "LinkSource": "laion_etl.parse.link_source",
    "Page": "laion_etl.parse.page",
    "PairReader": "laion_etl.api.pairs",
    "RecordReason": "laion_etl.core.funnel",
    "Scorer": "laion_etl.api.scoring",
    "Settings": "laion_etl.settings",
    "Shard": "laion_etl.api.shards",
    "StoredImage": "laion_etl.download.images",
    "link_batches": "laion_etl.parse.link_batch",
    "load_settings": "laion_etl.settings",
    "open_dataset": "laion_etl.api.datasets",
    "read_pairs": "laion_etl.api.pairs",
    "read_wat": "laion_etl.api.pairs",
}

__all__ = [
    "Alert",
    "AlertChannel",
    "ClipModel",
    "CrawlRun",
    "Dataset",
    "Funnel",
    "Head",
    "HeadColumn",
    "HeadInput",
    "ImageLink",
    "ImageRule",
    "LaionEtlError",
    "LanguageDetector",
    "Languages",
    "LinkBatch",
    "LinkFilter",
    "LinkSource",
    "Page",
    "PairReader",
    "RecordReason",
    "Scorer",
    "Settings",
    "Shard",
    "StoredImage",
    "__version__",
    "download",
    "link_batches",
    "load_settings",
    "open_dataset",
    "read_pairs",
    "read_wat",
]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used."""
    if name == "download":  # the package of this name, which can be called
        return import_module("laion_etl.download")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(_MODULES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
