"""Writes what the web, parse, download and score would write for a crawl, without any of them.

Pairs: hosts by Zipf's law, six pairs a page, captions of made-up words in several scripts, languages,
licences. Most are new; some are repeated within the partition, some within the crawl, and some are those of
earlier crawls. Shards: a row per pair of the batch file that `plan` wrote, three fifths of them downloaded; a
sixth of those, a tenth of all, is kept by scoring. Tars hold four small images each and embeddings have 32
numbers instead of 512, for only how many there are matters to the stages after them.

URL and caption follow from the number of a pair, so that they are the same wherever the pair occurs.
"""

import hashlib
import io
import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from laion_etl.core.ids import batch_name
from laion_etl.core.schemas import (
    PAIR_SCHEMA,
    SCORED_SCHEMA,
    SHARD_SCHEMA,
    SUBSET_EN,
    SUBSET_MULTI,
    SUBSET_NOLANG,
    partition_name,
)
from laion_etl.core.stage_stats import Output, StageStats
from laion_etl.io.tarshard import finish, write_member

PAIRS_PER_WAT_FILE = 36_000  # of which 33,333 are new
WAT_FILES_PER_PARTITION = 100
FAILURES = ("http_error", "not_an_image", "timeout", "dns_failed", "too_few_bytes")
_HOSTS = 200_000
_PHRASES = 50_000
_SHARED = 0.08  # of the pairs of a partition, drawn from a pool that all partitions of the crawl draw from
_POOL = 0.01  # pairs of that pool, of those of the crawl
_TWICE = 0.002
_EARLIER = 0.2  # of the pairs of a crawl that is not the first, if it has earlier ones
_LANGUAGES = ["en"] * 9 + ["", "", "de", "ru", "ja", "fr", "es", "zh", "it", "pt", "pl"]
_ENDS = ("com", "org", "de", "co.uk", "net", "ru", "jp", "fr")
_ROWS_PER_GROUP = 10_000  # as parse writes them
_REPEATED = ["language", "license", "page_url", "domain", "wat_file"]
_DIM = 32
_IMAGES_IN_TAR = 4

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


def _mixed(numbers: Numbers, salt: int) -> Numbers:
    """A hash of each number (splitmix64)."""
    x = numbers + np.uint64((salt * 0x9E3779B97F4A7C15) % 2**64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Numbers = x ^ (x >> np.uint64(31))
    return mixed


def _chosen(numbers: Numbers, salt: int, count: int) -> pa.Array:
    return pa.array((_mixed(numbers, salt) % np.uint64(count)).astype(np.int32))


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
        share = _mixed(pages, 1).astype(np.float64) / 2.0**64
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
        earlier = _mixed(own, 2) % np.uint64(1000) < np.uint64(int(_EARLIER * 1000))
        past = _mixed(own, 3) % np.uint64(made.number)
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
        _created(root, name) as file,
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
    outputs = (_output(root, name),)
    stats = StageStats(
        "parse", made.crawl, unit, f"made-{partition}", links, rows, dropped, outputs, details
    )  # fmt: skip
    _write_stats(root, f"pairs/{made.crawl}/{unit}.json", stats)
    return rows


class ShardMaker:
    """Writes the shard and the scored shard of a batch from its batch file."""

    def __init__(self, root: Path, crawl: str) -> None:
        self._root = root
        self._crawl = crawl
        image = io.BytesIO()
        noise = np.random.default_rng(3).integers(0, 255, (24, 24, 3), np.uint8)
        Image.fromarray(noise).resize((96, 96)).save(image, "JPEG", quality=80)
        self._image = image.getvalue()

    def write(self, batch: int) -> tuple[StageStats, StageStats]:
        """Write both; returns the stats of the download and of the score."""
        pairs = pq.read_table(self._root / f"batches/{self._crawl}/{batch_name(batch)}.parquet")
        chance = np.random.default_rng(batch)
        shard = _downloaded(pairs, batch, chance)
        stats = self._write_shard(batch, shard)
        images = shard.filter(pc.equal(shard["status"], "success"))
        return stats, self._write_scored(batch, _scored(images, chance), stats)

    def _write_shard(self, batch: int, rows: pa.Table) -> StageStats:
        stem = f"shards/{self._crawl}/{batch_name(batch)}"
        good = rows.filter(pc.equal(rows["status"], "success"))
        outputs = (self._tar(stem, good), self._parquet(stem, rows))
        counts = _counts(rows["status"])
        kept = counts.pop("success", 0)
        network = {"network": {"seconds": 600.0, "links_per_s": 16.7, "bytes": 60_000 * kept}}
        stats = StageStats(
            "download", self._crawl, batch_name(batch), f"made-{batch}", rows.num_rows, kept, counts, outputs,
            network,
        )  # fmt: skip
        _write_stats(self._root, f"{stem}_stats.json", stats)
        return stats

    def _write_scored(self, batch: int, rows: pa.Table, shard: StageStats) -> StageStats:
        stem = f"scored/{self._crawl}/{batch_name(batch)}"
        kept = rows.filter(pc.is_null(rows["reason"]))
        chance = np.random.default_rng(batch + 1)
        outputs = [self._tar(stem, kept), self._parquet(stem, rows)]
        for ending in ("_img_emb.npy", "_text_emb.npy"):
            with _created(self._root, stem + ending) as file:
                np.save(file, chance.random((kept.num_rows, _DIM), np.float32).astype(np.float16))
            outputs.append(_output(self._root, stem + ending))
        details: dict[str, Any] = {
            "model": "made-up",
            "threshold_en": 0.28,
            "threshold_other": 0.26,
            "kept_nsfw_tags": _counts(kept["nsfw_tag"]),
            "kept_subsets": _counts(kept["subset"]),
        }
        dropped = {"low_similarity": rows.num_rows - kept.num_rows}
        stats = StageStats(
            "score", self._crawl, batch_name(batch), f"made-{batch}", shard.kept, kept.num_rows, dropped,
            tuple(outputs), details,
        )  # fmt: skip
        _write_stats(self._root, f"{stem}_stats.json", stats)
        return stats

    def _tar(self, stem: str, rows: pa.Table) -> Output:
        with _created(self._root, f"{stem}.tar") as file:
            for row in rows.slice(0, _IMAGES_IN_TAR).select(["key", "caption"]).to_pylist():
                write_member(file, f"{row['key']}.jpg", self._image)
                write_member(file, f"{row['key']}.txt", row["caption"].encode())
                write_member(file, f"{row['key']}.json", json.dumps(row).encode())
            finish(file)
        return _output(self._root, f"{stem}.tar")

    def _parquet(self, stem: str, rows: pa.Table) -> Output:
        with _created(self._root, f"{stem}.parquet") as file:
            pq.write_table(rows, file, compression="zstd")
        return _output(self._root, f"{stem}.parquet")


def _downloaded(pairs: pa.Table, batch: int, chance: np.random.Generator) -> pa.Table:
    """Rows of SHARD_SCHEMA: three fifths are successes; one image in fifty is a well-known one."""
    rows = pairs.num_rows
    good = chance.random(rows) < 0.6
    status = np.where(good, "success", np.asarray(FAILURES)[chance.integers(0, len(FAILURES), rows)])
    sizes = {side: chance.integers(120, 2_400, rows).astype(np.int32) for side in ("width", "height")}
    same = np.where(chance.random(rows) < 0.02, chance.integers(1, 1_000, rows), 0).astype(np.uint64)
    numbers = np.where(same > 0, same, np.arange(rows, dtype=np.uint64) + np.uint64(batch * 100_000))
    keys = pc.binary_join_element_wise(
        batch_name(batch), pc.utf8_lpad(pa.array(np.arange(rows)).cast(pa.string()), 5, "0"), ""
    )
    made = {
        "key": keys,
        "status": pa.array(status),
        "bytes": pa.array(chance.integers(5_000, 400_000, rows)),
        "sha256": _hex(numbers, 64),
        "md5": _hex(numbers, 32),
        "phash": _hex(numbers, 16),
        "pdq": _hex(numbers + np.uint64(1), 64),
        **{name: pa.array(values) for name, values in sizes.items()},
        **{f"original_{name}": pa.array(values) for name, values in sizes.items()},
    }
    mask = pa.array(good)
    columns = []
    for field in SHARD_SCHEMA:
        if field.name in pairs.column_names:
            columns.append(pairs[field.name].cast(field.type))
        elif field.name in made:
            column = made[field.name].cast(field.type)
            columns.append(pc.if_else(mask, column, None) if field.nullable else column)
        else:
            columns.append(pa.nulls(rows, field.type))
    return pa.table(columns, schema=SHARD_SCHEMA)


def _scored(shard: pa.Table, chance: np.random.Generator) -> pa.Table:
    """Rows of SCORED_SCHEMA: a sixth is kept."""
    rows = shard.num_rows
    kept = chance.random(rows) < 1 / 6
    language = shard["language"].combine_chunks()
    is_of = pc.make_struct(pc.equal(language, "en"), pc.equal(language, ""))
    subset = pc.case_when(is_of, SUBSET_EN, SUBSET_NOLANG, SUBSET_MULTI)
    made = {
        "similarity": np.where(kept, chance.uniform(0.28, 0.45, rows), chance.uniform(0.05, 0.26, rows)),
        "threshold": np.full(rows, 0.26),
        "nsfw_tag": chance.choice(["UNLIKELY"] * 18 + ["UNSURE", "NSFW"], rows),
        "punsafe": chance.random(rows),
        "pwatermark": chance.random(rows),
        "aesthetic": chance.uniform(3, 7, rows),
        "subset": subset,
        "reason": pa.array(np.where(kept, None, "low_similarity"), pa.string()),
    }
    columns = []
    for field in SCORED_SCHEMA:
        if field.name in shard.column_names:
            columns.append(shard[field.name])
        elif field.name in made:
            columns.append(pa.array(made[field.name]).cast(field.type))
        else:
            columns.append(pa.nulls(rows, field.type))
    return pa.table(columns, schema=SCORED_SCHEMA)


def _hex(numbers: Numbers, digits: int) -> pa.Array:
    """Hexadecimal digits that follow from each number."""
    words = np.stack([_mixed(numbers, salt) for salt in range(20, 20 + digits // 16)], axis=1)
    text = words.astype(">u8").tobytes().hex().encode()
    offsets = np.arange(0, digits * (len(numbers) + 1), digits, dtype=np.int32)
    return pa.StringArray.from_buffers(len(numbers), pa.py_buffer(offsets), pa.py_buffer(text))


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    return {str(one["values"]): one["counts"] for one in pc.value_counts(column).to_pylist()}


def _created(root: Path, name: str) -> Any:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("wb")


def _output(root: Path, name: str) -> Output:
    data = (root / name).read_bytes()
    return Output(name, len(data), hashlib.sha256(data).hexdigest())


def _write_stats(root: Path, name: str, stats: StageStats) -> None:
    with _created(root, name) as file:
        file.write(stats.to_json())
