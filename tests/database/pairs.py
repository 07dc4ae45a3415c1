"""Small parsed partitions for the database tests."""

import pyarrow as pa
import pyarrow.parquet as pq

from laion_etl.core.ids import BATCHES_PER_CRAWL
from laion_etl.core.schemas import PAIR_SCHEMA, pair_id, partition_name
from laion_etl.core.stage_stats import StageStats, fingerprint
from laion_etl.io.storage import Store
from laion_etl.plan.batch_numbers import prefixes

Pair = tuple[str, str]  # url, caption


def write_pairs(
    store: Store, crawl: str, partition: int, pairs: list[Pair], language: str = "en", per_page: int = 0
) -> None:
    """Writes the files of the parse stage for a partition; the page URL names the partition.

    `per_page`: there are so many pairs on each page, whose licences differ, too; 0: all are on one.
    """
    unit = partition_name(partition)
    rows = [
        (pair_id(url, caption), url, caption, "", language, 0.9, *page_of(partition, index, per_page),
         "example.org", partition, index, "alt", "")
        for index, (url, caption) in enumerate(pairs)
    ]  # fmt: skip
    columns = [[row[column] for row in rows] for column in range(len(PAIR_SCHEMA))]
    with store.create(f"pairs/{crawl}/{unit}.parquet") as file:
        pq.write_table(pa.table(columns, schema=PAIR_SCHEMA), file)
    stats = StageStats(
        "parse", crawl, unit, fingerprint(pairs, language), len(pairs), len(pairs), outputs=(file.output,)
    )
    store.write_stats(f"pairs/{crawl}/{unit}.json", stats)


def page_of(partition: int, index: int, per_page: int) -> tuple[str, str]:
    """Licence and URL of the page of a pair."""
    page = f"{partition}/{index // per_page}" if per_page else str(partition)
    return f"https://licence.example/{page}" if per_page else "?", f"https://pages.example/{page}"


def numbered_pairs(start: int, stop: int) -> list[Pair]:
    return [(f"https://img.example/{n}.jpg", f"image number {n}") for n in range(start, stop)]


def batch_no(number: int, crawl: str = "C") -> int:
    """The number of a crawl's n-th batch, counted from 0."""
    return next(prefixes(crawl)) * BATCHES_PER_CRAWL + number


def batch_nos(count: int, crawl: str = "C") -> list[int]:
    """The numbers of a crawl's first batches."""
    return [batch_no(number, crawl) for number in range(count)]
