"""Writes a scored shard: tar of the kept samples, parquet of all, embeddings."""

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from laion_etl.core.errors import InternalError
from laion_etl.core.funnel import Outcomes, ScoreReason
from laion_etl.core.head_columns import HeadColumn, with_columns
from laion_etl.core.quantities import quantity
from laion_etl.core.rule_failures import too_many
from laion_etl.core.schemas import SCORED_SCHEMA
from laion_etl.core.stage_stats import Output
from laion_etl.io.storage import Guard, NewFile, Store
from laion_etl.io.tarshard import finish, write_members
from laion_etl.score.device_transfer import Floats
from laion_etl.score.scorer import Scored
from laion_etl.score.shard_reader import Row

IMAGE_ENDING = "jpg"
_NOTED_DIGITS = 6  # of scores in the samples' JSON
_EXAMPLES = 5  # of exceptions of heads
_BLOCK_BYTES = 1 << 18  # written and hashed at a time, which costs less than each sample for itself
_as_json = json.JSONEncoder(sort_keys=True, ensure_ascii=False).encode  # one encoder for all samples


class ShardWriter:
    """The four data files of a scored shard; they appear together when the block ends without an error."""

    def __init__(self, store: Store, stem: str, guard: Guard | None = None) -> None:
        self._store = store
        self._guard = guard
        self._stem = stem
        self._stack = ExitStack()
        self._rows: list[Row] = []
        self._images: list[Floats] = []
        self._texts: list[Floats] = []
        self._files: list[NewFile] = []
        self._members: list[tuple[str, bytes]] = []  # that are not written yet
        self._held = 0  # their bytes
        self.outcomes: Outcomes[ScoreReason] = Outcomes()
        self.tags: Counter[str] = Counter()
        self.subsets: Counter[str] = Counter()
        self.failures: list[dict[str, str]] = []  # the first exceptions of heads
        self.failed = 0  # samples that a head raised an exception for

    def __enter__(self) -> "ShardWriter":
        endings = (".tar", ".parquet", "_img_emb.npy", "_text_emb.npy")
        with ExitStack() as stack:
            self._files = [
                stack.enter_context(self._store.create(self._stem + end, self._guard)) for end in endings
            ]
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    @property
    def outputs(self) -> tuple[Output, ...]:
        return tuple(file.output for file in self._files)

    def add(self, scored: Scored) -> None:
        """Takes the next sample, in key order."""
        self._rows.append(scored.sample.row | scored.columns)
        self._note_failures(scored)
        if scored.reason is not None:
            self.outcomes.drop(scored.reason)
            return
        self.outcomes.keep()
        self.tags[scored.columns["nsfw_tag"]] += 1
        self.subsets[scored.columns["subset"]] += 1
        self._images.append(_half(scored.image_embedding))
        self._texts.append(_half(scored.text_embedding))
        key = scored.sample.key
        for ending, data in _members(scored):
            self._members.append((f"{key}.{ending}", data))
            self._held += len(data)
        if self._held >= _BLOCK_BYTES:
            self._write_members()

    def _write_members(self) -> None:
        write_members(self._files[0], self._members)
        self._members, self._held = [], 0

    def check_failures(self) -> None:
        """Raises InternalError if heads failed for too many samples, or too many have no finite score."""
        total, not_scored = self.outcomes.input, self.outcomes.count(ScoreReason.NOT_SCORED)
        if too_many(not_scored, total):
            raise InternalError(
                f"cannot score {self._stem}: {not_scored:,} of {quantity(total, 'sample')} have a score that "
                "is not finite; set LAION_ETL_CLIP_PRECISION=fp32, or use other weights"
            )
        if too_many(self.failed, self.outcomes.input):
            first = self.failures[0]
            raise InternalError(
                f"cannot score {self._stem}: the head {first['head']} raised exceptions for {self.failed:,} "
                f"of {quantity(self.outcomes.input, 'sample')}, such as {first['error']}; mend the head or "
                "the installation"
            )

    def _note_failures(self, scored: Scored) -> None:
        self.failed += bool(scored.failures)
        if scored.failures and len(self.failures) < _EXAMPLES:
            head, error = scored.failures[0]
            self.failures.append({"key": scored.sample.key, "head": head, "error": error})

    def finish(self, dim: int, columns: Sequence[HeadColumn]) -> None:
        """Ends the tar and writes parquet, with the columns of custom heads, and embeddings."""
        tar, parquet, images, texts = self._files
        self._write_members()
        finish(tar)
        pq.write_table(
            pa.Table.from_pylist(self._rows, with_columns(SCORED_SCHEMA, columns)),
            parquet,
            compression="zstd",
        )
        for file, rows in ((images, self._images), (texts, self._texts)):
            matrix = np.stack(rows) if rows else np.empty((0, dim), np.float16)
            np.save(file, matrix, allow_pickle=False)


def _half(embedding: Floats | None) -> Any:
    if embedding is None:
        raise ValueError("a kept sample has embeddings")
    return embedding.astype(np.float16)


def _members(scored: Scored) -> list[tuple[str, bytes]]:
    """The image and the caption unchanged, the JSON with the scores added.

    Every image has one ending, whatever its encoding, as of img2dataset: loaders decode by the first bytes,
    but give each ending a column of its own, and lose or refuse the samples of other endings.
    """
    noted = {
        name: round(value, _NOTED_DIGITS) if isinstance(value, float) else value
        for name, value in scored.columns.items()
        if name != "reason"
    }
    notes = (scored.sample.notes or {}) | noted
    written = _as_json(notes).encode()
    image = scored.sample.image
    images = [(IMAGE_ENDING, image[1])] if image else []
    return [*images, ("txt", scored.sample.members["txt"]), ("json", written)]
