"""Each pair is stored with its own page and licence, however the texts of its file are held."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from laion_etl.core.stage_stats import StageStats
from laion_etl.database import pair_texts, pairs_file, range_load
from laion_etl.database.connection import Database
from laion_etl.database.dedupe_keys import DedupeRule
from laion_etl.database.load import load_partition
from laion_etl.database.pairs_file import PairsFile
from laion_etl.io.storage import Store
from laion_etl.settings import Settings
from tests.database.pairs import numbered_pairs, write_pairs

PAIRS = numbered_pairs(0, 50)
PAGES = {url: f"https://pages.example/{number // 3}" for number, (url, _) in enumerate(PAIRS)}
LICENSES = {url: f"license {number // 7}" for number, (url, _) in enumerate(PAIRS)}


def write_pages(store: Store, shift: int = 0) -> None:
    """A partition whose pages have three pairs each; `shift` makes another version of its file."""
    pairs = PAIRS[shift:]
    write_pairs(store, "C", 0, [*pairs, *pairs[:5]])
    name = "pairs/C/part-00000.parquet"
    with store.open(name) as file:
        table = pq.read_table(file)
    urls = table["url"].to_pylist()
    for column, values in (("page_url", PAGES), ("license", LICENSES)):
        place = table.schema.get_field_index(column)
        table = table.set_column(place, table.schema.field(place), pa.array([values[url] for url in urls]))
    with store.create(name) as file:
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


def test_rows_of_a_few_pairs_are_the_same_as_among_all(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file that gets a few pairs back only their texts are kept."""
    monkeypatch.setattr(pairs_file, "_ROWS_PER_READ", 2)
    write_pages(store)
    pairs = PairsFile(store, "pairs/C/part-00000.parquet", DedupeRule.PAIR)
    everything = pairs.candidates()
    few = everything.where(np.arange(0, len(everything), 9))
    with pairs.texts(everything) as of_all, pairs.texts(few) as of_few:
        assert len(of_few.data) < len(of_all.data) / 2
        pages = of_few.pages_of(few)
        assert pages.tolist() == of_all.pages_of(few).tolist()
        for written, expected in (
            (of_few.pair_rows(few, 7, 3), of_all.pair_rows(few, 7, 3)),
            (of_few.page_rows(pages, 7, 3), of_all.page_rows(pages, 7, 3)),
        ):
            assert b"".join(map(bytes, written)) == b"".join(map(bytes, expected)) != b""
