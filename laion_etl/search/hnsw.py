"""The index of one part: usearch's HNSW graph over L2-normalised vectors, memory-mapped when read.

Equal vectors are stored once, as one node. A graph links a vector to its nearest ones, and for a much copied
image these are its own copies: they link to each other and to nothing else, so that a search finds some of
them and little besides. Of 800 copies among 40,000 rows it found 300, and with half of all rows equal recall
fell from 0.95 to 0.76.

usearch's files are plain arrays (vectors node by node, then the graph), not pickles. They begin with the
number of nodes and the bytes per node, so the vectors can be read without the library: `vectors` maps them,
and node i is the i-th vector that was new when it was added. Built by one thread, the same vectors give the
same bytes on the same kind of processor.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from usearch.index import Index

from laion_etl.core.errors import InputError
from laion_etl.io.tarshard import SequentialFile
from laion_etl.search.graph_file import HEADER_BYTES
from laion_etl.settings import IndexSettings

Floats = NDArray[np.float32]
Halves = NDArray[np.float16]
Rows = NDArray[np.int64]
Nodes = NDArray[np.int64]

# f16 uses inner products; usearch scales to i8 itself, and the cosine removes the scale again.
_METRICS = {"f16": "ip", "i8": "cos"}
_TYPES: dict[str, type[np.generic]] = {"f16": np.float16, "i8": np.int8}
_CHUNK = 1 << 16  # vectors compared at once in exact search
_COPY_BYTES = 1 << 22
# The last bits of a cosine depend on how many vectors are compared at once; they must not decide the order.
_DIGITS = 6


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
        self._nodes: dict[bytes, int] = {}  # by the digest of their vectors

    @property
    def nodes(self) -> int:
        """Number of different vectors so far."""
        return len(self._nodes)

    def add(self, vectors: Halves) -> Nodes:
        """Add the next rows (n, dim); return the node of each."""
        known = len(self._nodes)
        nodes = np.empty(len(vectors), np.int64)
        new: list[int] = []
        for row, vector in enumerate(np.ascontiguousarray(vectors)):
            digest = hashlib.blake2b(vector.tobytes(), digest_size=16).digest()
            nodes[row] = node = self._nodes.setdefault(digest, len(self._nodes))
            if node == known + len(new):
                new.append(row)
        keys = np.arange(known, known + len(new))
        self._index.add(keys, vectors[new], threads=1)  # with more threads the order of nodes would vary
        return nodes

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
    vectors: NDArray[np.generic]  # (nodes, dim), as stored

    @classmethod
    def open(cls, path: Path, dim: int, nodes: int, settings: IndexSettings, dtype: str) -> "Graph":
        """Map a file. Raises InputError unless its header matches the expected size."""
        advice = "delete it and run `laion-etl search index` again"
        kind = np.dtype(_TYPES[dtype])
        try:
            with path.open("rb") as file:
                found = np.frombuffer(file.read(HEADER_BYTES), np.uint32).tolist()
            index = Index(
                ndim=dim,
                metric=_METRICS[dtype],
                dtype=dtype,
                expansion_search=settings.expansion_search,
                enable_key_lookups=False,
            )
            if found != [nodes, dim * kind.itemsize]:
                raise InputError(
                    f"cannot read {path}: it holds {found}, not {nodes} vectors of {dim} numbers; {advice}"
                )
            with _errors_of_usearch(path, advice):
                index.view(path)
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}; {advice}") from error
        return cls(index, np.memmap(path, kind, "r", offset=HEADER_BYTES, shape=(nodes, dim)))

    def nearest(self, vector: Floats, count: int) -> tuple[Nodes, Floats]:
        """Return approximately the nearest nodes, nearest first, with their cosines."""
        found = self.index.search(vector, min(count, len(self.vectors)), threads=1)
        nodes = found.keys.astype(np.int64)
        return ordered(nodes, _rounded(1 - found.distances))

    def nearest_exact(self, vector: Floats, count: int, nodes: Nodes | None) -> tuple[Nodes, Floats]:
        """Return the nearest of the given nodes (None: of all), comparing the vector with each of them."""
        total = len(self.vectors) if nodes is None else len(nodes)
        best, cosines = np.empty(0, np.int64), np.empty(0, np.float32)
        for start in range(0, total, _CHUNK):
            end = min(start + _CHUNK, total)
            chosen = np.arange(start, end) if nodes is None else nodes[start:end]
            best, cosines = ordered(
                np.append(best, chosen), np.append(cosines, self.cosines(vector, chosen)), count
            )
        return best, cosines

    def cosines(self, vector: Floats, nodes: Nodes) -> Floats:
        """Return the cosine of the vector with each of the nodes."""
        return _rounded(self.floats(nodes) @ vector)

    def floats(self, nodes: Nodes) -> Floats:
        """Return the vectors of nodes as normalised float32."""
        stored = self.vectors[nodes].astype(np.float32)
        if self.vectors.dtype == np.int8:
            stored /= np.maximum(np.linalg.norm(stored, axis=1, keepdims=True), 1)  # 0: erased
        return stored


def ordered(places: Rows, cosines: Floats, count: int | None = None) -> tuple[Rows, Floats]:
    """Sort by cosine, highest first, and equal ones by place; return the first `count`."""
    order = np.lexsort((places, -cosines))[:count]
    return places[order], cosines[order]


def _rounded(cosines: NDArray[np.floating[Any]]) -> Floats:
    return np.round(cosines, _DIGITS).astype(np.float32)


@contextmanager
def _errors_of_usearch(path: Path, advice: str) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise InputError(f"cannot read {os.fspath(path)}: it is not an index ({error}); {advice}") from error
