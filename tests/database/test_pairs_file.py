"""Each pair is stored with its own page and licence, however the texts of its file are held."""

import io
import tempfile
import tracemalloc
from collections.abc import Callable
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from laion_etl.blocklists.removal_requests import Matcher, Request
from laion_etl.core.errors import DamagedFileError
from laion_etl.core.schemas import pair_id
from laion_etl.core.stage_stats import StageStats
from laion_etl.database import pair_texts, pairs_file, range_load, row_writer, text_buffer
from laion_etl.database.connection import Database
from laion_etl.database.dedupe_keys import Candidates, DedupeRule, as_keys, ascending
from laion_etl.database.load import load_partition
from laion_etl.database.pair_texts import PairTexts, TextsReader
from laion_etl.database.pairs_file import PairsFile
from laion_etl.dataset.rewrite import rewrite_rows
from laion_etl.io.storage import Store
from laion_etl.settings import Settings
from tests.database.pairs import numbered_pairs, write_pairs

PAIRS = numbered_pairs(0, 50)
NAME = "pairs/C/part-00000.parquet"
PAGES = {url: f"https://pages.example/{number // 3}" for number, (url, _) in enumerate(PAIRS)}
LICENSES = {url: f"license {number // 7}" for number, (url, _) in enumerate(PAIRS)}


def write_pages(store: Store, shift: int = 0) -> None:
    """A partition whose pages have three pairs each; `shift` makes another version of its file."""
    pairs = PAIRS[shift:]
    write_pairs(store, "C", 0, [*pairs, *pairs[:5]])
    with store.open(NAME) as file:
        table = pq.read_table(file)
    urls = table["url"].to_pylist()
    for column, values in (("page_url", PAGES), ("license", LICENSES)):
        place = table.schema.get_field_index(column)
        table = table.set_column(place, table.schema.field(place), pa.array([values[url] for url in urls]))
    with store.create(NAME) as file:
        pq.write_table(table, file)
    stats = StageStats("parse", "C", "part-00000", f"f{shift}", len(urls), len(urls), outputs=(file.output,))
    store.write_stats("pairs/C/part-00000.json", stats)


@pytest.mark.parametrize("rows", [4, 1 << 20])
def test_pages_are_those_of_the_pairs(
    rows: int, store: Store, settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In memory, and on disk in pieces that cut pages in two."""
    monkeypatch.setattr(pair_texts, "_ROWS_PER_SEGMENT", rows)
    monkeypatch.setattr(pairs_file, "_ROWS_PER_READ", 2)
    monkeypatch.setattr(range_load, "PAIRS_PER_TRANSACTION", 8)
    for shift in (0, 4):  # the second version replaces the first one and its pages
        write_pages(store, shift)
        load_partition("C", 0, settings, store, database)
        stored = database.connection.execute("select url, caption, page_url, license from pair_text")
        expected = [(url, caption, PAGES[url], LICENSES[url]) for url, caption in PAIRS[shift:]]
        assert sorted(stored.fetchall()) == sorted(expected)
        pages = database.connection.execute("select url, license from page").fetchall()
        assert sorted(set(pages)) == sorted({row[2:] for row in expected})
        assert len(pages) == len(set(pages)), "the repeated rows at the end have no pages"


@pytest.mark.parametrize(("known", "ahead"), [(0, 1 << 17), (0, 5), (40, 1 << 17)])
def test_pages_are_written_in_the_order_of_the_file_if_most_pairs_are_new(
    known: int,
    ahead: int,
    store: Store,
    settings: Settings,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(range_load, "PAIRS_PER_TRANSACTION", 4)
    monkeypatch.setattr(row_writer, "_PAGES_AHEAD", ahead)
    write_pairs(store, "B", 0, PAIRS[:known])
    load_partition("B", 0, settings, store, database)
    write_pages(store)
    load_partition("C", 0, settings, store, database)
    pages = database.connection.execute(
        "select url, page_no from page join partition using (partition_no) join crawl using (crawl_no) "
        "where crawl = 'C' order by page.ctid"
    )
    urls, numbers = zip(*pages.fetchall(), strict=True)
    assert set(urls) == {PAGES[url] for url, _ in PAIRS[known:]}, "a page without a new pair is not stored"
    is_in_order = list(numbers) == sorted(numbers)
    assert is_in_order == (known == 0 and ahead >= len(numbers))


@pytest.mark.parametrize("rows", [0, 1, 2, 7, 5_000])
@pytest.mark.parametrize("alike", [0, 8, 16])
def test_hashes_are_ordered_like_their_bytes(rows: int, alike: int) -> None:
    """Also where all begin with the same bytes, and where the same one is there several times."""
    hashes = np.random.default_rng(rows).integers(0, 256, (rows, 16), np.uint8)
    hashes[:, :alike] = 200
    hashes[rows // 2 :: 3] = hashes[: len(hashes[rows // 2 :: 3])]
    listed = [bytes(one) for one in hashes]
    assert ascending(hashes).tolist() == sorted(range(rows), key=listed.__getitem__)


def test_rows_of_a_few_pairs_are_the_same_as_among_all(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file that gets a few pairs back only their texts are kept."""
    monkeypatch.setattr(pairs_file, "_ROWS_PER_READ", 2)
    write_pages(store)
    pairs = PairsFile(store, NAME, DedupeRule.PAIR)
    everything = pairs.candidates()
    few = everything.where(np.arange(0, len(everything), 9))
    with pairs.texts(everything) as of_all, pairs.texts(few) as of_few:
        assert len(of_few.data.content) < len(of_all.data.content) / 2
        pages = of_few.pages_of(few)
        assert len(of_few.page_texts.starts) == len(pages) < len(of_all.page_texts.starts)
        assert pages.tolist() == of_all.pages_of(few).tolist()
        for written, expected in (
            (of_few.pair_rows(few, 7, 3), of_all.pair_rows(few, 7, 3)),
            (of_few.page_rows(pages, 7, 3), of_all.page_rows(pages, 7, 3)),
        ):
            assert b"".join(map(bytes, written)) == b"".join(map(bytes, expected)) != b""


def all_rows(texts: PairTexts, candidates: Candidates) -> tuple[bytes, bytes]:
    """The rows of tables pair and page, whatever their blocks."""
    pages = texts.pages_of(candidates)
    rows = (texts.pair_rows(candidates, 7, 3), texts.page_rows(pages, 7, 3))
    pair, page = (b"".join(map(bytes, blocks)) for blocks in rows)
    return pair, page


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> list[IO[bytes]]:
    """The temporary files that texts were written to."""
    opened: list[IO[bytes]] = []
    create: Callable[..., IO[bytes]] = tempfile.TemporaryFile

    def recorded(**options: str) -> IO[bytes]:
        file = create(**options)
        if options.get("prefix") == "laion_etl-pairs-":  # numba has others
            opened.append(file)
        return file

    monkeypatch.setattr(tempfile, "TemporaryFile", recorded)
    return opened


@pytest.mark.parametrize(
    ("rows", "size", "step", "on_disk"), [(4, 1 << 20, 1, 1), (1 << 20, 200, 1, 2), (1 << 20, 200, 9, 2)]
)
def test_rows_of_several_blocks_pieces_and_segments_are_those_of_one(
    rows: int,
    size: int,
    step: int,
    on_disk: int,
    files: list[IO[bytes]],
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of all pairs and of a few; on disk are only the texts of pairs, or those of pages, too."""
    write_pages(store)
    pairs = PairsFile(store, NAME, DedupeRule.PAIR)
    everything = pairs.candidates()
    some = everything.where(np.arange(0, len(everything), step))
    with pairs.texts(some) as texts:
        expected = all_rows(texts, some)
    assert not files
    monkeypatch.setattr(pair_texts, "_ROWS_PER_SEGMENT", rows)
    monkeypatch.setattr(text_buffer, "BYTES_IN_MEMORY", size)
    monkeypatch.setattr(pairs_file, "_ROWS_PER_READ", 3)
    monkeypatch.setattr(pair_texts, "_ROWS_PER_PIECE", 2)
    monkeypatch.setattr(pair_texts, "_BYTES_PER_BLOCK", 64)
    with pairs.texts(some) as texts:
        assert all_rows(texts, some) == expected
        assert len(list(texts.pair_rows(some, 7, 3))) > len(some) / 2
    assert len(files) == on_disk
    assert all(file.closed for file in files)
    with pytest.raises(ValueError, match="use them in the with statement"):
        all_rows(texts, some)


def peak_of_long_texts(rows: int) -> int:
    """The most memory that is used to read rows with 24 kB of texts each."""
    values = [f"{number} {'x' * 4000}" for number in range(rows)]
    table = pa.table([pa.array(values)] * 6, list("abcdef"))
    candidates = Candidates(as_keys(np.zeros((rows, 16), np.uint8)), np.arange(rows))
    reader = TextsReader(candidates, rows)
    tracemalloc.start()
    try:
        for batch in table.to_batches(8):
            reader.add(batch)
        with reader.finish() as texts:
            _, peak = tracemalloc.get_traced_memory()
            assert sum(map(len, texts.pair_rows(candidates, 1, 0))) > rows * 16_000
            assert sum(map(len, texts.page_rows(texts.pages_of(candidates), 1, 0))) > rows * 8_000
    finally:
        tracemalloc.stop()
    return peak


def test_long_texts_wait_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long URLs of pairs and pages are, memory holds a megabyte of them, not all 24."""
    monkeypatch.setattr(text_buffer, "BYTES_IN_MEMORY", 1 << 18)
    monkeypatch.setattr(pair_texts, "_ROWS_PER_PIECE", 8)
    peak_of_long_texts(32)  # loads the kernels
    assert peak_of_long_texts(1000) < 2 << 20


def test_a_few_rows_take_no_memory_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction costs as much in a large file as in a small one."""
    count = 30_000
    names = pa.array(map(str, range(count)))
    captions = pa.array(["x" * 100_000, *names.to_pylist()[1:]])
    candidates = Candidates(as_keys(np.zeros((count, 16), np.uint8)), np.arange(count))
    reader = TextsReader(candidates, count)
    reader.add(pa.record_batch([names, captions, names, names, names, names], list("abcdef")))
    monkeypatch.setattr(pair_texts, "_BYTES_PER_BLOCK", 64)
    few = candidates.where(slice(10, 13))
    with reader.finish() as texts:
        all_rows(texts, few)  # loads the kernels
        tracemalloc.start()
        try:
            all_rows(texts, few)
            assert tracemalloc.get_traced_memory()[1] < 20_000
        finally:
            tracemalloc.stop()


def test_a_file_that_cannot_be_read_leaves_nothing_on_disk(
    files: list[IO[bytes]], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pair_texts, "_ROWS_PER_SEGMENT", 4)
    monkeypatch.setattr(pairs_file, "_ROWS_PER_READ", 2)
    write_pages(store)
    pairs = PairsFile(store, NAME, DedupeRule.PAIR)
    candidates = pairs.candidates()
    with store.open(NAME) as file:
        table = pq.read_table(file)
    with store.create(NAME) as file:
        pq.write_table(table, file, row_group_size=20)
    with store.open(NAME) as file:
        urls = pq.ParquetFile(file).metadata.row_group(2).column(table.schema.get_field_index("url"))
        file.seek(0)
        content = bytearray(file.read())
    content[urls.data_page_offset - 20 : urls.data_page_offset] = b"\xff" * 20  # the end of the dictionary
    with store.create(NAME) as file:
        file.write(content)
    with pytest.raises(DamagedFileError, match="parse its partition again"):
        pairs.texts(candidates)
    assert [file.closed for file in files] == [True]


@pytest.mark.parametrize("how", ["of another partition", "cut off and written anew", "a byte is another"])
def test_a_file_of_pairs_that_is_not_that_of_its_stats_is_not_loaded(
    how: str, store: Store, settings: Settings, database: Database
) -> None:
    write_pairs(store, "C", 1, PAIRS[1:])
    write_pairs(store, "C", 0, PAIRS)
    data = store.read(NAME)
    if how == "of another partition":
        data = store.read("pairs/C/part-00001.parquet")
    elif how == "a byte is another":
        data = data.replace(b"example", b"examqle", 1)
    else:
        sink = io.BytesIO()
        pq.write_table(pq.read_table(io.BytesIO(data)).slice(0, 2), sink)
        data = sink.getvalue()
    store.write(NAME, data)
    with pytest.raises(DamagedFileError, match=r"cannot load .*part-00000.parquet: it is not the file"):
        load_partition("C", 0, settings, store, database)
    assert database.rows("load.planned_of_crawl", {"crawl": "C"}) == []
    assert database.connection.execute("select count(*) from pair").fetchone() == (0,)


def test_pairs_are_loaded_after_a_removal_and_not_after_a_part_of_one(
    store: Store, settings: Settings, database: Database
) -> None:
    write_pairs(store, "C", 0, PAIRS)
    before, stats = store.read(NAME), store.read_stats("pairs/C/part-00000.json")
    removal = Matcher([Request({"pairs": (pair_id(*PAIRS[0]).hex(),)})], 0)
    rewrite_rows(NAME, store, removal)
    assert store.read_stats("pairs/C/part-00000.json").outputs == stats.outputs  # it stays loaded, if it is
    store.write(NAME, before)  # as if it had been killed before the parquet was replaced
    with pytest.raises(DamagedFileError, match="if a removal is running or was interrupted, run that"):
        load_partition("C", 0, settings, store, database)
    rewrite_rows(NAME, store, removal)
    assert load_partition("C", 0, settings, store, database).kept == len(set(PAIRS)) - 1
