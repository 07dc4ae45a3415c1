"""Files that would take gigabytes of memory, and damaged ones, are refused or read in small pieces."""

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from laion_etl.core import parquet_bounds
from laion_etl.core.parquet_bounds import BoundedParquet


def written(table: pa.Table, **options: object) -> io.BytesIO:
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd", "lz4", "brotli"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_all_kinds_of_pages_are_read(compression: str, version: str) -> None:
    columns = {
        "text": [f"{number % 700:0200d}" for number in range(3_000)],
        "number": list(range(3_000)),
        "null": pa.nulls(3_000, pa.string()),
        "empty": [b""] * 3_000,
    }
    table = pa.table(columns)
    file = written(table, compression=compression, data_page_version=version, row_group_size=1_000)
    found = BoundedParquet(file).iter_batches(700)
    assert pa.Table.from_batches(list(found)).equals(table)
    assert [batch.schema.names for batch in BoundedParquet(file).iter_batches(5_000, ["null"])] == [["null"]]


def test_a_row_group_without_rows_has_no_pages() -> None:
    empty = pa.table({"text": pa.array([], pa.string()), "number": pa.array([], pa.int64())})
    file = written(empty)
    assert pq.ParquetFile(file).num_row_groups == 1
    assert sum(batch.num_rows for batch in BoundedParquet(file).iter_batches(100)) == 0


def test_a_long_text_that_every_row_refers_to_is_read_with_few_rows_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parquet_bounds, "_MOST_BATCH_BYTES", 1 << 20)
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 100, pa.int8()), ["x" * 100_000])
    file = written(pa.table({"text": texts}), compression="zstd", store_schema=False)
    assert len(file.getbuffer()) < 5_000
    assert [batch.num_rows for batch in BoundedParquet(file).iter_batches(1_000)] == [10] * 10


def test_a_page_that_expands_to_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_bounds, "_MOST_PAGE_BYTES", 1 << 20)
    file = written(pa.table({"text": ["x" * (2 << 20)]}), compression="zstd", use_dictionary=False)
    with pytest.raises(pa.ArrowInvalid, match="it has a page of 2,097,"):
        BoundedParquet(file)


def test_thousands_of_columns_are_refused() -> None:
    with pytest.raises(pa.ArrowInvalid, match="it has 2,001 columns"):
        BoundedParquet(written(pa.table({str(number): [1] for number in range(2_001)})))


def test_a_large_footer_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large.parquet"
    with path.open("w+b") as file:
        file.truncate(100 << 20)  # takes no space
        file.seek(0, 2)
        file.write((90 << 20).to_bytes(4, "little") + b"PAR1")
        with pytest.raises(pa.ArrowInvalid, match="its footer has 94,371,840 bytes"):
            BoundedParquet(file)


@pytest.mark.parametrize("size", [1, 7, 30])
def test_a_damaged_file_is_refused_wherever_the_damage_is(size: int) -> None:
    content = written(pa.table({"text": ["a", "b"] * 50, "number": [1, 2] * 50})).getvalue()
    for at in range(4, len(content) - size, 3):
        for noise in (b"\0", b"\xff"):
            damaged = content[:at] + noise * size + content[at + size :]
            try:
                list(BoundedParquet(io.BytesIO(damaged)).iter_batches(10))
            except (pa.ArrowException, OSError):
                continue
