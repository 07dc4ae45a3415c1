"""A small crawl before publishing: stats of every stage, shards and scored shards.

Everything is drawn from a seed. Batch 0 has English samples, the others a mix; every tenth sample is
rejected for low similarity, one is suspected under-age, some are tagged.
"""

import hashlib
import io
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from laion_etl.core.ids import BATCHES_PER_CRAWL, batch_name, sample_key
from laion_etl.core.schemas import SCORED_SCHEMA, pair_id, subset_of_language
from laion_etl.core.stage_stats import StageStats
from laion_etl.dataset.missing_batches import MissingBatch
from laion_etl.dataset.score_progress import GroupRecord
from laion_etl.io.storage import Store
from laion_etl.io.tarshard import finish, write_member
from laion_etl.minicrawl.scenes import caption, draw, random_scene
from laion_etl.settings import Settings

CRAWL = "CC-MAIN-2026-43"
LANGUAGES = ("en", "en", "en", "de", "fr", "es", "")
LICENSES = ("?", "?", "?", "https://creativecommons.org/licenses/by-sa/4.0/")
SIZES = ((640, 480), (1600, 1200), (300, 450), (1024, 1024), (1200, 900), (800, 1400), (256, 256))

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class World:
    """The rows of each scored batch, in key order."""

    batches: dict[int, list[Row]]

    @property
    def rows(self) -> list[Row]:
        return [row for rows in self.batches.values() for row in rows]

    @property
    def kept(self) -> list[Row]:
        return [row for row in self.rows if row["reason"] is None]

    @property
    def planned(self) -> int:
        return sum(len(rows) for rows in self.batches.values()) * 2


WEIGHTS = {"weights_sha256": "ab" * 32, "function": {"precision": "fp32", "device": "cpu"}}


def build_world(batches: int = 3, samples: int = 40, seed: int = 7, first_batch: int = 0) -> World:
    """Rows of a crawl; half of the planned links of each batch failed to download."""
    numbers = range(first_batch, first_batch + batches)
    return World({batch: [_row(batch, index, seed) for index in range(samples)] for batch in numbers})


def _row(batch: int, index: int, seed: int) -> Row:
    rng = random.Random(f"{seed}/{batch}/{index}")
    number = batch % BATCHES_PER_CRAWL
    language = "en" if number == 0 else rng.choice(LANGUAGES)
    low = index % 10 == 9
    scene = random_scene(rng if low else random.Random(sample_key(batch, index)))  # what draw_image() draws
    text = caption(scene, language if language in ("en", "de", "fr", "es") else "en", rng)
    host = rng.choice(("images.example.org", "cdn.example.com", "www.example.net", "bücher.example"))
    url = f"https://{host}/{batch}/{index}.jpg"
    width, height = rng.choice(SIZES)
    threshold = 0.28 if language == "en" else 0.26
    similarity = rng.uniform(0.02, threshold - 0.005) if low else min(0.55, threshold + rng.expovariate(22))
    tag = "NSFW" if index % 17 == 5 else "UNSURE" if index % 13 == 4 else "UNLIKELY"
    reason = "low_similarity" if low else "suspected_underage" if index == 5 and number == 1 else None
    return {
        "key": sample_key(batch, index), "pair_id": pair_id(url, text), "url": url, "caption": text,
        "language": language, "license": rng.choice(LICENSES), "page_url": f"https://{host}/page/{index}",
        "status": "success", "error_message": None, "width": 256, "height": 256,
        "original_width": width, "original_height": height, "bytes": rng.randint(5_000, 900_000),
        "sha256": hashlib.sha256(url.encode()).hexdigest(), "md5": "", "phash": "",
        "similarity": similarity, "threshold": threshold, "nsfw_tag": tag, "punsafe": rng.random() / 4,
        "pviolence": None, "punderage": 0.01, "pwatermark": None,
        "aesthetic": None if index % 7 == 0 else rng.uniform(3.0, 7.0),
        "subset": subset_of_language(language), "reason": reason,
    }  # fmt: skip


@cache
def draw_image(key: str, side: int = 128) -> bytes:
    """The JPEG of a sample; each key has its own pixels."""
    rng = random.Random(key)
    out = io.BytesIO()
    draw(random_scene(rng), side, side, rng).save(out, "JPEG", quality=85)
    return out.getvalue()


def write_world(
    world: World, store: Store, planned_batches: Sequence[int] | None = None, crawl: str = CRAWL
) -> None:
    """Writes the files of all stages before publish."""
    for batch, rows in world.batches.items():
        write_scored(batch, rows, store, crawl)
    total = world.planned
    records = {"input": 900, "kept": 300, "dropped": {"not_a_page": 599, "broken_json": 1}}
    links = {"no_alt": total * 3, "alt_too_short": total, "url_extension": 40, "duplicate_in_partition": 25}
    parsed = _stats("parse", "part-00000", total + 90, links, crawl, records=records)
    store.write_stats(f"pairs/{crawl}/part-00000.json", parsed)
    seen = {"duplicate_in_crawl": 60, "duplicate_of_earlier_crawl": 30}
    store.write_stats(f"load/{crawl}/part-00000.json", _stats("load", "part-00000", total, seen, crawl))
    numbers = list(world.batches) if planned_batches is None else list(planned_batches)
    planned = _stats("plan", "batches", total, {}, crawl, batches=numbers)
    store.write_stats(f"batches/{crawl}/_stats.json", planned)


def write_scored(batch: int, rows: Sequence[Row], store: Store, crawl: str = CRAWL) -> None:
    """Tar, parquet and stats of one batch in shards/ (all samples) and scored/ (kept samples)."""
    name = batch_name(batch)
    kept = [row for row in rows if row["reason"] is None]
    for folder, members in (("shards", rows), ("scored", kept)):
        with store.create(f"{folder}/{crawl}/{name}.tar") as file:
            for row in members:
                write_member(file, f"{row['key']}.jpg", draw_image(row["key"]))
                write_member(file, f"{row['key']}.txt", row["caption"].encode())
            finish(file)
    with store.create(f"scored/{crawl}/{name}.parquet") as file:
        pq.write_table(pa.Table.from_pylist(list(rows), schema=SCORED_SCHEMA), file, compression="zstd")
    timeouts, opted_out = len(rows) // 8, len(rows) // 20
    failed = {
        "http_error": len(rows) - timeouts - opted_out,
        "timeout": timeouts,
        "opted_out_robots_tag": opted_out,
    }
    store.write_stats(f"shards/{crawl}/{name}_stats.json", _stats("download", name, len(rows), failed, crawl))
    dropped = Counter(row["reason"] for row in rows if row["reason"] is not None)
    scored = _stats("score", name, len(kept), dropped, crawl, model="test-model", **WEIGHTS)
    store.write_stats(f"scored/{crawl}/{name}_stats.json", replace(scored, outputs=(file.output,)))


def write_group(missing: Sequence[MissingBatch], store: Store, crawl: str = CRAWL) -> None:
    """The record of the only score group, which could not score these batches and names no others."""
    record = GroupRecord(crawl, "0/1", len(missing), store)
    record.begin()
    for one in missing:
        record.miss(one)
    record.finish()


def _stats(
    stage: str, unit: str, kept: int, dropped: dict[str, int], crawl: str, **details: Any
) -> StageStats:
    total = kept + sum(dropped.values())
    return StageStats(stage, crawl, unit, "test", total, kept, dict(dropped), (), details)


def changed(settings: Settings, **publish: Any) -> Settings:
    """Settings with other publish settings."""
    return replace(settings, publish=replace(settings.publish, **publish))
