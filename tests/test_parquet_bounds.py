"""Files that would take gigabytes of memory, and damaged ones, are refused or read in small pieces."""

import ast
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import laion_etl
from laion_etl.core import parquet_bounds
from laion_etl.core.parquet_bounds import BoundedParquet

ROOT = Path(laion_etl.__file__).parents[1]


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


_LONG = b"x" * 100_000
_ALL_REFER = pa.array([0] * 200, pa.int32())


@pytest.mark.parametrize(
    ("column", "options"),
    [
        (pa.array([_LONG] * 200), {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}}),
        (pa.DictionaryArray.from_arrays(_ALL_REFER, pa.array([_LONG], pa.binary(len(_LONG)))), {}),
        (pa.DictionaryArray.from_arrays(_ALL_REFER, pa.array([_LONG])), {}),
    ],
    ids=["each begins like the one before", "of fixed length", "of any length"],
)
def test_long_values_that_take_no_space_are_read_with_few_rows_at_once_and_not_as_a_whole(
    column: pa.Array, options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_bounds, "_MOST_BATCH_BYTES", 1 << 20)
    file = written(pa.table({"text": column}), compression="zstd", store_schema=False, **options)
    assert len(file.getbuffer()) < 1_000
    assert {batch.num_rows for batch in BoundedParquet(file).iter_batches(1_000)} == {10}
    with pytest.raises(pa.ArrowInvalid, match="more than 1,000,000 bytes of memory"):
        BoundedParquet(file).read(most_bytes=1_000_000)
    assert BoundedParquet(file).read(most_bytes=30_000_000).num_rows == 200


def test_a_list_that_takes_no_space_is_refused_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_bounds, "_MOST_BATCH_BYTES", 1 << 20)
    file = written(pa.table({"numbers": [[0] * 1_000_000]}), compression="zstd")
    with pytest.raises(pa.ArrowInvalid, match="its lists may take 16,000,000 bytes"):
        BoundedParquet(file).iter_batches(1_000)


@pytest.mark.parametrize(
    ("kind", "bytes_of_row"),
    [
        (pa.binary(100_000), 100_000),
        (pa.struct([("inner", pa.binary(100_000))]), 100_000),
        (pa.list_(pa.int32(), 25_000), 100_000),
    ],
    ids=str,
)
def test_nulls_that_are_long_in_memory_are_read_with_few_rows_at_once_and_not_as_a_whole(
    kind: pa.DataType, bytes_of_row: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_bounds, "_MOST_BATCH_BYTES", 1 << 20)
    file = written(pa.table({"null": pa.nulls(50, kind)}))
    assert len(file.getbuffer()) < 1_000
    found = list(BoundedParquet(file).iter_batches(1_000))
    assert {batch.num_rows for batch in found} == {(1 << 20) // bytes_of_row}
    with pytest.raises(pa.ArrowInvalid, match="more than 1,000,000 bytes of memory"):
        BoundedParquet(file).read(most_bytes=1_000_000)
    assert BoundedParquet(file).read(most_bytes=10_000_000).num_rows == 50


def test_nulls_in_a_list_that_are_long_in_memory_are_refused_in_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parquet_bounds, "_MOST_BATCH_BYTES", 1 << 20)
    file = written(pa.table({"nulls": pa.array([[None] * 50], pa.list_(pa.binary(100_000)))}))
    with pytest.raises(pa.ArrowInvalid, match="its lists may take 5,000,000 bytes"):
        BoundedParquet(file).iter_batches(1_000)


def _rewritten(old: str, new: str) -> io.BytesIO:
    """Return a file in which all rows have one long text, with some of its bytes, in hex, replaced."""
    column = pa.DictionaryArray.from_arrays(_ALL_REFER, pa.array([_LONG]))
    options = {"compression": "zstd", "store_schema": False, "write_statistics": False}
    content = written(pa.table({"text": column}), **options).getvalue()
    start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    pages, footer = content[:start].hex(), content[start:-8].hex()
    assert (pages + footer).count(old) == 1
    if old in pages:  # then the chunk has more bytes: 81 at first
        longer = (len(new) - len(old)) // 2
        footer = footer.replace("16a201", f"16{0xA2 + 2 * longer:x}01")
    pages, footer = pages.replace(old, new), footer.replace(old, new)
    tail = (len(footer) // 2).to_bytes(4, "little") + content[-4:]
    return io.BytesIO(bytes.fromhex(pages + footer) + tail)


# Thrift's compact protocol has kind and distance of a field before its value, and doubles whole numbers.
_HEADER = "2c1590031510150615061c0000"  # field 5: 200 values, which refer to the dictionary
_OTHER_HEADER = "3c15900315001590031500150015000000"  # field 8, of another version: plain values


def test_a_page_is_what_the_header_of_its_kind_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_bounds, "_MOST_BATCH_BYTES", 1 << 20)
    file = _rewritten(_HEADER + "00", _HEADER + _OTHER_HEADER)
    assert {batch.num_rows for batch in BoundedParquet(file).iter_batches(1_000)} == {10}
    assert pq.read_table(file).num_rows == 200


@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        ("1c150c19", "1c150419", "its column text is not that of its schema"),
        ("1918047465787415", "1918047465787515", "its column text is not that of its schema"),
        ("265a2608", "265a06122c2608", "what it says of itself is damaged"),
        ("150415c89a0c", "1584808080200015c89a0c", "what it says of itself is damaged"),
        (_HEADER, "2c159003", "it has a damaged page"),
    ],
    ids=["another kind", "another name", "a field twice", "a number of 33 bits", "no encoding"],
)
def test_a_file_that_readers_may_take_for_different_things_is_refused(old: str, new: str, cause: str) -> None:
    with pytest.raises(pa.ArrowInvalid, match=cause):
        BoundedParquet(_rewritten(old, new))


def test_a_table_is_refused_by_its_values_not_by_the_longest_that_they_could_be() -> None:
    texts = ["x" * 50_000, *map(str, range(2_000))]  # by the dictionary each could have 50,000 bytes
    file = written(pa.table({"text": texts}))
    assert BoundedParquet(file).read(most_bytes=200_000).to_pydict() == {"text": texts}
    with pytest.raises(pa.ArrowInvalid, match="it has 2,001 rows, more than 2,000"):
        BoundedParquet(file).read(most_rows=2_000)


def test_row_groups_are_chosen_by_the_numbers_that_the_footer_gives() -> None:
    numbers = [*range(-5, 5), *range(100, 105)]
    file = written(pa.table({"text": ["a"] * 15, "number": numbers}), row_group_size=10)
    parquet = BoundedParquet(file)
    assert parquet.numbers_of_groups("number") == [(-5, 4), (100, 104)]
    assert parquet.numbers_of_groups("text") == [None, None]
    (batch,) = parquet.iter_batches(1_000, ["number"], [1])
    assert batch.column("number").to_pylist() == numbers[10:]
    with pytest.raises(pa.ArrowInvalid, match="the column other"):
        parquet.numbers_of_groups("other")


@pytest.mark.parametrize("options", [{}, {"use_dictionary": False}, {"compression": "none"}])
def test_a_file_without_rows_is_read(options: dict[str, object]) -> None:
    rows = pa.table({"text": ["a"], "number": [1], "null": pa.nulls(1, pa.string())})
    for table in (rows.slice(0, 0), rows.filter(pa.array([False])), rows.schema.empty_table()):
        assert BoundedParquet(written(table, **options)).read().num_rows == 0


@pytest.mark.parametrize("noise", [b"\0", b"\x7f", b"\xff"])
def test_choosing_row_groups_of_a_damaged_file_ends_no_process(noise: bytes) -> None:
    content = written(pa.table({"number": list(range(40))}), row_group_size=10).getvalue()
    for at in range(len(content) // 2, len(content) - 8, 9):
        damaged = content[:at] + noise * 2 + content[at + 2 :]
        try:
            parquet = BoundedParquet(io.BytesIO(damaged))
            parquet.numbers_of_groups("number")
            list(parquet.iter_batches(10, ["number"], [0]))
        except (pa.ArrowException, OSError):
            continue


_UNBOUNDED = {"ParquetFile", "ParquetDataset", "read_table", "read_pandas", "read_metadata", "read_schema"}
_MODULES = [Path(laion_etl.__file__).parent, *(ROOT / name for name in ("dags", "plugins"))]


def test_only_parquet_bounds_opens_parquet_files() -> None:
    opened = {
        (path.name, node.attr)
        for folder in _MODULES
        for path in folder.rglob("*.py")
        if "parquet" in (text := path.read_text())
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Attribute) and node.attr in _UNBOUNDED and ast.unparse(node.value) == "pq"
    }
    assert opened == {("parquet_bounds.py", "ParquetFile")}


def test_parquet_is_imported_as_pq_and_not_read_by_other_means() -> None:
    means = ("from pyarrow.parquet", "pyarrow.dataset", "read_parquet(", "pa.parquet", "pandas.read_")
    others = [
        f"{path.name}: {line.strip()}"
        for folder in _MODULES
        for path in folder.rglob("*.py")
        for line in path.read_text().splitlines()
        if any(one in line for one in means)
        or ("pyarrow.parquet" in line and line.strip() != "import pyarrow.parquet as pq")
    ]
    assert others == []
