"""Pictures that come more than once in a crawl: the best pair of each is published.

Two kept samples show the same picture when their files are equal (SHA-256), or when their PDQ hashes differ
in at most so many bits. Samples are taken from the best to the worst: higher similarity first, then more
pixels, then the lower key. One that shows the same picture as a sample that was taken is redundant.

Near ones are found by bands: cut into `bits + 1` bands, two hashes that differ in at most `bits` bits agree
in one of them, so samples are sorted by each band in turn and compared within its runs. With 10 bits bands
have 23 bits: eight million values, so that runs stay short up to some ten million samples, at some 300 bytes
each. Flat pictures, of which PDQ says nothing, have a hash with (almost) all bits equal: only by file.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from laion_etl.errors import SettingsError
from laion_etl.publish.scored import ScoredCrawl, read_batch
from laion_etl.settings import PublishSettings
from laion_etl.storage import Store

DUPLICATE = "duplicate_image"
NEAR_DUPLICATE = "near_duplicate_image"

_MODES = ("keep", "exact", "near")
_MOST_BITS = 15
_DIGEST_BYTES, _PDQ_BITS = 32, 256
_RUN = 512  # samples of one run of a band that are compared at once
_FEWEST_ONES = 96  # of a hash that says something: PDQ sets half of its 256 bits

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Redundant:
    """Keys of redundant samples, ascending, and why each is one."""

    keys: NDArray[np.bytes_]
    reasons: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def counts(self) -> dict[str, int]:
        return {reason: self.reasons.count(reason) for reason in sorted(set(self.reasons))}

    def mark(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """The rows with a reason for those that are redundant."""
        if not len(self):
            return rows
        keys = np.asarray(rows.column("key").to_pylist(), "S")
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        found = self.keys[places] == keys
        reasons = [
            self.reasons[place] if hit else None
            for place, hit in zip(places.tolist(), found.tolist(), strict=True)
        ]
        column = rows.schema.get_field_index("reason")
        marked = pc.coalesce(rows.column(column), pa.array(reasons, pa.string()))
        return rows.set_column(column, rows.schema.field(column), marked)


def find_redundant(scored: ScoredCrawl, settings: PublishSettings, store: Store) -> Redundant:
    """The kept samples of a crawl that settings leave out. Raises SettingsError for unknown settings."""
    if settings.duplicates not in _MODES:
        raise SettingsError(
            f"LAION_ETL_PUBLISH_DUPLICATES={settings.duplicates!r} is none of {', '.join(_MODES)}"
        )
    if not 0 <= settings.duplicate_bits <= _MOST_BITS:
        raise SettingsError(f"LAION_ETL_PUBLISH_DUPLICATE_BITS must be 0 to {_MOST_BITS}")
    if settings.duplicates == "keep":
        return Redundant(np.empty(0, "S1"), ())
    samples = _read(scored, store)
    better = samples.best_first()
    reasons: dict[int, str] = {}
    if settings.duplicates == "near":
        worse = _near(samples, better, settings.duplicate_bits)
        reasons |= dict.fromkeys(worse.tolist(), NEAR_DUPLICATE)
    reasons |= dict.fromkeys(_exact(samples, better).tolist(), DUPLICATE)
    places = sorted(reasons, key=lambda place: bytes(samples.keys[place]))
    keys = samples.keys[np.asarray(places, np.int64)]
    return Redundant(keys, tuple(reasons[place] for place in places))


@dataclass(frozen=True, slots=True)
class _Samples:
    keys: NDArray[np.bytes_]
    sha256: NDArray[np.bytes_]
    pdq: NDArray[np.uint8]  # (n, 32); zeros where there is none
    similarity: NDArray[np.float32]
    pixels: Ints

    def best_first(self) -> Ints:
        return np.lexsort((self.keys, -self.pixels, -self.similarity))


def _read(scored: ScoredCrawl, store: Store) -> _Samples:
    parts = []
    for batch in scored.batches:
        for rows in read_batch(scored, batch, store):
            kept = pa.Table.from_batches([rows]).filter(pc.field("reason").is_null())
            sides = (
                kept[name].cast(pa.int64()).fill_null(0) for name in ("original_width", "original_height")
            )
            pdq = b"".join(_digest(value) for value in kept["pdq"].to_pylist())
            parts.append(
                _Samples(
                    np.asarray(kept["key"].to_pylist(), "S"),
                    np.asarray([_digest(value) for value in kept["sha256"].to_pylist()], "S32"),
                    np.frombuffer(pdq, np.uint8).reshape(-1, _DIGEST_BYTES),
                    kept["similarity"].to_numpy().astype(np.float32),
                    pc.multiply(*sides).to_numpy().astype(np.int64),
                )
            )
    return _Samples(
        np.concatenate([part.keys for part in parts]),
        np.concatenate([part.sha256 for part in parts]),
        np.concatenate([part.pdq for part in parts]),
        np.concatenate([part.similarity for part in parts]),
        np.concatenate([part.pixels for part in parts]),
    )


def _digest(value: str | None) -> bytes:
    """32 bytes of a hexadecimal SHA-256 or PDQ hash; zeros for none."""
    return bytes.fromhex(value or "").rjust(_DIGEST_BYTES, b"\0")


def _exact(samples: _Samples, better: Ints) -> Ints:
    """All but the best of each group of equal files."""
    rank = np.empty(len(better), np.int64)
    rank[better] = np.arange(len(better))
    order = np.lexsort((rank, samples.sha256))
    same = samples.sha256[order][1:] == samples.sha256[order][:-1]
    redundant: Ints = order[1:][same]
    return redundant


def _near(samples: _Samples, better: Ints, bits: int) -> Ints:
    """Samples within `bits` of a better one that is not redundant itself."""
    ones = np.bitwise_count(samples.pdq).sum(axis=1)
    telling = better[(ones[better] >= _FEWEST_ONES) & (ones[better] <= _PDQ_BITS - _FEWEST_ONES)]
    hashes = samples.pdq[telling]  # rows from best to worst
    pairs: dict[int, list[int]] = {}
    for band in _bands(hashes, bits + 1):
        for run in _runs(band):
            for first, second in _close(hashes, run, bits):
                pairs.setdefault(max(first, second), []).append(min(first, second))
    dropped: set[int] = set()
    for worse in sorted(pairs):
        if any(one not in dropped for one in pairs[worse]):
            dropped.add(worse)
    redundant: Ints = telling[np.asarray(sorted(dropped), np.int64)]
    return redundant


def _bands(hashes: NDArray[np.uint8], count: int) -> Iterator[NDArray[np.uint64]]:
    """Each band of all hashes as a number: bands of equal width, the last ones one bit shorter."""
    for columns in np.array_split(np.arange(_PDQ_BITS), count):
        first = columns[0] // 8
        bits = np.unpackbits(hashes[:, first : columns[-1] // 8 + 1], axis=1)
        values = np.zeros(len(hashes), np.uint64)
        for column in columns[:64]:
            values = (values << np.uint64(1)) | bits[:, column - 8 * first]
        yield values


def _runs(band: NDArray[np.uint64]) -> Iterator[Ints]:
    """Places of equal numbers, where there are several."""
    order = np.argsort(band, kind="stable")
    ends = np.flatnonzero(np.append(band[order][1:] != band[order][:-1], True)) + 1
    starts = np.append(0, ends[:-1])
    for start, end in zip(starts[ends - starts > 1], ends[ends - starts > 1], strict=True):
        yield order[start:end]


def _close(hashes: NDArray[np.uint8], run: Ints, bits: int) -> Iterator[tuple[int, int]]:
    """Pairs of places of a run whose hashes differ in at most `bits` bits."""
    for start in range(0, len(run), _RUN):
        rows = run[start : start + _RUN]
        for other in range(start, len(run), _RUN):
            columns = run[other : other + _RUN]
            differing = np.bitwise_count(hashes[rows][:, None, :] ^ hashes[columns][None, :, :]).sum(axis=2)
            for first, second in zip(*np.nonzero(differing <= bits), strict=True):
                if rows[first] < columns[second]:
                    yield int(rows[first]), int(columns[second])
