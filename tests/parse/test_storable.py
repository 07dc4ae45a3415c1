"""No text that Postgres refuses gets into the pairs, wherever it comes from."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pytest

import laion_etl as le
from laion_etl.core.funnel import Outcomes, ParseReason
from laion_etl.core.schemas import PAIR_SCHEMA
from laion_etl.parse.language import Languages
from laion_etl.parse.link_batch import LinkBatch, link_batches
from laion_etl.parse.page import ImageLink, Page
from laion_etl.parse.storable import storable
from laion_etl.settings import ParseSettings, Settings
from tests.parse.wat_files import compact_page_record, image, page_record, write_wat

HERE = __name__
GOOD = [image(f"/{n}.jpg", f"A red car number {n} on a field") for n in range(3)]


class CodesWithNul:
    """A detector whose code for one caption cannot be stored."""

    def __init__(self, _: ParseSettings) -> None: ...

    def detect(self, texts: Sequence[str]) -> Languages:
        return Languages(["e\0n" if "number 1" in text else "en" for text in texts], [1.0] * len(texts))


@pytest.mark.parametrize("write", [page_record, compact_page_record])
def test_a_nul_in_the_url_of_a_page_costs_that_page(tmp_path: Path, write: object) -> None:
    assert callable(write)
    wat = write_wat(
        tmp_path / "a.wat.gz",
        [write("https://a.example/", GOOD), write("https://b.example/x\0y/", GOOD)],
    )
    pairs = le.read_wat(wat, Settings())
    rows = [row for table in pairs for row in table.to_pylist()]
    assert {row["page_url"] for row in rows} == {"https://a.example/"}
    assert len(rows) == 3
    assert dict(pairs.records.dropped) == {"page_url_invalid": 1}


def test_nul_and_surrogates_anywhere_on_a_page_leave_only_texts_that_can_be_stored(tmp_path: Path) -> None:
    nasty = "\0 \ud800 \udfff"
    links = [image(f"/{nasty}.jpg", f"A red {nasty} car", f"A title {nasty}"), *GOOD]
    pages = [page_record(f"https://{host}.example/\udc00", links, f"/{nasty}/") for host in "ab"]
    rows = [
        row for table in le.read_wat(write_wat(tmp_path / "a.wat.gz", pages)) for row in table.to_pylist()
    ]
    assert len(rows) == 8
    texts = [value for row in rows for value in row.values() if isinstance(value, str)]
    assert [text for text in texts if "\0" in text] == []
    assert "".join(texts).encode()


def test_texts_of_a_custom_source_are_checked_too() -> None:
    class Given:
        def batches(self, _uri: str) -> Iterator[LinkBatch]:
            links = [ImageLink(link["url"], link["alt"]) for link in GOOD]
            yield from link_batches(
                [
                    Page("https://a.example/", links, licence="a licence"),
                    Page("https://b.example/", links, licence="with \0 NUL"),
                    Page("https://c.example/\0", links),
                    Page("https://d.example/", links, licence="a lone \ud800"),
                ]
            )

    pairs = le.read_pairs("given", Given(), Settings())
    rows = [row for table in pairs for row in table.to_pylist()]
    assert {row["license"] for row in rows} == {"a licence", "a lone \ufffd"}
    assert (pairs.funnel.kept, dict(pairs.funnel.dropped)) == (6, {"not_storable": 3})
    assert dict(pairs.records.dropped) == {"page_url_invalid": 1}


def test_codes_of_a_custom_detector_are_checked_too(tmp_path: Path) -> None:
    wat = write_wat(tmp_path / "a.wat.gz", [page_record("https://a.example/", GOOD)])
    pairs = le.read_wat(wat, Settings(parse=ParseSettings(language_detector=f"{HERE}:CodesWithNul")))
    rows = [row for table in pairs for row in table.to_pylist()]
    assert [row["language"] for row in rows] == ["en", "en"]
    assert dict(pairs.funnel.dropped) == {"not_storable": 1}


def test_bytes_that_are_not_utf8_are_found() -> None:
    values = [b"good", b"\xed\xa0\x80 a surrogate", b"\xff", b"a\0b", b"gut \xc3\xbc"]
    offsets = pa.array([0, *[sum(map(len, values[: n + 1])) for n in range(5)]], pa.int32()).buffers()[1]
    texts = pa.StringArray.from_buffers(5, offsets, pa.py_buffer(b"".join(values)))
    columns = {field.name: pa.nulls(5, field.type) for field in PAIR_SCHEMA}
    columns |= {field.name: pa.array(["x"] * 5) for field in PAIR_SCHEMA if field.type == pa.string()}
    outcomes = Outcomes[ParseReason]()
    outcomes.keep(5)
    kept = storable(pa.table({**columns, "title": texts}), outcomes)
    assert kept["title"].to_pylist() == ["good", "gut ü"]
    assert (outcomes.kept, outcomes.dropped) == (2, {"not_storable": 3})
