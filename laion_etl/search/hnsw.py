"""The index of one part: usearch's HNSW graph over L2-normalised vectors, memory-mapped when read.

usearch's files are plain arrays (vectors row by row, then the graph), not pickles. They begin with the number
of rows and the bytes per row, so the vectors can be read without the library: `vectors` maps them, and row i
is the i-th that was added. Built by one thread, the same vectors give the same bytes on the same kind of
processor.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from usearch.index import Index

from laion_etl.core.errors import InputError
from laion_etl.io.tarshard import SequentialFile
from laion_etl.settings import IndexSettings

Floats = NDArray[np.float32]
Halves = NDArray[np.float16]
Rows = NDArray[np.int64]

# f16 uses inner products; usearch scales to i8 itself, and the cosine removes the scale again.
_METRICS = {"f16": "ip", "i8": "cos"}
_TYPES: dict[str, type[np.generic]] = {"f16": np.float16, "i8": np.int8}
_CHUNK = 1 << 16  # vectors compared at once in exact search
_COPY_BYTES = 1 << 22


class GraphWriter:
    """Collects vectors and writes them as an index."""

    def __init__(self, dim: int, settings: IndexSettings) -> None:
        self.dim = dim
        self._index = Index(
            ndim=dim,
            metric=_METRICS[settings.dtype],
            dtype=settings.dtype,
            connectivity=settings.connectivity,
            expansion_add=settings.expansion_add,
            enable_key_lookups=False,
        )
        self._rows = 0

    def add(self, vectors: Halves) -> None:
        """Add the next rows (n, dim)."""
        keys = np.arange(self._rows, self._rows + len(vectors))
        self._index.add(keys, vectors, threads=1)  # with more threads the order of rows would vary
        self._rows += len(vectors)

    def write(self, target: SequentialFile) -> None:
        """Write the index to an open file."""
        with tempfile.NamedTemporaryFile(suffix=".usearch") as spool:
            self._index.save(spool.name)
            while data := spool.read(_COPY_BYTES):
                target.write(data)


@dataclass(frozen=True, slots=True)
class Graph:
    """An index on disk, mapped into memory."""

    index: Index
    vectors: NDArray[np.generic]  # (rows, dim), as stored

    @classmethod
    def open(cls, path: Path, dim: int, rows: int, settings: IndexSettings, dtype: str) -> "Graph":
        """Map a file. Raises InputError unless its header matches the expected size."""
        advice = "delete it and run `laion-etl search index` again"
        kind = np.dtype(_TYPES[dtype])
        try:
            with path.open("rb") as file:
                found = np.frombuffer(file.read(8), np.uint32).tolist()
            index = Index(
                ndim=dim,
                metric=_METRICS[dtype],
                dtype=dtype,
                expansion_search=settings.expansion_search,
                enable_key_lookups=False,
            )
            if found != [rows, dim * kind.itemsize]:
                raise InputError(
                    f"cannot read {path}: it holds {found}, not {rows} rows of {dim} numbers; {advice}"
                )
            with _errors_of_usearch(path, advice):
                index.view(path)
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}; {advice}") from error
        return cls(index, np.memmap(path, kind, "r", offset=8, shape=(rows, dim)))

    def nearest(self, vector: Floats, count: int) -> tuple[Rows, Floats]:
        """Return approximately the nearest rows, nearest first, with their cosines."""
        found = self.index.search(vector, min(count, len(self.vectors)), threads=1)
        return found.keys.astype(np.int64), (1 - found.distances).astype(np.float32)

    def nearest_exact(self, vector: Floats, count: int, rows: Rows | None) -> tuple[Rows, Floats]:
        """Return the nearest of the given rows (None: of all), comparing the vector with each of them."""
        total = len(self.vectors) if rows is None else len(rows)
        best, cosines = np.empty(0, np.int64), np.empty(0, np.float32)
        for start in range(0, total, _CHUNK):
            end = min(start + _CHUNK, total)
            chosen = np.arange(start, end) if rows is None else rows[start:end]
            best = np.append(best, chosen)
            cosines = np.append(cosines, self.cosines(vector, chosen))
            if len(best) > count:
                order = np.argsort(-cosines, kind="stable")[:count]
                best, cosines = best[order], cosines[order]
        order = np.argsort(-cosines, kind="stable")
        return best[order], cosines[order]

    def cosines(self, vector: Floats, rows: Rows) -> Floats:
        """Return the cosine of the vector with each of the rows."""
        found: Floats = self.floats(rows) @ vector
        return found

    def floats(self, rows: Rows) -> Floats:
        """Return the rows as normalised float32."""
        stored = self.vectors[rows].astype(np.float32)
        if self.vectors.dtype == np.int8:
            stored /= np.linalg.norm(stored, axis=1, keepdims=True)
        return stored


@contextmanager
def _errors_of_usearch(path: Path, advice: str) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise InputError(f"cannot read {os.fspath(path)}: it is not an index ({error}); {advice}") from error
