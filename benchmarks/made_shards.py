"""Writes what download and score would write for a batch: shard and scored shard.

A row per pair of the batch file that `plan` wrote, three fifths of them downloaded; a sixth of those, a tenth
of all, is kept by scoring. Tars hold four small images each and embeddings have 32 numbers of 512, for
only how many there are matters to the stages after them.
"""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.made_crawl import Numbers, created, mixed, output, write_stats
from laion_etl.core.ids import batch_name
from laion_etl.core.schemas import SCORED_SCHEMA, SHARD_SCHEMA, SUBSET_EN, SUBSET_MULTI, SUBSET_NOLANG
from laion_etl.core.stage_stats import Output, StageStats
from laion_etl.io.tarshard import finish, write_member

FAILURES = ("http_error", "not_an_image", "timeout", "dns_failed", "too_few_bytes")
_DIM = 32
_IMAGES_IN_TAR = 4


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
        write_stats(self._root, f"{stem}_stats.json", stats)
        return stats

    def _write_scored(self, batch: int, rows: pa.Table, shard: StageStats) -> StageStats:
        stem = f"scored/{self._crawl}/{batch_name(batch)}"
        kept = rows.filter(pc.is_null(rows["reason"]))
        chance = np.random.default_rng(batch + 1)
        outputs = [self._tar(stem, kept), self._parquet(stem, rows)]
        for ending in ("_img_emb.npy", "_text_emb.npy"):
            with created(self._root, stem + ending) as file:
                np.save(file, chance.random((kept.num_rows, _DIM), np.float32).astype(np.float16))
            outputs.append(output(self._root, stem + ending))
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
        write_stats(self._root, f"{stem}_stats.json", stats)
        return stats

    def _tar(self, stem: str, rows: pa.Table) -> Output:
        with created(self._root, f"{stem}.tar") as file:
            for row in rows.slice(0, _IMAGES_IN_TAR).select(["key", "caption"]).to_pylist():
                write_member(file, f"{row['key']}.jpg", self._image)
                write_member(file, f"{row['key']}.txt", row["caption"].encode())
                write_member(file, f"{row['key']}.json", json.dumps(row).encode())
            finish(file)
        return output(self._root, f"{stem}.tar")

    def _parquet(self, stem: str, rows: pa.Table) -> Output:
        with created(self._root, f"{stem}.parquet") as file:
            pq.write_table(rows, file, compression="zstd")
        return output(self._root, f"{stem}.parquet")


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
        "reason": pa.array(["low_similarity"] * rows, pa.string(), mask=kept),
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
    words = np.stack([mixed(numbers, salt) for salt in range(20, 20 + digits // 16)], axis=1)
    text = words.astype(">u8").tobytes().hex().encode()
    offsets = np.arange(0, digits * (len(numbers) + 1), digits, dtype=np.int32)
    return pa.StringArray.from_buffers(len(numbers), pa.py_buffer(offsets), pa.py_buffer(text))


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    return {str(one["values"]): one["counts"] for one in pc.value_counts(column).to_pylist()}
