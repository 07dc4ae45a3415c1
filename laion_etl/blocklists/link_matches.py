"""Which entries of a list match which links: `Blocklists` only says whether any does.

A removal counts what each line of its list has matched. Looking rows up by one list for each line costs
0.2 ms a line, however few rows there are; here all lines are in one list, and each entry that a link meets is
returned. The rules are those of hashes.py.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from laion_etl.blocklists.hashes import (
    behind,
    contains,
    expression_hash,
    name_and_path,
    name_hash,
    parent_name,
)
from laion_etl.blocklists.link_keys import SHORTEST, is_unusual, parsed_host
from laion_etl.core.kernels import Bytes, Hashes, Ints, Longs
from laion_etl.core.numba_cache import kernel
from laion_etl.core.text_columns import buffers_of
from laion_etl.urls.escapes import comparable_urls
from laion_etl.urls.host_kernels import query_start


class Matches(NamedTuple):
    """Rows and entries that match, as pairs in any order, some of them several times."""

    rows: Longs
    entries: Hashes


def matching_domains(urls: pa.StringArray, entries: Hashes) -> Matches:
    """Return which of sorted hashes of domains match the hosts of absolute URLs; '' and null have none."""
    unusual = np.zeros(len(urls), np.uint8)
    found = _listed(partial(_list_domains, *buffers_of(pc.fill_null(urls, "")), entries, unusual), len(urls))
    rows, values = [found.rows], [found.entries]
    for row in np.flatnonzero(unusual).tolist():
        name = np.frombuffer(parsed_host(urls[row].as_py()).rstrip(".").encode(), np.uint8)
        own = np.empty(1 + name.size, np.uint64)
        listed = _list_above(name, 0, name.size, entries, row, np.empty(own.size, np.int64), own, 0)
        rows.append(np.full(listed, row))
        values.append(own[:listed])
    return Matches(np.concatenate(rows), np.concatenate(values))


def matching_expressions(urls: pa.StringArray, entries: Hashes) -> Matches:
    """Return which of sorted hashes of URL expressions match absolute URLs, however they are escaped.

    `entries` also has the hashes of the hosts of expressions; these are not returned.
    """
    urls = comparable_urls(pc.fill_null(urls, ""))
    return _listed(partial(_list_expressions, *buffers_of(urls), entries), len(urls))


def _listed(listing: Callable[[Longs, Hashes], int], urls: int) -> Matches:
    """Return what a kernel lists; when it has no room for all, once more with as much as it needs."""
    found = _room(2 * urls)
    count = listing(*found)
    if count > len(found.rows):
        found = _room(count)
        listing(*found)
    return Matches(found.rows[:count], found.entries[:count])


def _room(matches: int) -> Matches:
    return Matches(np.empty(matches, np.int64), np.empty(matches, np.uint64))


@kernel
def _add(
    value: np.uint64, entries: Hashes, row: int, rows: Longs, values: Hashes, count: int
) -> int:  # fmt: skip
    """Add a row and a value that is among the entries, if there is room; returns how many there would be."""
    if not contains(entries, value):
        return count
    if count < rows.size:
        rows[count], values[count] = row, value
    return count + 1


@kernel
def _list_above(
    data: Bytes, domain: int, stop: int, entries: Hashes, row: int, rows: Longs, values: Hashes, count: int
) -> int:
    """Add the entries that are a name or one above it."""
    while domain < stop:
        count = _add(name_hash(data, domain, stop), entries, row, rows, values, count)
        domain = parent_name(data, domain, stop)
    return count


@kernel
def _list_domains(
    data: Bytes, offsets: Ints, entries: Hashes, unusual: Bytes, rows: Longs, values: Hashes
) -> int:
    """Add the entries that match each host, and flag hosts that a parser has to write first."""
    count = 0
    for row in range(offsets.size - 1):
        start, end = offsets[row], offsets[row + 1]
        if end - start < SHORTEST:
            unusual[row] = end > start
            continue
        name, stop, _ = name_and_path(data, start, end)
        unusual[row] = is_unusual(data, start, name, stop)
        if not unusual[row]:
            count = _list_above(data, name, stop, entries, row, rows, values, count)
    return count


@kernel
def _list_expressions(data: Bytes, offsets: Ints, entries: Hashes, rows: Longs, values: Hashes) -> int:
    """Add the entries that match each URL; paths are only hashed for hosts that have entries."""
    count = 0
    for row in range(offsets.size - 1):
        start, end = offsets[row], offsets[row + 1]
        if start == end:
            continue
        name, stop, path = name_and_path(data, start, end)
        query = query_start(data, path, end)
        host = name_hash(data, name, stop)
        if contains(entries, host):
            count = _list_folders(data, path, query, host, entries, row, rows, values, count)
            count = _add(expression_hash(data, path, query, host), entries, row, rows, values, count)
            count = _add(expression_hash(data, path, end, host), entries, row, rows, values, count)
        parent = parent_name(data, name, stop) if name < stop else stop
        while parent < stop:
            value = name_hash(data, parent, stop)
            if contains(entries, value):
                count = _list_folders(data, path, query, value, entries, row, rows, values, count)
            parent = parent_name(data, parent, stop)
    return count


@kernel
def _list_folders(
    data: Bytes, path: int, query: int, value: np.uint64, entries: Hashes,
    row: int, rows: Longs, values: Hashes, count: int,
) -> int:  # fmt: skip
    """Add the entries that are a folder of a path, on the host or domain with this hash."""
    segment = path
    for position in range(path, query):
        if data[position] == 47:
            value = behind(value, data, segment, position + 1)
            segment = position + 1
            count = _add(value, entries, row, rows, values, count)
    return count
