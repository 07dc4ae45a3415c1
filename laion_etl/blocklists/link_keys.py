"""All hashes by which the domains and URLs of a blocklist or removal request can match a link.

`Blocklists` looks a link up among the hashes of a list. Here it is the other way round: the hashes of a link
are listed, so that an index of them finds the links that a list matches without reading the links. They are
the same hashes (hashes.py); an index over them misses nothing that `Blocklists` would block.
"""

from contextlib import suppress
from typing import NamedTuple

import ada_url
import numpy as np
import pyarrow as pa

from laion_etl.blocklists.hashes import (
    behind,
    contains,
    expression_hash,
    name_and_path,
    name_hash,
    parent_name,
)
from laion_etl.core.kernels import Bytes, Hashes, Ints, Longs
from laion_etl.core.numba_cache import kernel
from laion_etl.core.text_columns import buffers_of
from laion_etl.urls.escapes import comparable_urls
from laion_etl.urls.host_kernels import query_start

SHORTEST = 8  # bytes of "http://a"; shorter texts are not URLs


class LinkKeys(NamedTuple):
    """The distinct hashes of some links, each ascending.

    `hosts`: those of the URLs. `parents`: the domains above these. `expressions`: the URLs, with and without
    query, and their folders. A folder of a parent domain has none: it may match all links below the parent.
    """

    hosts: Hashes
    parents: Hashes
    expressions: Hashes


def link_keys(urls: pa.StringArray) -> LinkKeys:
    """Return the hashes of absolute URLs; empty ones have none."""
    urls = comparable_urls(urls)
    found, unusual = _hashes(urls)
    hosts = []
    for row in np.flatnonzero(unusual).tolist():  # domains are looked up in the host as a parser writes it
        with suppress(ValueError):
            hosts.append(f"http://{ada_url.URL(urls[row].as_py()).hostname}/")
    if hosts:
        others, _ = _hashes(pa.array(hosts, pa.string()))
        found = LinkKeys(
            np.concatenate([found.hosts, others.hosts]),
            np.concatenate([found.parents, others.parents]),
            found.expressions,
        )
    return LinkKeys(*map(np.unique, found))


def parsed_host(url: str) -> str:
    """Return the host of a URL as a parser writes it; '' if it has none."""
    try:
        return str(ada_url.URL(url).hostname)
    except ValueError:
        return ""


def _hashes(urls: pa.StringArray) -> tuple[LinkKeys, Bytes]:
    """Return the hashes, unordered, and a flag for each URL with an unusual host."""
    unusual = np.zeros(len(urls), np.uint8)
    if not len(urls):
        return LinkKeys(*(np.empty(0, np.uint64) for _ in range(3))), unusual
    data, offsets = buffers_of(urls)
    sizes = np.zeros(2, np.int64)
    _count(data, offsets, sizes)
    hosts = np.empty(len(urls), np.uint64)
    parents, expressions = (np.empty(int(size), np.uint64) for size in sizes)
    used = _fill(data, offsets, hosts, parents, expressions, unusual)
    return LinkKeys(hosts[: used[0]], parents[: used[1]], expressions[: used[2]]), unusual


@kernel
def _count(data: Bytes, offsets: Ints, sizes: Longs) -> None:
    """Set the largest numbers of parents and expressions that the URLs can have."""
    for row in range(offsets.size - 1):
        start, end = offsets[row], offsets[row + 1]
        if end - start >= SHORTEST:
            name, stop, path = name_and_path(data, start, end)
            for position in range(name, stop):
                sizes[0] += data[position] == 46
            for position in range(path, end):
                sizes[1] += data[position] == 47
            sizes[1] += 2


@kernel
def _fill(
    data: Bytes, offsets: Ints, hosts: Hashes, parents: Hashes, expressions: Hashes, unusual: Bytes
) -> tuple[int, int, int]:
    """Write the hashes of all URLs and flag unusual hosts; return how many of each kind there are."""
    hosted, above, expressed = 0, 0, 0
    for row in range(offsets.size - 1):
        start, end = offsets[row], offsets[row + 1]
        if end - start < SHORTEST:
            unusual[row] = end > start
            continue
        name, stop, path = name_and_path(data, start, end)
        unusual[row] = is_unusual(data, start, name, stop)
        host = name_hash(data, name, stop)
        hosts[hosted] = host
        hosted += 1
        domain = parent_name(data, name, stop) if name < stop else stop
        while domain < stop:
            parents[above] = name_hash(data, domain, stop)
            above += 1
            domain = parent_name(data, domain, stop)
        query = query_start(data, path, end)
        expressions[expressed] = expression_hash(data, path, query, host)
        expressions[expressed + 1] = expression_hash(data, path, end, host)
        expressed = _add_folders(data, path, query, host, expressions, expressed + 2)
    return hosted, above, expressed


@kernel
def flag_hosts(data: Bytes, offsets: Ints, entries: Hashes, flags: Bytes, unusual: Bytes) -> None:
    """Set the flag of each URL whose host, or a domain above it, is among sorted hashes of names.

    Unusual hosts are flagged as such instead: a parser has to say how they are looked up.
    """
    for row in range(offsets.size - 1):
        start, end = offsets[row], offsets[row + 1]
        if end - start < SHORTEST:
            unusual[row] = end > start
            continue
        domain, stop, _ = name_and_path(data, start, end)
        unusual[row] = is_unusual(data, start, domain, stop)
        while domain < stop and not unusual[row]:
            if contains(entries, name_hash(data, domain, stop)):
                flags[row] = 1
                break
            domain = parent_name(data, domain, stop)


@kernel
def _add_folders(
    data: Bytes, path: int, query: int, value: np.uint64, expressions: Hashes, count: int
) -> int:
    segment = path
    for position in range(path, query):
        if data[position] == 47:
            value = behind(value, data, segment, position + 1)
            segment = position + 1
            expressions[count] = value
            count += 1
    return count


@kernel
def is_unusual(data: Bytes, start: int, name: int, stop: int) -> bool:
    """Whether a parser may write the host in another way: anything but lower-case ASCII names."""
    if name >= stop or data[name - 1] != 47 or data[name - 2] != 47 or data[name - 3] != 58:
        return True
    for position in range(start, name - 3):
        if not 97 <= data[position] <= 122:
            return True
    label = name
    for position in range(name, stop):
        byte = data[position]
        if byte == 46:
            label = position + 1
        elif not (97 <= byte <= 122 or 48 <= byte <= 57 or byte == 45 or byte == 95):
            return True
    return label < stop and 48 <= data[label] <= 57  # addresses have several forms
