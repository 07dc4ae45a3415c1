"""A custom filter of pairs, language detector and image rule, named in settings as module:factory.

PYTHONPATH=examples LAION_ETL_PARSE_FILTERS=custom_parts:without_thumbnails laion-etl stage parse ...
PYTHONPATH=examples LAION_ETL_PARSE_LANGUAGE_DETECTOR=custom_parts:AllEnglish laion-etl stage parse ...
PYTHONPATH=examples LAION_ETL_DOWNLOAD_IMAGE_RULES=custom_parts:landscapes laion-etl stage download ...
"""

from collections.abc import Sequence

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


def landscapes(_settings: object) -> le.ImageRule:
    return lambda image: None if image.original_width > image.original_height else "not_a_landscape"
