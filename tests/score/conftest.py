"""A small world for scoring: the shipped tiny model and shards of drawn scenes."""

import hashlib
import io
import json
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from laion_etl.core.funnel import DownloadStatus
from laion_etl.core.ids import batch_name, sample_key
from laion_etl.core.schemas import SHARD_SCHEMA, pair_id
from laion_etl.core.stage_stats import StageStats
from laion_etl.io.storage import Store
from laion_etl.io.tarshard import finish, write_member
from laion_etl.minicrawl.held_out import photo
from laion_etl.minicrawl.scenes import Scene, caption
from laion_etl.score.model import ClipModel, load_model
from laion_etl.score.preprocess_pool import Preparers
from laion_etl.score.scorer import load_scorer
from laion_etl.score.shared_tables import Plans
from laion_etl.score.stage import Tools, score_shards
from laion_etl.settings import ClipSettings, Settings

CRAWL = "CC-MAIN-TEST"
# One preparer, however many cores there are: to start one takes longer than all it has to do.
TINY = ClipSettings(model="laion-etl-tiny", pretrained="scenes", device="cpu", preparers=1)
TINY_SETTINGS = Settings(clip=TINY)


@pytest.fixture(scope="session")
def tiny_model() -> ClipModel:
    return load_model(TINY)


class _Pools:
    """Preparers that serve one test after the other; those of a test that ended with an error are closed."""

    def __init__(self) -> None:
        self._idle: dict[tuple[Plans, int, int, int], list[Preparers]] = {}

    @contextmanager
    def lend(self, plans: Plans, batch_size: int, buffers: int, processes: int) -> Iterator[Preparers]:
        wanted = (plans, batch_size, buffers, processes)
        idle = self._idle.setdefault(wanted, [])
        pool = idle.pop() if idle else Preparers(*wanted).__enter__()
        try:
            yield pool
        except BaseException:
            pool.__exit__(None, None, None)
            raise
        idle.append(pool)


# Models are loaded and processes started once for all tests; they end with this process.
TOOLS = Tools(scorer=lru_cache(maxsize=16)(load_scorer), preparers=_Pools().lend)


def score(store: Store, settings: Settings = TINY_SETTINGS, batch: int = 3) -> StageStats:
    """The stage on one shard."""
    (stats,) = score_shards(CRAWL, [batch], settings, store, tools=TOOLS)
    return stats


@dataclass(frozen=True)
class Entry:
    """A sample to put into a shard; None leaves the member out."""

    image: bytes | None
    text: bytes | None
    language: str = "en"
    notes: bytes | None = b'{"from": "test"}'
    ending: str = "jpg"
    license: str = "?"


@lru_cache(maxsize=4_096)  # drawing one takes CPU time, and most tests want the same few
def jpeg(scene: Scene, seed: int = 0) -> bytes:
    file = io.BytesIO()
    photo(scene, random.Random(seed)).save(file, "JPEG", quality=92)
    return file.getvalue()


def fitting(scene: Scene, language: str = "en", seed: int = 0) -> Entry:
    """An image with its right caption."""
    return Entry(jpeg(scene, seed), caption(scene, language, random.Random(seed)).encode(), language)


def write_shard(store: Store, entries: Sequence[Entry], batch: int = 3, failed: int = 2) -> StageStats:
    """A shard as the download stage leaves it; `failed` links of the batch have no sample."""
    stem = f"shards/{CRAWL}/{batch_name(batch)}"
    rows = [_row(batch, i, entry) for i, entry in enumerate(entries)]
    rows += [_failed_row(batch, len(entries) + i) for i in range(failed)]
    with store.create(f"{stem}.tar") as tar:
        for row, entry in zip(rows, entries, strict=False):
            members = ((entry.ending, entry.image), ("txt", entry.text), ("json", entry.notes))
            for ending, data in members:
                if data is not None:
                    write_member(tar, f"{row['key']}.{ending}", data)
        finish(tar)
    with store.create(f"{stem}.parquet") as parquet:
        pq.write_table(pa.Table.from_pylist(rows, SHARD_SCHEMA), parquet)
    dropped = {DownloadStatus.HTTP_ERROR.value: failed} if failed else {}
    stats = StageStats(
        "download",
        CRAWL,
        batch_name(batch),
        "f" * 16,
        len(rows),
        len(entries),
        dropped,
        (parquet.output, tar.output),
    )
    return store.write_stats(f"{stem}_stats.json", stats)


def set_environment(monkeypatch: pytest.MonkeyPatch, store: Path) -> None:
    """For commands: this store, and the demo's model."""
    names = {"STORE": str(store), "CLIP_MODEL": TINY.model, "CLIP_PRETRAINED": TINY.pretrained}
    names["CLIP_PREPARERS"] = str(TINY.preparers)
    for name, value in names.items():
        monkeypatch.setenv(f"LAION_ETL_{name}", value)


def read_parquet(store: Store, batch: int = 3) -> list[dict[str, object]]:
    with store.open(f"scored/{CRAWL}/{batch_name(batch)}.parquet") as file:
        return list(pq.read_table(file).to_pylist())


def scored_files(store: Store) -> dict[str, str]:
    """SHA-256 of every file of the scored shards."""
    return {name: hashlib.sha256(store.read(name)).hexdigest() for name in store.list("scored")}


def notes_of(data: bytes) -> dict[str, object]:
    document: dict[str, object] = json.loads(data)
    return document


def _row(batch: int, index: int, entry: Entry) -> dict[str, object]:
    text = (entry.text or b"").decode(errors="replace")
    url = f"https://images.example/{batch}/{index}.jpg"
    return {
        "key": sample_key(batch, index),
        "pair_id": pair_id(url, text),
        "url": url,
        "caption": text,
        "language": entry.language,
        "license": entry.license,
        "page_url": "https://images.example/",
        "status": DownloadStatus.SUCCESS.value,
        "width": 256,
        "height": 256,
        "original_width": 256,
        "original_height": 256,
        "bytes": len(entry.image or b""),
        "sha256": hashlib.sha256(entry.image or b"").hexdigest(),
    }


def _failed_row(batch: int, index: int) -> dict[str, object]:
    row = _row(batch, index, Entry(None, b"a lost image"))
    return row | {"status": DownloadStatus.HTTP_ERROR.value, "error_message": "404", "sha256": None}
