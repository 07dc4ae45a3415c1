"""Writes a shard: outcomes arrive in any order, tar and parquet are written in key order.

Accepted images are spooled to an unlinked temporary file, so that memory does not grow with the batch.
"""

import json
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from laion_etl.core.funnel import DownloadStatus
from laion_etl.core.ids import sample_key
from laion_etl.core.schemas import SHARD_SCHEMA
from laion_etl.core.stage_stats import Output
from laion_etl.download.hashes import Digests
from laion_etl.download.images import StoredImage
from laion_etl.io.storage import Guard, Store, closed, storage_errors
from laion_etl.io.tarshard import finish, write_members

_JSON = json.JSONEncoder(sort_keys=True, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class _Stored:
    """The fields of an image that go into the parquet, and where its bytes are spooled."""

    extension: str
    offset: int
    bytes: int
    size: tuple[int, int]
    original_size: tuple[int, int]
    phash: str | None
    pdq: str | None
    pdq_quality: int | None


@dataclass(frozen=True, slots=True)
class _Outcome:
    status: DownloadStatus
    message: str | None
    hashes: Digests | None
    stored: _Stored | None


class ShardWriter:
    """The outcomes of one batch, and the shard made of them."""

    def __init__(self, batch: int, pairs: Sequence[dict[str, Any]], spool: IO[bytes]) -> None:
        self._batch = batch
        self._pairs = pairs
        self._spool = spool
        self._outcomes: list[_Outcome | None] = [None] * len(pairs)

    def add_failure(
        self, index: int, status: DownloadStatus, message: str = "", hashes: Digests | None = None
    ) -> None:
        self._outcomes[index] = _Outcome(status, message or None, hashes, None)

    def add_image(self, index: int, image: StoredImage, hashes: Digests) -> None:
        with storage_errors("write", f"a temporary file in {tempfile.gettempdir()}"):
            offset = self._spool.seek(0, 2)
            self._spool.write(image.data)
            self._spool.flush()
        stored = _Stored(
            image.format,
            offset,
            len(image.data),
            (image.width, image.height),
            (image.original_width, image.original_height),
            image.phash,
            image.pdq,
            image.pdq_quality,
        )
        self._outcomes[index] = _Outcome(DownloadStatus.SUCCESS, None, hashes, stored)

    def urls_with(self, statuses: Collection[DownloadStatus]) -> dict[str, DownloadStatus]:
        """Returns the URLs of links that ended in one of these statuses, each with it."""
        ended = zip(self._pairs, self._outcomes, strict=True)
        return {
            pair["url"]: outcome.status
            for pair, outcome in ended
            if outcome is not None and outcome.status in statuses
        }

    def write(self, stem: str, store: Store, guard: Guard | None = None) -> tuple[Output, Output]:
        """Writes `<stem>.tar` and `<stem>.parquet`. Every pair must have an outcome.

        It may be called again after an error; for the guard see `Store.create`.
        """
        rows = [self._row(index) for index in range(len(self._pairs))]
        with store.create(f"{stem}.tar", guard) as tar:
            for row, outcome in zip(rows, self._outcomes, strict=True):
                if outcome is not None and outcome.stored is not None:
                    self._write_sample(tar, row, outcome.stored)
            finish(tar)
        with store.create(f"{stem}.parquet", guard) as file:
            pq.write_table(pa.Table.from_pylist(rows, schema=SHARD_SCHEMA), file, compression="zstd")
        return tar.output, file.output

    def _write_sample(self, tar: Any, row: dict[str, Any], stored: _Stored) -> None:
        self._spool.seek(stored.offset)
        key = row["key"]
        plain = {**row, "pair_id": row["pair_id"].hex()}
        members = {
            stored.extension: self._spool.read(stored.bytes),
            "txt": row["caption"].encode(),
            "json": _JSON.encode(plain).encode(),
        }
        write_members(tar, [(f"{key}.{extension}", data) for extension, data in members.items()])

    def _row(self, index: int) -> dict[str, Any]:
        pair, outcome = self._pairs[index], self._outcomes[index]
        if outcome is None:
            raise RuntimeError(f"pair {index} of batch {self._batch} has no outcome")
        stored, hashes = outcome.stored, outcome.hashes
        width, height = stored.size if stored else (None, None)
        original_width, original_height = stored.original_size if stored else (None, None)
        return {
            "key": sample_key(self._batch, index),
            "pair_id": pair["pair_id"],
            "url": pair["url"],
            "caption": pair["caption"],
            "language": pair["language"],
            "license": pair["license"],
            "page_url": pair["page_url"],
            "status": outcome.status.value,
            "error_message": outcome.message,
            "width": width,
            "height": height,
            "original_width": original_width,
            "original_height": original_height,
            "bytes": stored.bytes if stored else None,
            "sha256": hashes.sha256 if hashes else None,
            "md5": hashes.md5 if hashes else None,
            "phash": stored.phash if stored else None,
            "pdq": stored.pdq if stored else None,
            "caption_source": pair.get("caption_source"),
            "pdq_quality": stored.pdq_quality if stored else None,
        }


@contextmanager
def shard_writer(batch: int, pairs: Sequence[dict[str, Any]]) -> Iterator[ShardWriter]:
    """Yields a writer; its temporary file is deleted when the block ends."""
    spool = tempfile.TemporaryFile()  # noqa: SIM115 - `closed` closes it
    with closed(spool):
        yield ShardWriter(batch, pairs, spool)
