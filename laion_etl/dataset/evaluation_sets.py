"""Evaluation sets that datasets are kept apart from: `evaluation/<name>.parquet` in the store.

A set is the embeddings of its images, with the model that made them. It is in the store because every range
that is published needs it, as does a removal years later. So a name always stands for one content: another
content needs another name.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from laion_etl.core.errors import InputError, MissingFileError
from laion_etl.core.formats import check_format
from laion_etl.core.npy import read_array
from laion_etl.core.parquet_bounds import LARGE_TABLE_BYTES, BoundedParquet
from laion_etl.core.plain_json import NOT_AS_EXPECTED
from laion_etl.io.storage import Store

FORMAT = 1
FOLDER = "evaluation"
_COLUMN = "embedding"
_KEYS = ("laion_etl.format", "laion_etl.model", "laion_etl.weights_sha256")


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """Embeddings of the images of a set (n, dimensions); `sha256` is that of its file in the store."""

    name: str
    model: str
    weights_sha256: str
    vectors: NDArray[np.float16]
    sha256: str = ""

    def is_of(self, model: str) -> bool:
        """Whether a model, as `ScoredBatch` describes it, made the embeddings."""
        return (model + ",").startswith(f"{self.model}, weights {self.weights_sha256[:12]},")

    def to_plain(self) -> dict[str, Any]:
        """Return what card and manifest say about the set."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "images": len(self.vectors),
            "model": self.model,
            "weights_sha256": self.weights_sha256,
        }


def file_of(name: str) -> str:
    """Return the name in the store of a set."""
    return f"{FOLDER}/{name}.parquet"


def write_set(found: EvaluationSet, store: Store) -> EvaluationSet:
    """Write a set to the store; returns it with its SHA-256. Raises InputError if the name is taken."""
    if not len(found.vectors) or not np.isfinite(found.vectors).all():
        raise InputError(
            f"cannot use {found.name} as an evaluation set: it has no embeddings, or some that are not "
            "finite numbers; embed its images again"
        )
    metadata = dict(zip(_KEYS, (str(FORMAT), found.model, found.weights_sha256), strict=True))
    lists = pa.FixedSizeListArray.from_arrays(pa.array(found.vectors.ravel()), found.vectors.shape[1])
    table = pa.table({_COLUMN: lists}).replace_schema_metadata(metadata)
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    data, name = sink.getvalue(), file_of(found.name)
    if store.exists(name) and store.read(name) != data:
        raise InputError(
            f"cannot write {store.uri(name)}: a set of this name has other embeddings; choose another name"
        )
    store.write(name, data)
    return read_set(found.name, store)


def read_set(name: str, store: Store) -> EvaluationSet:
    """Read a set. Raises InputError if it is not there or is not one."""
    try:
        data = store.read(file_of(name))
        table = BoundedParquet(io.BytesIO(data)).read(most_bytes=LARGE_TABLE_BYTES)
        number, model, weights = ((table.schema.metadata or {})[key.encode()].decode() for key in _KEYS)
        check_format(store.uri(file_of(name)), int(number), FORMAT)
        vectors = _finite(vectors_of(table[_COLUMN]))
        return EvaluationSet(name, model, weights, vectors, hashlib.sha256(data).hexdigest())
    except MissingFileError as error:
        raise InputError(
            f"cannot find the evaluation set {name}: {store.uri(file_of(name))} does not exist; make it by "
            "`laion-etl dataset evaluation-set`"
        ) from error
    except (pa.ArrowException, OSError, *NOT_AS_EXPECTED) as error:
        raise InputError(
            f"cannot read {store.uri(file_of(name))}: it is not an evaluation set ({error}); restore it"
        ) from error


def _finite(vectors: NDArray[np.float16]) -> NDArray[np.float16]:
    if not np.isfinite(vectors).all():  # one NaN would make every sample far from all images
        raise ValueError("some of its embeddings are not finite numbers")
    return vectors


def read_sets(names: Sequence[str], store: Store) -> list[EvaluationSet]:
    """Read sets, in the order of their names. Raises InputError like `read_set`."""
    return [read_set(name, store) for name in sorted({*names})]


def described_sets(names: Sequence[str], store: Store) -> list[Mapping[str, Any]]:
    """Return what card and manifest say about sets."""
    return [one.to_plain() for one in read_sets(names, store)]


def vectors_of(column: pa.ChunkedArray) -> NDArray[np.float16]:
    """Return a column of lists of numbers, all of one length, as a matrix. Raises TypeError or ValueError."""
    if not isinstance(column.type, pa.ListType | pa.LargeListType | pa.FixedSizeListType):
        raise TypeError(f"its embeddings are {column.type}, not lists of numbers")
    lists = column.combine_chunks()
    flat = lists.flatten().to_numpy(zero_copy_only=False)
    if not len(lists) or len(flat) % len(lists) or lists.null_count:
        raise ValueError("its embeddings do not all have the same number of dimensions")
    if isinstance(lists.type, pa.ListType | pa.LargeListType):
        lengths = np.unique(np.diff(lists.offsets.to_numpy()))
        if len(lengths) != 1:
            raise ValueError("its embeddings do not all have the same number of dimensions")
    with np.errstate(over="ignore"):  # to infinity, which is refused
        matrix: NDArray[np.float16] = flat.astype(np.float16).reshape(len(lists), -1)
    return matrix


def read_embeddings(path: Path, column: str) -> NDArray[np.float16]:
    """Read embeddings from a .npy file, or from a column of a .parquet file. Raises InputError."""
    try:
        if path.suffix == ".npy":
            with path.open("rb") as file:
                found = read_array(file)
        else:
            with path.open("rb") as file:
                table = BoundedParquet(file).read([column], most_bytes=LARGE_TABLE_BYTES)
            found = vectors_of(table[column])
    except (pa.ArrowException, OSError, *NOT_AS_EXPECTED) as error:
        raise InputError(f"cannot read the embeddings in {path}: {error}; check the file") from error
    if found.ndim != 2 or found.dtype.kind != "f":
        raise InputError(
            f"cannot read the embeddings in {path}: it has {found.dtype} {found.shape}; it needs a matrix of "
            "numbers, a row for each image"
        )
    matrix: NDArray[np.float16] = found.astype(np.float16)
    return matrix
