"""Reading a shard: its parquet lists the samples, its tar streams their members.

A shard as a whole must match its stats (sha256, number of samples, same keys): anything else is an
InputError. A single bad sample is local: it is passed on without its image or text. `SHARD_ERRORS` are those
of one shard; any other StorageError means that the store itself does not work.
"""

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.compute as pc

from laion_etl.core.errors import DamagedFileError, InputError, MissingFileError, StoreOutageError
from laion_etl.core.funnel import DownloadStatus
from laion_etl.core.ids import MAX_BATCH_PAIRS, batch_name
from laion_etl.core.parquet_bounds import BoundedParquet
from laion_etl.core.plain_json import parse_json
from laion_etl.core.quantities import quantity
from laion_etl.core.schemas import SHARD_FILES, shard_stem
from laion_etl.core.stage_stats import UNFINISHED, Output, StageStats
from laion_etl.io.storage import Store
from laion_etl.io.tarshard import TarError, read_members
from laion_etl.score.pixels import FORMATS

SHARD_ERRORS = (InputError, MissingFileError, DamagedFileError)
MAX_CHUNK_BYTES = 256_000_000
_MAX_MEMBERS = 8  # of one sample; a shard has three
_BLOCK_BYTES = 1 << 18  # read and hashed at a time: for each member, both cost 30 us of CPU a sample more

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample as it lies in the shard: its parquet row and its members by file ending."""

    row: Row
    members: dict[str, bytes]

    @property
    def key(self) -> str:
        return str(self.row["key"])

    @property
    def image(self) -> tuple[str, bytes] | None:
        """File ending and bytes of the image."""
        found = [(end, data) for end, data in self.members.items() if end in FORMATS]
        return found[0] if len(found) == 1 else None

    @property
    def text(self) -> str | None:
        """The text; None when it is missing, not UTF-8, or blank."""
        try:
            text = self.members.get("txt", b"").decode()
        except UnicodeDecodeError:
            return None
        return text if text.strip() else None

    @property
    def notes(self) -> dict[str, Any] | None:
        """The JSON object of the sample; None when it is missing or broken."""
        try:
            document = parse_json(self.members.get("json", b""))
        except ValueError:
            return None
        return document if isinstance(document, dict) else None

    @property
    def size(self) -> int:
        return sum(map(len, self.members.values()))


def read_shard_stats(crawl: str, batch: int, store: Store) -> StageStats:
    """Returns the stats of a downloaded shard; raises one of SHARD_ERRORS, also for those of another one."""
    name = f"{shard_stem(crawl, batch)}_stats.json"
    stats = store.read_stats(name)
    if (stats.stage, stats.crawl, stats.unit) != ("download", crawl, batch_name(batch)):
        raise InputError(
            f"cannot read {store.uri(name)}: it has the stats of {stats.stage} {stats.crawl} {stats.unit}; "
            "download the batch again"
        )
    if stats.fingerprint == UNFINISHED:
        raise InputError(
            f"cannot read {store.uri(name)}: its shard is not finished; download the batch again"
        )
    return stats


def shard_samples(shard: StageStats, store: Store) -> Iterator[Sample]:
    """`read_samples` of a downloaded shard; raises InputError also when its stats do not name its files.

    Like every other error of a shard it is raised when the first sample is asked for.
    """
    stem = shard_stem(shard.crawl, int(shard.unit))
    parquet, tar = (_output(shard, stem + ending) for ending in (".parquet", ".tar"))
    yield from read_samples(store, parquet, tar, shard.kept)


def _output(shard: StageStats, name: str) -> Output:
    for output in shard.outputs:
        if output.name == name:
            return output
    raise InputError(
        f"the stats of shard {shard.unit} of {shard.crawl} do not name {name}; download it again"
    )


def read_samples(store: Store, parquet: Output, tar: Output, expected: int) -> Iterator[Sample]:
    """Every successfully downloaded sample of a shard, by key; members of one sample in memory at a time.

    Raises InputError naming the file when it is damaged, has other bytes than its stats say, or when
    parquet and tar disagree; MissingFileError when one is missing.
    """
    rows = _successful_rows(store, parquet)
    if len(rows) != expected:
        raise InputError(
            f"{store.uri(parquet.name)} has {quantity(len(rows), 'sample')}, its stats say {expected}; "
            "download it again"
        )
    uri = store.uri(tar.name)
    with store.open(tar.name) as raw:
        file = _HashingReader(raw, uri)
        try:
            members = read_members(io.BufferedReader(file, _BLOCK_BYTES))
            yield from _joined(rows, _grouped(members, uri), uri)
        except TarError as error:
            raise InputError(f"cannot read the shard {uri}: {error}; download it again") from error
        file.check(tar)


def chunked(samples: Iterator[Sample], size: int) -> Iterator[list[Sample]]:
    """Lists of up to `size` samples, fewer when they are large."""
    chunk: list[Sample] = []
    held = 0
    for sample in samples:
        chunk.append(sample)
        held += sample.size
        if len(chunk) == size or held >= MAX_CHUNK_BYTES:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


def _successful_rows(store: Store, parquet: Output) -> list[Row]:
    uri = store.uri(parquet.name)
    with store.open(parquet.name) as file:
        reader = _HashingReader(file, uri)
        data = reader.read(parquet.bytes)
        reader.check(parquet)
    try:
        table = BoundedParquet(io.BytesIO(data)).read(most_rows=MAX_BATCH_PAIRS)
        SHARD_FILES.check(table.schema, uri, "download it again")
        good = table.filter(pc.equal(table["status"], DownloadStatus.SUCCESS.value))
        rows: list[Row] = good.sort_by("key").to_pylist()
    # OSError is pyarrow's for some damage: `data` is in memory.
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"cannot read {uri}: {error}; download it again") from error
    return rows


def _grouped(members: Iterator[tuple[str, bytes]], uri: str) -> Iterator[tuple[str, dict[str, bytes]]]:
    for key, named in groupby(members, key=lambda member: member[0].partition(".")[0]):
        group: dict[str, bytes] = {}
        for name, data in named:
            group[name.partition(".")[2]] = data
            if len(group) > _MAX_MEMBERS:
                raise InputError(f"the shard {uri} has over {_MAX_MEMBERS} members of {key!r}")
        yield key, group


def _joined(rows: list[Row], groups: Iterator[tuple[str, dict[str, bytes]]], uri: str) -> Iterator[Sample]:
    """Rows with their members; a row whose members are missing gets none."""
    key, members = next(groups, (None, {}))
    for row in rows:
        if key == row["key"]:
            yield Sample(row, members)
            key, members = next(groups, (None, {}))
        else:
            yield Sample(row, {})
    if key is not None:
        raise InputError(f"the shard {uri} has {key!r}, which its parquet lacks or has in another place")


class _HashingReader(io.RawIOBase):
    """Counts and hashes what is read, to compare it with the stats."""

    def __init__(self, file: BinaryIO, uri: str) -> None:
        self._file = cast("io.BufferedReader", file)
        self._uri = uri
        self._sha256 = hashlib.sha256()
        self._bytes = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        with self._disk_errors():
            data = self._file.read(size)
        self._count(memoryview(data))
        return data

    def readinto(self, buffer: Any, /) -> int:
        with self._disk_errors():
            count = self._file.readinto(buffer)
        self._count(memoryview(buffer)[:count])
        return count

    def _count(self, data: memoryview) -> None:
        self._sha256.update(data)
        self._bytes += len(data)

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        """A disk that fails is not a damaged shard."""
        try:
            yield
        except OSError as error:
            raise StoreOutageError(
                f"cannot read {self._uri}: {error}; check the disk or the file system of the store"
            ) from error

    def check(self, expected: Output) -> None:
        """Raises InputError unless these are the bytes the stats describe."""
        while self._bytes <= expected.bytes and self.read(1_000_000):
            pass
        if (self._bytes, self._sha256.hexdigest()) != (expected.bytes, expected.sha256):
            raise InputError(
                f"cannot use {self._uri}: it is not the file its stats describe; download it again"
            )
