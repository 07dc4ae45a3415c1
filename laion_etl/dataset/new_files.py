"""Files of a dataset that are written together and appear together, and row groups of its parquet files."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, ExitStack
from tempfile import SpooledTemporaryFile
from types import TracebackType
from typing import IO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from laion_etl.io.storage import Guard, NewFile, Store

ROWS_PER_GROUP = 32_768  # a writer holds up to this many rows of each file in memory


class RowGroups:
    """Writes rows to a parquet file in groups of a fixed size, so that its bytes do not depend on how they
    arrive."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer = writer
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0
        self.rows = 0

    def add(self, table: pa.Table) -> None:
        """Add rows."""
        self._waiting.append(table)
        self._waiting_rows += table.num_rows
        self.rows += table.num_rows
        while self._waiting_rows >= ROWS_PER_GROUP:
            self._write(ROWS_PER_GROUP)

    def finish(self) -> None:
        """Write the rows that are left, and the end of the file."""
        if self._waiting_rows:
            self._write(self._waiting_rows)
        self._writer.close()

    def _write(self, rows: int) -> None:
        waiting = pa.concat_tables(self._waiting)
        self._waiting, self._waiting_rows = [waiting.slice(rows)], self._waiting_rows - rows
        self._writer.write_table(waiting.slice(0, rows).combine_chunks(), row_group_size=rows)


class NewFiles(AbstractContextManager["NewFiles"]):
    """Files that are being written. They appear when the block ends, unless it raises."""

    def __init__(self, names: Iterable[str], store: Store, guard: Guard | None) -> None:
        with ExitStack() as stack:
            self._files = {name: stack.enter_context(store.create(name, guard)) for name in names}
            self._stack = stack.pop_all()

    def __getitem__(self, name: str) -> NewFile:
        return self._files[name]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    def spooled(self, memory_bytes: int) -> IO[bytes]:
        """Return a temporary file for what can only be written at the end."""
        return cast("IO[bytes]", self._stack.enter_context(SpooledTemporaryFile(memory_bytes)))

    def row_groups(self, name: str, schema: pa.Schema) -> RowGroups:
        """Begin one of the files as parquet; its `finish` comes before the end of the block."""
        writer = pq.ParquetWriter(self._files[name], schema, compression="zstd")
        return RowGroups(self._stack.enter_context(writer))
