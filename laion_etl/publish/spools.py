"""Records in temporary files (TMPDIR)."""

from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from laion_etl.publish.band_files import IMAGE


class Spool:
    """Records in a temporary file."""

    def __init__(self, file: IO[bytes], dtype: np.dtype[Any] = IMAGE) -> None:
        self._file = file
        self._dtype = dtype
        self.count = 0

    def add(self, records: NDArray[Any]) -> None:
        self._file.write(records.tobytes())
        self.count += len(records)

    def read(self) -> NDArray[Any]:
        """Return all records, mapped."""
        self._file.flush()
        if not self.count:
            return np.empty(0, self._dtype)
        return np.memmap(self._file, self._dtype, "r", shape=(self.count,))
