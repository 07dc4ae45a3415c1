"""Which entries of a list match which rows of a column of links, whatever the column is a part of."""

import numpy as np
import pyarrow as pa
import pytest

from laion_etl.blocklists import link_matches
from laion_etl.blocklists.link_matches import matching_domains, matching_expressions
from laion_etl.blocklists.removal_requests import Request
from laion_etl.removal.lists import read_lines

URLS = [
    "https://a.example/1.jpg",
    "https://b.example/2.jpg",
    None,
    "HTTPS://B.example:443/2.jpg",
    "",
    "https://c.example/3.jpg",
    None,
    "https://b.example/4.jpg",
]


def _hashes(line: str, kind: str) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    request = read_lines(line.encode(), "list").requested({})[0].request
    assert isinstance(request, Request)
    return np.asarray(sorted(int(one, 16) for one in request.rules[kind]), np.uint64)


@pytest.mark.parametrize("start", range(len(URLS)))
def test_slices_with_and_without_nulls_match_by_their_own_rows(start: int) -> None:
    urls = pa.array(URLS, pa.string()).slice(start, 5)
    texts = [one or "" for one in URLS[start : start + 5]]
    domains = matching_domains(urls, _hashes("b.example", "domains"))
    assert sorted(domains.rows) == [row for row, url in enumerate(texts) if "b.example" in url.lower()]
    expressions = matching_expressions(urls, _hashes("b.example/2.jpg", "urls"))
    assert {*expressions.rows} == {row for row, url in enumerate(texts) if url == URLS[1]}


def test_kernels_are_compiled_once_for_read_only_and_writable_columns() -> None:
    """Columns of mapped files are read-only, computed ones are not, and empty ones may have no memory."""

    def compiled(column: pa.StringArray) -> list[int]:
        matching_domains(column, np.zeros(1, np.uint64))
        matching_expressions(column, np.zeros(1, np.uint64))
        kernels = (link_matches._list_domains, link_matches._list_expressions)
        return [len(kernel.dispatcher.signatures) for kernel in kernels]  # type: ignore[attr-defined]

    computed = pa.array(["http://a.example/"])
    offsets, data = (pa.py_buffer(one.to_pybytes()) for one in computed.buffers()[1:])
    mapped = pa.StringArray.from_buffers(1, offsets, data)
    assert compiled(mapped) == compiled(computed) == compiled(pa.array([], pa.string()))
