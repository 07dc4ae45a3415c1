"""Erases vectors from the file of a graph. Does without usearch, so that removals do not need it."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from laion_etl.core.errors import DamagedFileError
from laion_etl.io.tarshard import SequentialFile

HEADER_BYTES = 8  # number of nodes and bytes of a vector, which the vectors follow
_COPY_BYTES = 1 << 22
_NODES_AT_ONCE = 1 << 14


def erase(path: Path, target: SequentialFile, nodes: NDArray[np.int64]) -> None:
    """Copy a graph with zeros in place of the vectors of some nodes, which stay as links between others.

    Raises DamagedFileError if the file is too short for its vectors.
    """
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
        total, size = np.frombuffer(header.ljust(HEADER_BYTES, b"\xff"), np.uint32).tolist()
        if HEADER_BYTES + total * size > path.stat().st_size:
            raise DamagedFileError(
                f"cannot take vectors out of {path.name}: it is too short for those that it says it has; run "
                "`laion-etl search index` again"
            )
        target.write(header)
        gone = set(nodes.tolist())
        for first in range(0, total, _NODES_AT_ONCE):
            count = min(_NODES_AT_ONCE, total - first)
            vectors = bytearray(file.read(count * size))
            for node in gone.intersection(range(first, first + count)):
                vectors[(node - first) * size : (node - first + 1) * size] = bytes(size)
            target.write(bytes(vectors))
        while data := file.read(_COPY_BYTES):
            target.write(data)
