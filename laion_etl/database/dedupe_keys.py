"""The pairs of a partition as candidates for a row: their keys in order, and which of equal ones is taken.

Rule `pair`: the key is pair_id, the first row with it is taken. Rule `url`: the key is the MD5 of the URL,
and of the captions of one URL the best is taken: one with a reliable language before one without, then the
longer one, counted up to 200 characters, then the one with the lower pair_id, which is as good as a random
choice but does not depend on what was loaded first.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from psycopg.adapt import Dumper
from psycopg.pq import Format

from laion_etl.database.kernels import Bytes, Ints, Longs, order_of_hashes
from laion_etl.settings import LoadSettings

Keys = npt.NDArray[np.bytes_]  # of 16 bytes each, compared like uuid in Postgres
Mask = npt.NDArray[np.bool_]

# Raise it whenever another row of a pairs file is taken than before, or a row has another key, under the same
# rule: then a loaded partition no longer counts as loaded.
RULES_VERSION = 1

_LANGUAGE_RANK = 1000
_MAX_TEXT_RANK = 200


class DedupeRule(StrEnum):
    """What makes two pairs the same."""

    PAIR = "pair"
    URL = "url"

    @classmethod
    def from_settings(cls, settings: LoadSettings) -> "DedupeRule":
        return cls(settings.dedupe)


@dataclass(frozen=True, slots=True)
class Candidates:
    """Rows with distinct keys, ascending by key. `ranks` and `hashes` (pair_id) only under rule url."""

    keys: Keys
    rows: Longs
    ranks: Ints = field(default_factory=lambda: np.empty(0, np.int32))
    hashes: Keys = field(default_factory=lambda: np.empty(0, "S16"))

    def __len__(self) -> int:
        return len(self.keys)

    def among(self, keys: Keys) -> Mask:
        """Returns which candidates have one of these ascending keys."""
        if not len(keys):
            return np.zeros(len(self), np.bool_)
        places = np.minimum(np.searchsorted(keys, self.keys), len(keys) - 1)
        mask: Mask = keys[places] == self.keys
        return mask

    def where(self, chosen: "Mask | Longs | slice") -> "Candidates":
        """Returns the chosen candidates."""
        ranks, hashes = (
            (self.ranks[chosen], self.hashes[chosen]) if len(self.ranks) else (self.ranks, self.hashes)
        )
        return Candidates(self.keys[chosen], self.rows[chosen], ranks, hashes)

    def chunks(self, size: int) -> "Iterator[Candidates]":
        """Yields all candidates in runs of at most `size`."""
        for start in range(0, len(self), size):
            yield self.where(slice(start, start + size))

    @classmethod
    def joined(cls, parts: "Sequence[Candidates]") -> "Candidates":
        """Returns the candidates of parts that follow each other; at least one."""
        if len(parts) == 1:
            return parts[0]
        columns = [(part.keys, part.rows, part.ranks, part.hashes) for part in parts]
        return cls(*map(np.concatenate, zip(*columns, strict=True)))


def url_keys(urls: pa.StringArray) -> Bytes:
    """Returns the MD5 of each URL, shape (rows, 16)."""
    digests = b"".join(hashlib.md5(url.encode(), usedforsecurity=False).digest() for url in urls.to_pylist())
    return np.frombuffer(digests, np.uint8).reshape(-1, 16)


def ascending(array: Bytes) -> Longs:
    """Returns the ascending order of an array of shape (rows, 16); equal rows keep their order."""
    halves = array.view(">u8").astype(np.uint64) if len(array) else np.empty((0, 2), np.uint64)
    high, low = halves[:, 0], halves[:, 1]
    order = order_of_hashes(high, low)
    return order if len(order) == len(array) else np.lexsort((low, high))


def as_keys(array: Bytes) -> Keys:
    """Returns the rows of an array of shape (rows, 16) as keys."""
    return np.ascontiguousarray(array).view("S16")[:, 0] if len(array) else np.empty(0, "S16")


def bytes_of(keys: Keys) -> Bytes:
    """Returns keys as an array of shape (rows, 16)."""
    return np.ascontiguousarray(keys).view(np.uint8).reshape(-1, 16)


def keys_of(values: list[bytes]) -> Keys:
    """Returns 16-byte strings as keys, in the same order."""
    return as_keys(np.frombuffer(b"".join(values), np.uint8).reshape(-1, 16))


def key_bytes(column: pa.FixedSizeBinaryArray) -> Bytes:
    """Returns the values of a column, shape (rows, 16), not copied."""
    data = np.frombuffer(column.buffers()[1], np.uint8).reshape(-1, 16)
    return data[column.offset : column.offset + len(column)]


def stacked(blocks: list[Bytes]) -> Bytes:
    """Returns the rows of all blocks, shape (rows, 16)."""
    return np.concatenate(blocks) if blocks else np.empty((0, 16), np.uint8)


def firsts(keys: Keys) -> Mask:
    """Marks the first of each run of equal keys; the keys are sorted."""
    mask = np.ones(len(keys), np.bool_)
    mask[1:] = keys[1:] != keys[:-1]
    return mask


def text_ranks(batch: pa.RecordBatch) -> Ints:
    """Returns the rank of the caption of each row; the highest is the best."""
    has_language = pc.not_equal(batch.column("language"), "").to_numpy(zero_copy_only=False)
    length = pc.utf8_length(batch.column("caption")).to_numpy()
    ranks: Ints = (has_language * _LANGUAGE_RANK + np.minimum(length, _MAX_TEXT_RANK)).astype(np.int32)
    return ranks


class KeyArray:
    """Keys as a parameter of type uuid[]."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys


class KeyArrayDumper(Dumper):
    """Writes a binary array: dimensions, flags, type, length, lower bound; then length and bytes of each."""

    format = Format.BINARY
    oid = 2951  # uuid[]

    def dump(self, obj: KeyArray) -> bytes:
        count = len(obj.keys)
        header = np.array([1, 0, 2950, count, 1], ">i4").tobytes()
        elements = np.empty((count, 20), np.uint8)
        elements[:, :4] = (0, 0, 0, 16)
        elements[:, 4:] = bytes_of(obj.keys)
        return header + elements.tobytes()


psycopg.adapters.register_dumper(KeyArray, KeyArrayDumper)
