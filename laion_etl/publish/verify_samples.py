"""Checks joined samples: the tar and the embeddings against the rows next to them, one tar at a time."""

from collections.abc import Callable
from itertools import groupby
from typing import BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from laion_etl.core.parquet_bounds import BoundedParquet
from laion_etl.core.quantities import quantity
from laion_etl.core.schemas import keys_of_ids
from laion_etl.dataset.joined_samples import PARQUET, TAR, is_joined, split_name
from laion_etl.dataset.row_streams import ascending
from laion_etl.dataset.subsets import DataFile
from laion_etl.io.tarshard import TarError, member_places

Ids = NDArray[np.int64]


class SamplesCheck:
    """Checks files in the order of their names: the rows of a tar come before the tar and its embeddings.

    `listed`: the names of all files of the version. `problem` is called with a file and what is wrong.
    """

    def __init__(self, listed: set[str], problem: Callable[[str, str], None]) -> None:
        self._listed = listed
        self._problem = problem
        self._stem = ""
        self._ids: Ids = np.empty(0, np.int64)
        self._last = ("", -1)  # crawl, and the last SAMPLE_ID of it

    def check(self, file: DataFile, raw: BinaryIO) -> None:
        """Check a file whose bytes are those of the manifest; does nothing for other files."""
        if not is_joined(file):
            return
        try:
            stem, ending = split_name(file.name)
            for needed in (TAR, PARQUET):
                if stem + needed not in self._listed:
                    self._problem(file.name, f"has no {needed} file in the manifest")
            if ending == PARQUET:
                self._stem, self._ids = stem, self._read_rows(file, raw)
            elif stem == self._stem:  # else the rows cannot be read, which is a problem of their own
                self._compare(file, ending, raw)
        except (TarError, ValueError, EOFError, OSError, pa.ArrowException) as error:
            self._problem(file.name, f"cannot be read to its end ({error})")

    def _read_rows(self, file: DataFile, raw: BinaryIO) -> Ids:
        table = BoundedParquet(raw).read(["SAMPLE_ID", "key", "crawl"])
        ids = np.asarray(table["SAMPLE_ID"].to_numpy(), np.int64)
        last = self._last[1] if self._last[0] == file.crawl else -1
        if not ascending(last, ids):
            self._problem(file.name, "has rows whose SAMPLE_ID repeats or is out of order")
        if ids.size:
            self._last = (file.crawl, int(ids[-1]))
        others = set(table["crawl"].unique().to_pylist()) - {file.crawl}
        if others or not table["key"].equals(keys_of_ids(table["SAMPLE_ID"])):
            self._problem(file.name, "has rows of another crawl, or with a wrong key")
        return ids

    def _compare(self, file: DataFile, ending: str, raw: BinaryIO) -> None:
        if ending != TAR:
            matrix_rows = _embeddings(raw)
            if matrix_rows != self._ids.size:
                self._problem(
                    file.name,
                    f"has {quantity(matrix_rows, 'embedding')} of {quantity(self._ids.size, 'sample')} in "
                    "float16",
                )
            return
        keys = [key for key, _ in groupby(place[0].partition(".")[0] for place in member_places(raw))]
        if not np.array_equal(np.array(keys, dtype=np.int64), self._ids):
            self._problem(
                file.name,
                f"has other samples, or in another order, than the {quantity(self._ids.size, 'row')}",
            )


def _embeddings(raw: BinaryIO) -> int:
    """Return the number of rows of a matrix of float16, -1 if it is none or is not whole."""
    version = np.lib.format.read_magic(raw)
    if version != (1, 0):
        return -1
    shape, _, kind = np.lib.format.read_array_header_1_0(raw)
    begin = raw.tell()
    size = raw.seek(0, 2) - begin
    whole = kind == np.float16 and len(shape) == 2 and size == 2 * shape[0] * shape[1]
    return int(shape[0]) if whole else -1
