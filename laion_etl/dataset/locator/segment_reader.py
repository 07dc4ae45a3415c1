"""Reads segments of a locator (segment_writer.py): which units may hold what is looked up.

Nothing of a damaged segment is trusted: each bucket has a checksum, the other files their SHA-256 in the
stats. It is left out with a warning, and the files that it names are read.
"""

import hashlib
import io
import logging
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from laion_etl.blocklists.near_hashes import Hashes as PdqHashes
from laion_etl.blocklists.near_hashes import NearListed
from laion_etl.core.errors import DamagedFileError, InputError, MissingFileError
from laion_etl.core.formats import check_format
from laion_etl.core.kernels import Hashes
from laion_etl.core.parquet_bounds import BoundedParquet
from laion_etl.core.plain_json import NOT_AS_EXPECTED
from laion_etl.core.stage_stats import Output, StageStats
from laion_etl.dataset.locator.keys import WantedKeys
from laion_etl.dataset.locator.segment_writer import FORMAT, PDQ_RECORD, url_rules
from laion_etl.io.storage import Store

_ENTRY_BYTES = 6
_GAP_BYTES = 1 << 16  # buckets so close together are read at once
_READ_BYTES = 1 << 22
_MOST_BITS = 32  # of the first part of a key that its bucket may stand for
_READERS = 4  # of one segment; several are read at once
_log = logging.getLogger(__name__)

Units = NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class Segment:
    """A finished segment: its name in the store without endings, and its stats."""

    stem: str
    stats: StageStats

    @property
    def url_rules(self) -> object:
        """The URL rules that its links were hashed by; None where the stats name none."""
        return self.stats.details.get("url_rules")

    @property
    def slice(self) -> tuple[str, str]:
        """What its units are, and the name of the first. Raises one of NOT_AS_EXPECTED without them."""
        kind, first = self.stats.details["slice"]
        return str(kind), str(first)

    @property
    def usable(self) -> bool:
        """Whether links were hashed by the URL rules that requests are looked up by today."""
        return bool(self.url_rules == url_rules())

    def output(self, ending: str) -> Output:
        return next(one for one in self.stats.outputs if one.name == self.stem + ending)


def read_segment(stem: str, store: Store) -> Segment | None:
    """Return the segment; None, with a warning, if it cannot be used."""
    uri = store.uri(f"{stem}.json")
    try:
        stats = store.read_stats(f"{stem}.json")
        check_format(uri, stats.details.get("format"), FORMAT)
        segment = Segment(stem, stats)
        for ending in (".keys", ".pdq", ".parquet"):
            segment.output(ending)
        _ = segment.slice
        if not 0 <= (bits := int(stats.details["bucket_bits"])) <= _MOST_BITS:
            raise ValueError(f"its keys cannot be in 2^{bits} buckets")
    except (DamagedFileError, MissingFileError, InputError, StopIteration, *NOT_AS_EXPECTED) as error:
        _log.warning("%s is not used: %s", uri, error)
        return None
    if not segment.usable:
        _log.warning(
            "%s is not used: it was made by the URL rules %s, today's are %s; run "
            "`laion-etl dataset locate --crawl %s`",
            uri, segment.url_rules or "of an earlier release", url_rules(), stats.crawl,
        )  # fmt: skip
    return segment if segment.usable else None


def read_files(segment: Segment, store: Store) -> pa.Table:
    """Read which files the units were made from. Raises DamagedFileError."""
    data = store.read(segment.stem + ".parquet")
    _check(segment, ".parquet", hashlib.sha256(data).hexdigest(), store)
    try:
        return BoundedParquet(io.BytesIO(data)).read()
    except (pa.ArrowException, OSError) as error:
        raise _damaged(store.uri(segment.stem + ".parquet")) from error


def find_units(segment: Segment, wanted: WantedKeys, store: Store) -> Units:
    """Return the units that may hold what is wanted, ascending. Raises DamagedFileError."""
    found = [_units_of_keys(segment, wanted.keys, store)]
    if len(wanted.pdq):
        found += _units_near(segment, wanted.pdq, wanted.pdq_distance, store)
    return np.unique(np.concatenate(found))


def _units_of_keys(segment: Segment, keys: Hashes, store: Store) -> Units:
    entries, bits = int(segment.stats.details["entries"]), int(segment.stats.details["bucket_bits"])
    if not entries or not keys.size:
        return np.empty(0, np.uint16)
    name, at = segment.stem + ".keys", entries * _ENTRY_BYTES
    size = 4 * (2 * (1 << bits) + 1)
    index = np.frombuffer(_read(segment, at, size, store), "<u4")
    before, checksums = index[: (1 << bits) + 1].astype(np.int64), index[(1 << bits) + 1 :]
    buckets = (keys >> np.uint64(64 - bits) if bits else np.zeros_like(keys)).astype(np.int64)
    short = (keys >> np.uint64(32 - bits)).astype("<u4")
    if before[-1] != entries or (np.diff(before) < 0).any():
        raise _damaged(store.uri(name))
    found = [np.empty(0, np.uint16)]
    with ThreadPoolExecutor(_READERS) as pool:
        spans = list(_spans(np.unique(buckets), before * _ENTRY_BYTES))
        reads = pool.map(lambda span: _read(segment, span[1], span[2] - span[1], store), spans)
        for (numbers, start, _), data in zip(spans, reads, strict=True):
            for bucket in numbers:
                first, last = (int(one) * _ENTRY_BYTES - start for one in before[bucket : bucket + 2])
                if zlib.crc32(data[first:last]) != checksums[bucket]:
                    raise _damaged(store.uri(name))
                here = short[np.searchsorted(buckets, bucket) : np.searchsorted(buckets, bucket, "right")]
                found.append(_units_in(data[first:last], here))
    return np.concatenate(found)


def _units_in(bucket: bytes, wanted: NDArray[np.uint32]) -> Units:
    count = len(bucket) // _ENTRY_BYTES
    keys, units = np.frombuffer(bucket, "<u4", count), np.frombuffer(bucket, "<u2", count, 4 * count)
    starts, ends = np.searchsorted(keys, wanted), np.searchsorted(keys, wanted, "right")
    return np.concatenate([units[start:end] for start, end in zip(starts, ends, strict=True)])


def _spans(buckets: NDArray[np.int64], ends: NDArray[np.int64]) -> Iterator[tuple[list[int], int, int]]:
    """Yield buckets to be read together, and the first byte and the end of what is read."""
    together: list[int] = []
    for bucket in buckets.tolist():
        if ends[bucket] == ends[bucket + 1]:
            continue
        if together and (
            ends[bucket] - ends[together[-1] + 1] > _GAP_BYTES
            or ends[bucket + 1] - ends[together[0]] > _READ_BYTES
        ):
            yield together, int(ends[together[0]]), int(ends[together[-1] + 1])
            together = []
        together.append(bucket)
    if together:
        yield together, int(ends[together[0]]), int(ends[together[-1] + 1])


def _units_near(segment: Segment, wanted: PdqHashes, distance: int, store: Store) -> Iterator[Units]:
    """Read all PDQ hashes and yield the units of those that are near."""
    listed = NearListed(wanted, distance)
    size, digest = segment.output(".pdq").bytes, hashlib.sha256()
    at_once = _READ_BYTES // PDQ_RECORD.itemsize * PDQ_RECORD.itemsize
    for start in range(0, size, at_once):
        data = store.read_range(segment.stem + ".pdq", start, min(at_once, size - start))
        digest.update(data)
        records = np.frombuffer(data[: len(data) // PDQ_RECORD.itemsize * PDQ_RECORD.itemsize], PDQ_RECORD)
        yield records["unit"][listed.near(records["pdq"])]
    _check(segment, ".pdq", digest.hexdigest(), store)


def _read(segment: Segment, start: int, size: int, store: Store) -> bytes:
    data = store.read_range(segment.stem + ".keys", start, size)
    if len(data) != size:
        raise _damaged(store.uri(segment.stem + ".keys"))
    return data


def _check(segment: Segment, ending: str, sha256: str, store: Store) -> None:
    if segment.output(ending).sha256 != sha256:
        raise _damaged(store.uri(segment.stem + ending))


def _damaged(uri: str) -> DamagedFileError:
    return DamagedFileError(f"cannot read {uri}: it is not the file of its stats; locate its crawl again")
