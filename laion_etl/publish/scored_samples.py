"""Reads the samples of a scored shard as they are: members of its tar, and rows of its embeddings.

The tar is copied to memory, or to local disk if it is large, and compared with its stats before anything of
it is used: what is damaged would otherwise be noticed when half of it has been written elsewhere.
"""

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from tempfile import SpooledTemporaryFile
from typing import IO, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from laion_etl.core.errors import DamagedFileError, InputError, MissingFileError
from laion_etl.core.ids import batch_name
from laion_etl.core.npy import read_array
from laion_etl.core.quantities import quantity
from laion_etl.core.stage_stats import Output
from laion_etl.dataset.joined_samples import EMBEDDINGS, TAR
from laion_etl.dataset.scored import ScoredBatch, ScoredCrawl
from laion_etl.io.storage import Store, storage_errors
from laion_etl.io.tarshard import TarError, member_places

_IN_MEMORY_BYTES = 64_000_000
_BYTES_PER_READ = 1 << 20
_AHEAD = 2

Vectors = NDArray[np.float16]
Place = tuple[str, int, int]  # name of a member, offset of its data in the tar, bytes


@dataclass(frozen=True, slots=True)
class ScoredSamples:
    """The samples of a scored shard.

    `places`: the members of each key, in the order of the tar. `vectors`: for each ending of a file of
    embeddings a matrix (samples, dimensions), whose row i belongs to the i-th key.
    """

    tar: IO[bytes]
    places: Mapping[str, Sequence[Place]]
    vectors: Mapping[str, Vectors]

    @property
    def dims(self) -> dict[str, int]:
        """The dimensions of each kind of embeddings."""
        return {ending: int(matrix.shape[1]) for ending, matrix in self.vectors.items()}

    def close(self) -> None:
        """Close the copy of the tar."""
        self.tar.close()

    def members(self, key: str) -> Iterator[tuple[str, bytes]]:
        """Yield name and data of the members of a sample."""
        for name, offset, size in self.places[key]:
            self.tar.seek(offset)
            yield name, self.tar.read(size)


class SamplesAhead(AbstractContextManager["SamplesAhead"]):
    """Copies the scored shards of a crawl, in order, while those before them are used.

    A store answers a request in tens of milliseconds and sends a tar in half a second, and a process that
    waits for it does nothing else. At most three copies exist at once, with 64 MB each in memory.
    """

    def __init__(self, scored: ScoredCrawl, store: Store) -> None:
        self._scored = scored
        self._store = store
        self._next = iter([batch for batch in scored.batches if batch.kept])
        self._begun: dict[int, Future[ScoredSamples]] = {}
        self._pool = ThreadPoolExecutor(_AHEAD)

    def __enter__(self) -> "SamplesAhead":
        self._begin(_AHEAD)
        return self

    def __exit__(self, *_: object) -> None:
        for number in list(self._begun):
            self.forget(number)
        self._pool.shutdown(cancel_futures=True)

    @contextmanager
    def samples(self, number: int) -> Iterator[ScoredSamples]:
        """Return the samples of a batch that has any; raises like `open_samples`."""
        reading = self._begun.pop(number)
        self._begin(1)
        with closing(reading.result()) as samples:
            yield samples

    def forget(self, number: int) -> None:
        """Skip a batch none of whose samples are wanted."""
        if reading := self._begun.pop(number, None):
            self._begin(1)
            reading.cancel()
            reading.add_done_callback(_close)

    def _begin(self, count: int) -> None:
        for batch in islice(self._next, count):
            stem = self._scored.shard_name(batch.number, "")
            self._begun[batch.number] = self._pool.submit(open_samples, stem, batch, self._store)


def _close(reading: "Future[ScoredSamples]") -> None:
    if not reading.cancelled() and reading.exception() is None:
        reading.result().close()


def open_samples(stem: str, batch: ScoredBatch, store: Store) -> ScoredSamples:
    """Open a scored shard, whose files begin with `stem`; the caller closes it.

    Raises InputError if its tar or its embeddings are missing, damaged, or not those that its stats describe,
    ServiceError if the store cannot be read. Its errors have names in the store, not addresses, because they
    are recorded in the dataset.
    """
    outputs = {output.name.removeprefix(stem): output for output in batch.outputs}
    if TAR not in outputs:
        raise _unusable(batch, stem + TAR, "the stats of the shard do not name it")
    with ExitStack() as stack:
        tar = cast("BinaryIO", stack.enter_context(SpooledTemporaryFile(_IN_MEMORY_BYTES)))
        _copy(outputs[TAR], batch, tar, store)
        places = _places(batch, stem + TAR, tar)
        found = (ending for ending in EMBEDDINGS if ending in outputs)
        vectors = {ending: _vectors(outputs[ending], len(places), batch, store) for ending in found}
        stack.pop_all()
        return ScoredSamples(tar, places, vectors)


def _copy(output: Output, batch: ScoredBatch, target: BinaryIO, store: Store) -> None:
    """Copy a file of a shard. Raises InputError unless it has the bytes that its stats describe."""
    digest, size = hashlib.sha256(), 0
    try:
        with store.open(output.name) as source, storage_errors("read", store.uri(output.name)):
            while size <= output.bytes and (block := source.read(_BYTES_PER_READ)):
                digest.update(block)
                size += len(block)
                target.write(block)
    except MissingFileError as error:
        raise _unusable(batch, output.name, "it is missing") from error
    except DamagedFileError as error:
        raise _unusable(batch, output.name, "it is damaged") from error
    if (size, digest.hexdigest()) != (output.bytes, output.sha256):
        raise _unusable(batch, output.name, "it is not the file that its stats describe")


def _places(batch: ScoredBatch, name: str, tar: BinaryIO) -> dict[str, list[Place]]:
    """Return the members of each key. Raises InputError unless those of a key are adjacent."""
    places: dict[str, list[Place]] = {}
    last = ""
    try:
        for member in member_places(tar):
            key = member[0].partition(".")[0]
            if key != last and key in places:
                raise _unusable(batch, name, f"the members of {key} are not adjacent")
            places.setdefault(key, []).append(member)
            last = key
    except TarError as error:
        raise _unusable(batch, name, str(error)) from error
    return places


def _vectors(output: Output, samples: int, batch: ScoredBatch, store: Store) -> Vectors:
    data = io.BytesIO()
    _copy(output, batch, data, store)
    data.seek(0)
    try:
        matrix = read_array(data)
    except ValueError as error:
        raise _unusable(batch, output.name, f"it is not a file of numpy ({error})") from error
    if matrix.dtype != np.float16 or matrix.ndim != 2 or len(matrix) != samples:
        raise _unusable(
            batch,
            output.name,
            f"it has {matrix.dtype} {matrix.shape}, the tar has {quantity(samples, 'sample')}",
        )
    return cast("Vectors", matrix)


def _unusable(batch: ScoredBatch, name: str, cause: str) -> InputError:
    return InputError(
        f"cannot join the samples of batch {batch_name(batch.number)}: {name} cannot be used, {cause}; "
        "score the batch again"
    )
