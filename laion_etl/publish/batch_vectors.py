"""The image embeddings of scored batches, looked up by the keys of samples."""

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from laion_etl.blocklists.near_hashes import Ints
from laion_etl.core.errors import InputError, MissingFileError
from laion_etl.core.ids import INDEX_DIGITS, MAX_BATCH_PAIRS, batch_name
from laion_etl.core.npy import read_array
from laion_etl.core.parquet_bounds import BoundedParquet
from laion_etl.core.quantities import quantity
from laion_etl.core.schemas import scored_stem
from laion_etl.dataset.joined_samples import IMAGE_EMBEDDINGS
from laion_etl.dataset.scored import ScoredBatch, ScoredCrawl
from laion_etl.io.storage import Store

Vectors = NDArray[np.float16]
Floats = NDArray[np.float32]


def unit(vectors: Vectors | Floats) -> Floats:
    """Return vectors of length 1; zeros stay zeros."""
    found = vectors.astype(np.float32)
    lengths = np.sqrt(np.einsum("ij,ij->i", found, found))[:, None]
    np.divide(found, lengths, out=found, where=lengths > 0)
    return found


@dataclass(slots=True)
class BatchVectors:
    """Embeddings of the kept samples of a crawl. In memory are those of the batch that was last asked for.

    `label` makes some numbers of each embedding of a batch, for `labels_of`. It gets all of a batch, so that
    what it returns does not depend on which samples are asked for.
    """

    scored: ScoredCrawl
    store: Store
    label: Callable[[Floats], Ints] | None = None
    _number: int = -1
    _keys: NDArray[np.bytes_] = field(default_factory=lambda: np.empty(0, "S1"))
    _vectors: Vectors = field(default_factory=lambda: np.empty((0, 0), np.float16))
    _labels: Ints = field(default_factory=lambda: np.empty(0, np.int64))

    def of(self, keys: NDArray[np.bytes_]) -> Vectors:
        """Return the embeddings of kept samples of one batch, at least one."""
        rows = self._rows(keys)  # may read another batch
        return self._vectors[rows]

    def labels_of(self, keys: NDArray[np.bytes_]) -> Ints:
        """Return the labels of kept samples of one batch, at least one; a row for each."""
        rows = self._rows(keys)
        return self._labels[rows]

    def _rows(self, keys: NDArray[np.bytes_]) -> Ints:
        number = int(keys[0][:-INDEX_DIGITS])
        if number != self._number:
            batch = next(one for one in self.scored.batches if one.number == number)
            self._keys, self._vectors = read_vectors(self.scored.crawl, batch, self.store)
            self._labels = np.empty(0, np.int64) if self.label is None else self.label(unit(self._vectors))
            self._number = number
        rows: Ints = np.searchsorted(self._keys, keys)
        return rows


def read_vectors(crawl: str, batch: ScoredBatch, store: Store) -> tuple[NDArray[np.bytes_], Vectors]:
    """Return the keys of the kept samples of a batch, ascending, and the embeddings of their images.

    Raises InputError if the embeddings are missing, damaged or not those of the stats.
    """
    name = f"{scored_stem(crawl, batch.number)}{IMAGE_EMBEDDINGS}"
    output = next((one for one in batch.outputs if one.name == name), None)
    try:
        data = store.read(name)
        with store.open(f"{scored_stem(crawl, batch.number)}.parquet") as file:
            rows = BoundedParquet(file).read(["key", "reason"], MAX_BATCH_PAIRS)
        vectors = read_array(io.BytesIO(data))
    except (MissingFileError, ValueError, OSError, pa.ArrowException) as error:
        raise _unusable(batch, name, str(error)) from error
    keys = np.asarray(rows.filter(pc.field("reason").is_null())["key"].to_pylist(), "S")
    if output is None or hashlib.sha256(data).hexdigest() != output.sha256:
        raise _unusable(batch, name, "it is not the file that its stats describe")
    if vectors.dtype != np.float16 or vectors.ndim != 2 or len(vectors) != len(keys):
        raise _unusable(
            batch, name, f"it has {vectors.dtype} {vectors.shape} for {quantity(len(keys), 'sample')}"
        )
    if not np.isfinite(vectors).all():
        raise _unusable(batch, name, "it has values that are not finite numbers")
    return keys, cast("Vectors", vectors)


def _unusable(batch: ScoredBatch, name: str, cause: str) -> InputError:
    return InputError(
        f"cannot compare the embeddings of batch {batch_name(batch.number)}: {name} cannot be used, {cause}; "
        "score the batch again"
    )
