"""Compiles the kernels of parse, load, score and publish by running them on made-up input.

    python -m laion_etl.cli.warm_kernels

Takes about twenty seconds and a hundred megabytes more than running compiled kernels, so `make setup` and the
image build do it in advance.
"""

import json
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from laion_etl.blocklists.link_matches import matching_domains, matching_expressions
from laion_etl.blocklists.near_better import near_better
from laion_etl.blocklists.near_hashes import NearListed, cuts, to_words
from laion_etl.blocklists.near_lists import empty_lists, enlarged
from laion_etl.blocklists.near_runs import connected_by_the_rest
from laion_etl.blocklists.near_sets import mark_near_in_large_set, mark_near_in_sets
from laion_etl.core.numba_cache import compiled_marker
from laion_etl.core.schemas import PAIR_SCHEMA, pair_id
from laion_etl.database.binary_copy import Texts, host_hashes, read_rows
from laion_etl.database.dedupe_keys import DedupeRule
from laion_etl.database.pairs_file import PairsFile
from laion_etl.io.storage import LocalStore
from laion_etl.parse.cld3_model import Cld3Network
from laion_etl.parse.file_counts import FileCounts
from laion_etl.parse.wat_workers import FileParser
from laion_etl.publish.band_files import IMAGE, KNOWN
from laion_etl.publish.near_groups import Groups
from laion_etl.publish.near_slices import compare_slice
from laion_etl.score.products import product, row_products
from laion_etl.score.resize import compile_loops
from laion_etl.settings import CoreSettings, ParseSettings, Settings

_LINKS = [
    {"path": "IMG@/src", "url": "a/b.jpg?w=1", "alt": "A red house", "title": "The house"},
    {"path": "IMG@/src", "url": "https://img.example/c.jpg", "alt": "“Quoted\\u00e9” text 12 March"},
    {"path": "IMG@/src", "url": "//img.example/d.jpg", "alt": "Красный дом на холме"},
    {"path": "IMG@/src", "url": "/IMG_1.JPG", "alt": "IMG_1.JPG"},
]


def _record(head: dict[str, str]) -> bytes:
    """A gzip member with the metadata record of a page."""
    html = {"Head": head, "Links": _LINKS}
    envelope = {
        "WARC-Header-Metadata": {"WARC-Target-URI": "https://www.example/x/"},
        "Payload-Metadata": {"HTTP-Response-Metadata": {"HTML-Metadata": html}},
    }
    payload = json.dumps({"Envelope": envelope}, separators=(",", ":"), ensure_ascii=False).encode()
    warc = "WARC/1.0\r\nWARC-Type: metadata\r\nWARC-Target-URI: https://www.example/x/\r\n"
    data = f"{warc}Content-Length: {len(payload)}\r\n\r\n".encode() + payload + b"\r\n\r\n"
    return zlib.compress(data, wbits=31)


def _sample() -> Iterator[bytes]:
    yield _record({})
    yield _record({"Base": "/base/"})
    yield _record({"Title": "the same again"})


def _listed(folder: Path, name: str, entries: str) -> tuple[str]:
    """A small blocklist, as settings name it."""
    path = folder / f"{name}.txt"
    path.write_text(entries)
    return (str(path),)


def _parse(folder: Path) -> None:
    path = folder / "sample.warc.wat.gz"
    path.write_bytes(b"".join(_sample()))
    rules = ParseSettings(
        language_detector="none",
        blocked_domains=_listed(folder, "domains", "blocked.example\nbücher.example"),
        blocked_urls=_listed(folder, "urls", "www.example/blocked/\nhttps://www.example/b.jpg?w"),
        blocked_pairs=_listed(folder, "pairs", "00112233445566778899aabbccddeeff"),
    )
    core = CoreSettings(data_dir=str(folder))
    for one in (rules, ParseSettings(language_detector="none")):  # with lists, hosts go another way
        for _ in FileParser(Settings(core=core, parse=one)).pairs(0, str(path), FileCounts()):
            pass


def _detect() -> None:
    Cld3Network(5, 2000).find(["A red house", "ab"])


def _encode(folder: Path) -> None:
    """Rows for Postgres under both rules, and rows of Postgres."""
    url = "https://img.example/a.jpg"
    values = (url, "a", "", "en", 0.9, "?", "https://p.example/", "p.example", 0, 0, "alt", "")
    row = (pair_id(url, "a"), *values)
    table = pa.table([[value] for value in row], schema=PAIR_SCHEMA)
    store = LocalStore(folder)
    with store.create("sample.parquet") as file:
        pq.write_table(table, file)
    for rule in DedupeRule:
        pairs = PairsFile(store, "sample.parquet", rule)
        candidates = pairs.candidates()
        with pairs.texts(candidates) as texts:
            list(texts.pair_rows(candidates, 1, 0))
            list(texts.page_rows(texts.pages_of(candidates), 1, 0))
    field = len(url).to_bytes(4) + url.encode()
    read = read_rows((1).to_bytes(2) + field, pa.schema([("url", pa.string())]))
    host_hashes(Texts.from_column(read.column("url").combine_chunks()))


def _compare() -> None:
    """PDQ hashes, listed ones and near ones, and the lines of removal lists."""
    images = np.zeros(2, IMAGE)
    for bits in (10, 40):
        NearListed(images["pdq"], bits).near(images["pdq"])
        NearListed(images["pdq"], bits).pairs(images["pdq"])
    urls, listed = pa.array(["https://img.example/a/b.jpg"]), np.ones(1, np.uint64)
    matching_domains(urls, listed)
    matching_expressions(urls, listed)
    near_better(images["pdq"], 10)
    full = empty_lists(2, cuts(10)[1])
    full.used[0] = len(full.rows)
    enlarged(full)
    words, near = to_words(images["pdq"]), np.zeros(2, np.bool_)
    connected_by_the_rest(words, 10, 0)
    mark_near_in_sets(words, np.zeros(2, np.int64), 10, near)
    mark_near_in_large_set(words, words[:1], 10, near, np.empty(0, np.bool_))
    with Groups(10) as groups:
        groups.add(*compare_slice(images, np.zeros(1, KNOWN), 10, 0))
        list(groups.decided())


def main() -> None:
    """Runs every kernel once, with the types of real input."""
    print("compiling (once, about 20 s) ...", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        _parse(Path(folder))
        _detect()
        _encode(Path(folder))
    _compare()
    product(np.ones((1, 1)), np.ones((1, 1)))
    row_products(np.ones((1, 1)), np.ones((1, 1)))
    compile_loops()
    compiled_marker().touch()


if __name__ == "__main__":
    main()
