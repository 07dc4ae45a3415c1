"""A custom filter, language detector and alert channel for a crawl, named in settings as module:factory.

PYTHONPATH=examples LAION_ETL_PARSE_FILTERS=custom_parts:without_thumbnails laion-etl parse ...
PYTHONPATH=examples LAION_ETL_PARSE_LANGUAGE_DETECTOR=custom_parts:AllEnglish laion-etl parse ...
PYTHONPATH=examples LAION_ETL_ALERTS_CHANNELS=custom_parts:AlertFile laion-etl ...
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

import laion_etl as le


def without_thumbnails(_settings: object) -> le.LinkFilter:
    def thumbnail(pairs: pa.Table) -> pa.Array:
        return pc.if_else(pc.match_substring_regex(pairs["url"], "(?i)thumb"), "thumbnail", None)

    return thumbnail


class AllEnglish:
    def __init__(self, _settings: object) -> None:
        self.languages = frozenset({"en"})

    def detect(self, texts: Sequence[str]) -> le.Languages:
        return le.Languages(["en"] * len(texts), [1.0] * len(texts))


class AlertFile:
    name = "file"

    def __init__(self, _settings: object) -> None:
        self._path = Path("alerts.log")

    def send(self, alert: le.Alert) -> None:
        with self._path.open("a") as file:
            file.write(f"{alert.text}\n\n")
