"""The pairs parquet of a partition: its keys, and its texts by row.

The file is in the order of the WAT files, and is loaded in the order of the keys. Reading the parquet again
for every key range was refused: decoding it takes half as long as loading it. So its texts wait, encoded, in
memory or on the local disk (pair_texts.py).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from laion_etl.core.errors import DamagedFileError
from laion_etl.core.parquet_bounds import BoundedParquet
from laion_etl.core.schemas import PAIR_FILES
from laion_etl.core.stage_stats import Output
from laion_etl.database.dedupe_keys import (
    Candidates,
    DedupeRule,
    as_keys,
    ascending,
    firsts,
    key_bytes,
    stacked,
    text_ranks,
    url_keys,
)
from laion_etl.database.pair_texts import PairTexts, TextsReader
from laion_etl.io.outputs import is_output
from laion_etl.io.storage import Store

_ROWS_PER_READ = 1 << 14  # so few that a batch is still in the cache when it is encoded
_ADVICE = "delete it and its stats, and parse its partition again"
_SOURCE = "caption_source"
_TEXTS = ["url", "caption", "language", _SOURCE, "page_url", "license"]


class PairsFile:
    """The pairs parquet of a partition, read once for its keys and a second time for its texts.

    Raises DamagedFileError for a file that is not one, or is of another size or SHA-256 than `expected`;
    InputError for one of a newer version. Both readings compare: rows have other numbers once a removal has
    rewritten the file. That costs 0.06 microseconds a pair each, 0.6% of loading it.
    """

    def __init__(self, store: Store, name: str, rule: DedupeRule, expected: Output | None = None) -> None:
        self._expected = expected
        self._store = store
        self._name = name
        self._rule = rule

    def candidates(self) -> Candidates:
        """Returns all keys of the file; takes about 60 bytes of memory per pair."""
        with self._naming_damage():
            return self._candidates_by_url() if self._rule is DedupeRule.URL else self._candidates_by_pair()

    def _candidates_by_pair(self) -> Candidates:
        ids = stacked([key_bytes(batch.column(0)) for batch in self._batches(["pair_id"])])
        keys, order = as_keys(ids), ascending(ids)
        rows = order[firsts(keys[order])]
        return Candidates(keys[rows], rows)

    def _candidates_by_url(self) -> Candidates:
        keys, ranks, hashes = [], [], []
        for batch in self._batches(["pair_id", "url", "caption", "language"]):
            keys.append(url_keys(batch.column("url")))
            ranks.append(text_ranks(batch))
            hashes.append(key_bytes(batch.column("pair_id")))
        key, pair = as_keys(stacked(keys)), as_keys(stacked(hashes))
        rank = np.concatenate(ranks) if ranks else np.empty(0, np.int32)
        order = np.lexsort((pair, -rank, key))
        rows = order[firsts(key[order])]
        return Candidates(key[rows], rows, rank[rows], pair[rows])

    def texts(self, candidates: Candidates) -> PairTexts:
        """Returns the texts of these candidates; to be used in a with statement.

        Pages are numbered from 0 in the order of the file.
        """
        with self._naming_damage(), self._opened() as parquet:
            texts = TextsReader(candidates, parquet.metadata.num_rows)
            try:
                for batch in self._batches_of(parquet, _TEXTS):
                    texts.add(batch)
                return texts.finish()
            except BaseException:  # its frames, and the files with them, may be kept for long
                texts.close()
                raise

    def _batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        with self._opened() as parquet:
            yield from self._batches_of(parquet, columns)

    @contextmanager
    def _opened(self) -> Iterator[BoundedParquet]:
        with self._store.open(self._name) as file:
            if self._expected is not None and not is_output(file, self._expected, self._store):
                raise DamagedFileError(
                    f"cannot load {self._store.uri(self._name)}: it is not the file that its stats describe; "
                    f"if a removal is running or was interrupted, run that to its end; otherwise {_ADVICE}"
                )
            parquet = BoundedParquet(file)
            PAIR_FILES.check_number(parquet.schema_arrow, self._store.uri(self._name))
            yield parquet

    @contextmanager
    def _naming_damage(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise self._damaged(error) from error
        except OSError as error:
            if error.errno is not None:  # of the local disk
                raise
            raise self._damaged(error) from error  # pyarrow's for a page that cannot be decoded

    def _damaged(self, cause: object) -> DamagedFileError:
        return DamagedFileError(f"cannot read {self._store.uri(self._name)}: {cause}; {_ADVICE}")

    def _batches_of(self, parquet: BoundedParquet, columns: list[str]) -> Iterator[pa.RecordBatch]:
        names = PAIR_FILES.former_names(columns, parquet.schema_arrow)
        found = [name for name in names if name != _SOURCE or name in parquet.schema_arrow.names]
        types = {field.name: field.type for field in parquet.schema_arrow}
        for name, wanted in zip(names, columns, strict=True):
            if name in found and types.get(name) != PAIR_FILES.schema.field(wanted).type:
                raise self._damaged(f"it does not have the column {name} of pairs")
        for batch in parquet.iter_batches(_ROWS_PER_READ, found):
            if any(batch.column(name).null_count for name in found if name != _SOURCE):
                raise self._damaged("a value is missing")
            if len(batch):
                yield _complete(batch.select(found), names).rename_columns(columns)


def _complete(batch: pa.RecordBatch, names: list[str]) -> pa.RecordBatch:
    """Returns rows in which the source of a caption is empty where it is null, or missing in the file."""
    if _SOURCE not in names:
        return batch
    if _SOURCE in batch.schema.names:
        sources = pc.fill_null(batch.column(_SOURCE), "")
    else:
        sources = pa.repeat(pa.scalar(""), len(batch))
    columns = [sources if name == _SOURCE else batch.column(name) for name in names]
    return pa.RecordBatch.from_arrays(columns, names)
