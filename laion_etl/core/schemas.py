"""The data contracts between stages: Arrow schemas of the data files, and their names in the store.

docs/formats.md explains them column by column. A new column of PAIR_FILES, BATCH_FILES, SHARD_FILES,
SCORED_FILES or DATASET_FILES is named in `added` there, with the next number, and is nullable: then files of
earlier versions are still read, with nulls.
"""

import hashlib
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from laion_etl.core.ids import MAX_BATCH_PAIRS, batch_name
from laion_etl.core.published_columns import PUBLISHED_COLUMNS, added_since
from laion_etl.core.schema_history import SchemaHistory

_SHORT_KEY_DIGITS = 14  # of a key of version 0.1; other keys have 17 and no zeros in front
IdT = TypeVar("IdT", int, NDArray[np.int64])

_FORMER_NAMES = {2: {"caption": "alt"}}

PAIR_FILES = SchemaHistory(
    "pairs",
    [
        pa.field("pair_id", pa.binary(16), nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("caption", pa.string(), nullable=False),
        pa.field("title", pa.string(), nullable=False),
        pa.field("language", pa.string(), nullable=False),
        pa.field("language_probability", pa.float32(), nullable=False),
        pa.field("license", pa.string(), nullable=False),
        pa.field("page_url", pa.string(), nullable=False),
        pa.field("domain", pa.string(), nullable=False),
        pa.field("wat_file", pa.int32(), nullable=False),
        pa.field("record_offset", pa.int64(), nullable=False),
        pa.field("caption_source", pa.string()),  # null, in earlier files, means alt
        pa.field("page_lang", pa.string()),
    ],
    added={3: ["caption_source", "page_lang"]},
    renamed=_FORMER_NAMES,
)
PAIR_SCHEMA = PAIR_FILES.schema

# A batch, as its downloader reads it: batches/<crawl>/<batch>.parquet, row i = index i.
BATCH_FILES = SchemaHistory(
    "a batch",
    [
        pa.field("pair_id", pa.binary(16), nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("caption", pa.string(), nullable=False),
        pa.field("language", pa.string(), nullable=False),
        pa.field("license", pa.string(), nullable=False),
        pa.field("page_url", pa.string(), nullable=False),
        pa.field("caption_source", pa.string()),
    ],
    added={3: ["caption_source"]},
    renamed=_FORMER_NAMES,
)
BATCH_SCHEMA = BATCH_FILES.schema

SHARD_FILES = SchemaHistory(
    "a shard",
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("pair_id", pa.binary(16), nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("caption", pa.string(), nullable=False),
        pa.field("language", pa.string(), nullable=False),
        pa.field("license", pa.string(), nullable=False),
        pa.field("page_url", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error_message", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("original_width", pa.int32()),
        pa.field("original_height", pa.int32()),
        pa.field("bytes", pa.int64()),
        pa.field("sha256", pa.string()),
        pa.field("md5", pa.string()),
        pa.field("phash", pa.string()),
        pa.field("pdq", pa.string()),
        pa.field("caption_source", pa.string()),
        pa.field("pdq_quality", pa.int32()),
    ],
    added={2: ["caption_source", "pdq_quality"]},
)
SHARD_SCHEMA = SHARD_FILES.schema

# A row per sample of the shard, also the rejected ones (`reason` is null for kept samples).
SCORED_FILES = SchemaHistory(
    "a scored shard",
    [
        *SHARD_SCHEMA,
        pa.field("similarity", pa.float32()),
        pa.field("threshold", pa.float32()),
        pa.field("nsfw_tag", pa.string()),
        pa.field("punsafe", pa.float32()),
        pa.field("pviolence", pa.float32()),
        pa.field("punderage", pa.float32()),
        pa.field("pwatermark", pa.float32()),
        pa.field("aesthetic", pa.float32()),
        pa.field("subset", pa.string()),
        pa.field("reason", pa.string()),
    ],
    added=SHARD_FILES.added,
)
SCORED_SCHEMA = SCORED_FILES.schema

DATASET_FILES = SchemaHistory(
    "a published file",
    [column.field for column in PUBLISHED_COLUMNS],
    added=added_since(PUBLISHED_COLUMNS),
    in_file=False,  # the number is in manifest.json
)
DATASET_SCHEMA = DATASET_FILES.schema

SUBSET_EN = "laion-en"
SUBSET_MULTI = "laion-multi"
SUBSET_NOLANG = "laion-nolang"


def subset_of_language(language: str) -> str:
    """Returns the language subset of a pair; '' is "no reliable language" (LAION-5B, section 3)."""
    if language == "":
        return SUBSET_NOLANG
    return SUBSET_EN if language == "en" else SUBSET_MULTI


def pair_id(url: str, caption: str) -> bytes:
    """Returns the 16-byte id of a pair: MD5 of URL + caption in UTF-8, the original's hash."""
    return hashlib.md5((url + caption).encode(), usedforsecurity=False).digest()


def partition_name(partition: int) -> str:
    return f"part-{partition:05d}"


def parse_stats_name(crawl: str, partition: int) -> str:
    """Name in the store of the stats of a parsed partition."""
    return f"pairs/{crawl}/{partition_name(partition)}.json"


def shard_stats_name(crawl: str, batch: int) -> str:
    """Return the name of the stats of a downloaded batch."""
    return f"{shard_stem(crawl, batch)}_stats.json"


def plan_stats_name(crawl: str) -> str:
    """Name in the store of the stats of the plan stage; their details list the batches."""
    return f"batches/{crawl}/_stats.json"


def batch_file_name(crawl: str, batch: int) -> str:
    """Name in the store of the pairs of a batch."""
    return f"batches/{crawl}/{batch_name(batch)}.parquet"


def shard_stem(crawl: str, batch: int) -> str:
    """Name of a shard's files in the store without their endings."""
    return f"shards/{crawl}/{batch_name(batch)}"


def scored_stem(crawl: str, batch: int) -> str:
    """Name of a scored shard's files in the store without their endings."""
    return f"scored/{crawl}/{batch_name(batch)}"


def keys_of_ids(ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the keys of samples with these ids, a column of int64."""
    return pc.utf8_lpad(ids.cast(pa.string()), _SHORT_KEY_DIGITS, "0")


def batch_of(sample_id: IdT) -> IdT:
    """Returns the batch of a sample id (the key as a number), or of each id of an array."""
    return sample_id // MAX_BATCH_PAIRS
