"""Rows that our encoder writes are read by Postgres, and rows of Postgres by our decoder."""

import os

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import Connection, sql

from laion_etl.database.binary_copy import (
    Texts,
    copy_out,
    host_hashes,
    page_numbers,
    read_rows,
)
from laion_etl.database.dedupe_keys import Candidates, as_keys
from laion_etl.database.pair_texts import TextsReader
from laion_etl.database.row_writer import copy_pairs

# Postgres allows no NUL in texts; parse removes it.
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
sources = st.sampled_from(["", "title", "link"])  # '' is null
rows = st.lists(st.tuples(texts, texts, texts, sources), max_size=30)
SCHEMA = pa.schema(
    [("pair_id", pa.binary(16)), ("url", pa.string()), ("caption", pa.string()), ("l", pa.string())]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=60)
@given(rows)
def test_rows_go_in_and_come_out(connection: Connection, values: list[tuple[str, str, str, str]]) -> None:
    count = len(values)
    keys = np.frombuffer(os.urandom(16 * count), np.uint8).reshape(-1, 16)
    pages = [f"page {n}" for n in range(count)]  # each pair has its own
    columns = [*([row[i] for row in values] for i in range(4)), pages, pages]
    batch = pa.record_batch([pa.array(column, pa.string()) for column in columns], list("abcdef"))
    order = np.arange(count)[::-1].copy()
    candidates = Candidates(as_keys(keys[order]), order)
    reader = TextsReader(candidates, count)
    if count:
        reader.add(batch)
    texts_of_rows = reader.finish()
    with connection.transaction(force_rollback=True):
        copy_pairs(connection, 7, 0, texts_of_rows, candidates)
        found = connection.execute(
            "select partition_no, page_no, pair_id, url, caption, language, caption_source from pair "
            "order by page_no"
        )
        expected = [(7, n, keys[n].tobytes(), *values[n][:3], values[n][3] or None) for n in range(count)]
        assert [(no, page, key.bytes, *rest) for no, page, key, *rest in found] == expected
        statement = sql.SQL(
            "copy (select pair_id, url, caption, language from pair order by page_no) "
            "to stdout (format binary)"
        )
        table = read_rows(b"".join(copy_out(connection, statement)), SCHEMA)
    assert table.to_pylist() == [
        {"pair_id": keys[n].tobytes(), "url": url, "caption": caption, "l": language}
        for n, (url, caption, language, _) in enumerate(values)
    ]


def test_a_slice_of_a_column_is_its_slice() -> None:
    column = pa.array(["a", "bc", "def", "ghij"]).slice(1, 2)
    found = Texts.from_column(column)
    assert bytes(found.data[found.offsets[0] : found.offsets[2]]) == b"bcdef"


def test_rows_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match="4 fields"):
        read_rows(b"\0\1\0\0\0\1x", SCHEMA)


def test_neighbours_on_one_page_share_its_number() -> None:
    url = Texts.from_column(pa.array(["p", "p", "q", "q", "p"]))
    licence = Texts.from_column(pa.array(["?", "?", "?", "cc", "?"]))
    assert page_numbers(url, licence, 5).tolist() == [5, 5, 6, 7, 8]


def test_hashes_differ_by_host_and_nothing_else() -> None:
    urls = ["https://a.example/x", "http://a.example:8080/y?z", "https://a.example?q", "https://b.example/x"]
    hashes = host_hashes(Texts.from_column(pa.array(urls)))
    assert hashes[0] == hashes[1] == hashes[2] != hashes[3]
