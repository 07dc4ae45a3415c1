"""Writes what parse would write for a crawl, pairs and stats, without the web.

Hosts by Zipf's law, six pairs a page, captions of made-up words in several scripts, languages, licences. Most
pairs are new; some are repeated within the partition, some within the crawl, and some are those of earlier
crawls. URL and caption follow from the number of a pair: they are the same wherever the pair occurs.
"""

import hashlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from laion_etl.core.schemas import (
    PAIR_SCHEMA,
    partition_name,
)
from laion_etl.core.stage_stats import Output, StageStats

PAIRS_PER_WAT_FILE = 36_000  # of which 33,333 are new
WAT_FILES_PER_PARTITION = 100
_HOSTS = 200_000
_PHRASES = 50_000
_SHARED = 0.08  # of the pairs of a partition, drawn from a pool that all partitions of the crawl draw from
_POOL = 0.01  # pairs of that pool, of those of the crawl
_TWICE = 0.002
_EARLIER = 0.2  # of the pairs of a crawl that is not the first, if it has earlier ones
_LANGUAGES = ["en"] * 9 + ["", "", "de", "ru", "ja", "fr", "es", "zh", "it", "pt", "pl"]
_ENDS = ("com", "org", "de", "co.uk", "net", "ru", "jp", "fr")
_ROWS_PER_GROUP = 10_000  # as parse writes them
_REPEATED = ["language", "license", "page_url", "domain", "wat_file", "caption_source"]

Numbers = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Made:
    """A crawl to make: its number among those of the database, its WAT files, and pairs in each."""

    crawl: str
    number: int
    wat_files: int
    pairs_per_wat_file: int

    @property
    def partitions(self) -> range:
        """Numbers of the partitions."""
        return range(-(-self.wat_files // WAT_FILES_PER_PARTITION))

    def wat_numbers(self, partition: int) -> range:
        """WAT files of a partition."""
        first = partition * WAT_FILES_PER_PARTITION
        return range(first, min(first + WAT_FILES_PER_PARTITION, self.wat_files))


def mixed(numbers: Numbers, salt: int) -> Numbers:
    """Return a hash of each number (splitmix64)."""
    x = numbers + np.uint64((salt * 0x9E3779B97F4A7C15) % 2**64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Numbers = x ^ (x >> np.uint64(31))
    return mixed


def _chosen(numbers: Numbers, salt: int, count: int) -> pa.Array:
    return pa.array((mixed(numbers, salt) % np.uint64(count)).astype(np.int32))


class Words:
    """The texts that pairs are made of, the same in every process."""

    def __init__(self) -> None:
        known = (Path(__file__).parent / "words.txt").read_text().lower().split()
        words = np.asarray([word for word in known if word.isalpha()])
        latin = words[[word.isascii() for word in words]]
        rng = np.random.default_rng(7)
        self.slugs = _joined(rng, latin, np.full(_PHRASES, 3), "-")
        numbers = pa.array(np.arange(_HOSTS))
        ends = pa.array(_ENDS).take(pc.bit_wise_and(numbers, len(_ENDS) - 1))
        two = _joined(rng, latin, np.full(_HOSTS, 2), "-")
        self.hosts = pc.binary_join_element_wise(two, numbers.cast(pa.string()), ".", ends, "")
        lengths = 1 + np.minimum(rng.exponential(4, _PHRASES).astype(int), 30)
        self.phrases = _joined(rng, words, lengths, " ")
        weights = 1 / np.arange(1, _HOSTS + 1)
        self.zipf = np.cumsum(weights) / weights.sum()

    def host(self, pages: Numbers) -> pa.Array:
        """Return the host of each page, by Zipf's law."""
        share = mixed(pages, 1).astype(np.float64) / 2.0**64
        return self.hosts.take(pa.array(np.minimum(np.searchsorted(self.zipf, share), _HOSTS - 1)))


def _joined(rng: np.random.Generator, words: Any, lengths: Any, separator: str) -> pa.Array:
    """Texts of so many random words each."""
    ends = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    chosen = pa.array(words).take(pa.array(rng.integers(0, len(words), int(ends[-1]))))
    return pc.binary_join(pa.ListArray.from_arrays(ends, chosen), separator)


def numbers_of(made: Made, partition: int) -> Numbers:
    """The numbers of the pairs of a partition, with the repeated ones, in the order of the WAT files."""
    rows = len(made.wat_numbers(partition)) * made.pairs_per_wat_file
    first = partition * WAT_FILES_PER_PARTITION * made.pairs_per_wat_file
    own = np.arange(first, first + rows, dtype=np.uint64)
    chance = np.random.default_rng((made.number, partition))
    base = np.uint64(made.number << 40)
    numbers = own + base
    if made.number:
        earlier = mixed(own, 2) % np.uint64(1000) < np.uint64(int(_EARLIER * 1000))
        past = mixed(own, 3) % np.uint64(made.number)
        numbers = np.where(earlier, own + (past << np.uint64(40)), numbers)
    pool = max(1, int(made.wat_files * made.pairs_per_wat_file * _POOL))
    shared = chance.random(rows) < _SHARED
    drawn = chance.integers(0, pool, int(shared.sum()), dtype=np.uint64)
    numbers[shared] = drawn + base + np.uint64(1 << 39)
    twice = np.flatnonzero(chance.random(rows) < _TWICE)
    numbers[twice] = numbers[np.maximum(0, twice - 50)]
    return numbers


def pairs_table(words: Words, numbers: Numbers, wat_files: pa.Array) -> pa.Table:
    """Rows of PAIR_SCHEMA for these numbers."""
    rows = len(numbers)
    pages = numbers // np.uint64(6)
    domain = words.host(pages)
    place = pa.array(["https://www.", "https://cdn.", "https://"]).take(_chosen(pages, 4, 3))
    folder = pa.array([f"/wp-content/uploads/{2008 + n}/" for n in range(16)]).take(_chosen(numbers, 5, 16))
    number = pa.array(numbers).cast(pa.string())
    slug = words.slugs.take(_chosen(numbers, 6, len(words.slugs)))
    url = pc.binary_join_element_wise(place, domain, folder, slug, "-", number, ".jpg", "")
    page_slug = words.slugs.take(_chosen(pages, 7, len(words.slugs)))
    page = pc.binary_join_element_wise(
        "https://www.", domain, "/", page_slug, "-", pa.array(pages).cast(pa.string()), ".html", ""
    )
    halves = (words.phrases.take(_chosen(numbers, salt, _PHRASES)) for salt in (8, 9))
    caption = pc.binary_join_element_wise(*halves, " ")
    licences = ["?"] * 32 + ["https://creativecommons.org/licenses/by/4.0/"]
    columns = {
        "pair_id": _md5(pc.binary_join_element_wise(url, caption, "")),
        "url": url,
        "caption": caption,
        "title": pa.repeat("", rows),
        "language": pa.array(_LANGUAGES).take(_chosen(numbers, 10, len(_LANGUAGES))),
        "language_probability": pa.repeat(np.float32(0.9), rows),
        "license": pa.array(licences).take(_chosen(pages, 11, len(licences))),
        "page_url": page,
        "domain": domain,
        "wat_file": wat_files,
        "record_offset": pa.array(np.arange(rows) * 2_000),
        "caption_source": pa.repeat("alt", rows),
        "page_lang": pa.repeat("", rows),
    }
    return pa.table([columns[field.name].cast(field.type) for field in PAIR_SCHEMA], schema=PAIR_SCHEMA)


def _md5(texts: pa.Array) -> pa.Array:
    offsets = np.frombuffer(texts.buffers()[1], np.int32)[: len(texts) + 1].tolist()
    data = memoryview(texts.buffers()[2])
    made = b"".join(
        hashlib.md5(data[start:end], usedforsecurity=False).digest() for start, end in pairwise(offsets)
    )
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(texts), [None, pa.py_buffer(made)])


def write_partition(root: Path, words: Words, made: Made, partition: int) -> int:
    """Write the pairs of a partition and their stats into a store's folder; returns the number of pairs."""
    numbers = numbers_of(made, partition)
    files = np.repeat(np.asarray(made.wat_numbers(partition), np.int32), made.pairs_per_wat_file)
    unit = partition_name(partition)
    name = f"pairs/{made.crawl}/{unit}.parquet"
    with (
        created(root, name) as file,
        pq.ParquetWriter(file, PAIR_SCHEMA, compression="zstd", use_dictionary=_REPEATED) as writer,
    ):
        for start in range(0, len(numbers), 100_000):
            part = slice(start, start + 100_000)
            writer.write_table(
                pairs_table(words, numbers[part], pa.array(files[part])), row_group_size=_ROWS_PER_GROUP
            )
    rows, links = len(numbers), len(numbers) * 3
    wat = made.wat_numbers(partition)
    pages = {"input": links // 4, "kept": links // 10, "dropped": {"not_a_page": links // 4 - links // 10}}
    dropped = {"no_alt": rows, "url_extension": links - 2 * rows}
    details = {
        "records": pages,
        "wat_files": len(wat),
        "wat_numbers": f"{wat[0]}-{wat[-1]}" if len(wat) > 1 else str(wat[0]),
    }
    outputs = (output(root, name),)
    stats = StageStats(
        "parse", made.crawl, unit, f"made-{partition}", links, rows, dropped, outputs, details
    )  # fmt: skip
    write_stats(root, f"pairs/{made.crawl}/{unit}.json", stats)
    return rows


def created(root: Path, name: str) -> Any:
    """Open a file of the store for writing."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("wb")


def output(root: Path, name: str) -> Output:
    """Return the entry of a written file."""
    data = (root / name).read_bytes()
    return Output(name, len(data), hashlib.sha256(data).hexdigest())


def write_stats(root: Path, name: str, stats: StageStats) -> None:
    """Write the stats of a unit."""
    with created(root, name) as file:
        file.write(stats.to_json())
