"""The columns of a published dataset, each declared once: name, type, meaning and source.

The schema of the published files, what publishing writes into them, manifest, card, Croissant metadata and
the table of docs/formats.md (`make docs`) are made from these lines: a new column of something that scored
shards have is one line here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class PublishedColumn:
    """A column. `source`: the column of scored shards that it shows as it is; '' if publishing computes it.

    The values of a column that is not nullable are required: a kept row without one is refused. `since` is
    the number of the format that added it: one more than the highest before, for a new column, which has to
    be nullable.
    """

    name: str
    type: pa.DataType
    meaning: str
    source: str = ""
    nullable: bool = False
    since: int = 1

    @property
    def field(self) -> pa.Field:
        return pa.field(self.name, self.type, nullable=self.nullable)


PUBLISHED_COLUMNS = (
    PublishedColumn("SAMPLE_ID", pa.int64(), "number of the sample, `key` as an integer"),
    PublishedColumn("URL", pa.string(), "where the image was found; it may be gone or changed by now", "url"),
    PublishedColumn("TEXT", pa.string(), "text of the image, cleaned; see caption_source", "caption"),
    PublishedColumn("WIDTH", pa.int32(), "width of the image as fetched, pixels", "original_width"),
    PublishedColumn("HEIGHT", pa.int32(), "height of the image as fetched, pixels", "original_height"),
    PublishedColumn("LICENSE", pa.string(), "Creative Commons licence linked on the page, or `?`", "license"),
    PublishedColumn("LANGUAGE", pa.string(), "language of the text by the language detector, or `nolang`"),
    PublishedColumn("NSFW", pa.string(), "UNLIKELY, UNSURE or NSFW", "nsfw_tag", nullable=True),
    PublishedColumn("similarity", pa.float32(), "cosine of CLIP image and text embedding", "similarity"),
    PublishedColumn("hash", pa.int64(), "first 8 bytes of MD5(URL + text) as a signed integer"),
    PublishedColumn(
        "punsafe", pa.float32(), "unsafe score, null when not computed", "punsafe", nullable=True
    ),
    PublishedColumn(
        "pwatermark", pa.float32(), "watermark score, null when not computed", "pwatermark", nullable=True
    ),
    PublishedColumn(
        "aesthetic", pa.float32(), "aesthetic score, null when not computed", "aesthetic", nullable=True
    ),
    PublishedColumn(
        "pviolence", pa.float32(), "violence score, null when not computed", "pviolence", nullable=True
    ),
    PublishedColumn(
        "key", pa.string(), "12 digits for the batch, 5 for the position in it; of version 0.1 9 and 5", "key"
    ),
    PublishedColumn("crawl", pa.string(), "Common Crawl crawl in which the pair was found"),
    PublishedColumn("page_url", pa.string(), "page that embedded the image", "page_url"),
    PublishedColumn(
        "caption_source",
        pa.string(),
        "where on the page the text was: alt, title, figcaption, link or og; null, in older rows, means alt",
        "caption_source",
        nullable=True,
        since=2,
    ),
    PublishedColumn(
        "sha256", pa.string(), "SHA-256 of the image file as fetched, null in older rows", "sha256",
        nullable=True, since=2,
    ),
    PublishedColumn(
        "pair_id", pa.string(), "MD5 of URL + text, hexadecimal, null in older rows", nullable=True, since=2
    ),
)  # fmt: skip


def added_since(columns: Sequence[PublishedColumn]) -> dict[int, list[str]]:
    """Return the columns that later formats added, by the number of the format."""
    numbers = sorted({column.since for column in columns if column.since > 1})
    return {number: [column.name for column in columns if column.since == number] for number in numbers}
