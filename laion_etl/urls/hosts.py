"""Filters links by host: not public, a tracker, or blocked; and finds the registered domain.

Hosts repeat, so each host is judged once and looked up by number for columns of URLs. Which links pass is a
rule of parse: a change raises RULES_VERSION in parse/link_filters.py. How a host is written (lower case,
punycode) is part of the URL's form: see normalize.py.
"""

import ipaddress
from collections.abc import Callable
from functools import cache

import numpy as np
import pyarrow as pa

from laion_etl.core.byte_arena import ByteArena
from laion_etl.core.funnel import ParseReason
from laion_etl.core.kernels import Bytes, Hashes, Ints, constant, hash_of
from laion_etl.core.reason_codes import REASON_CODES
from laion_etl.core.wordlists import words
from laion_etl.settings import ParseSettings
from laion_etl.urls.host_kernels import find_files, number_hosts
from laion_etl.urls.public_suffix import public_suffixes, registered_domain

Spans = tuple[Ints, Ints]

# Names that no public resolver answers: RFC 6761 (localhost), 6762 appendix G, and ICANN's .internal;
# .home.arpa (RFC 8375) is handled separately. Reserved documentation names (.example, .test, .invalid) do not
# resolve either, but cannot point into a private network, so they are kept.
_PRIVATE_SUFFIXES = frozenset(
    ("localhost", "local", "internal", "intranet", "private", "corp", "home", "lan")
)

_KNOWN_HOSTS = 1 << 16


def host_is_public(host: str) -> bool:
    """Whether a host, as URL parsers write it, is public: not a single label, private name or address."""
    if host.startswith("["):
        return _is_global(ipaddress.IPv6Address(host[1:-1]))
    name = host.rstrip(".")
    _, dot, last = name.rpartition(".")
    if not dot or last in _PRIVATE_SUFFIXES:
        return False
    if last.isdigit():
        return _is_global(ipaddress.IPv4Address(name))
    return last != "arpa" or not f".{name}".endswith(".home.arpa")


def _is_global(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    embedded = getattr(address, "ipv4_mapped", None) or address
    return bool(embedded.is_global and not embedded.is_multicast)


@cache
def _trackers() -> dict[str, tuple[str, ...]]:
    """Returns path prefixes of trackers ('' for all paths) per host name."""
    found: dict[str, tuple[str, ...]] = {}
    for line in words("trackers"):
        name, slash, path = line.partition("/")
        found[name] = (*found.get(name, ()), slash + path)
    return found


@cache
def _tracker_domains() -> frozenset[str]:
    return frozenset(map(registered_domain, _trackers()))


def tracker_paths(host: str, domain: str) -> tuple[str, ...]:
    """Returns the path prefixes of trackers on this host of a registered domain; ('',) for all paths."""
    if domain not in _tracker_domains():
        return ()
    trackers = _trackers()
    labels = host.rstrip(".").split(".")
    names = [".".join(labels[first:]) for first in range(len(labels))]
    found = tuple(path for name in names for path in trackers.get(name, ()))
    return ("",) if "" in found else found


# File names of images that are meant to be invisible.
_TRACKER_STEMS = words("tracker-files")
TRACKER_FILES = frozenset(
    f"{stem}.{ending}" for stem in _TRACKER_STEMS for ending in ("png", "jpg", "jpeg", "webp", "bmp", "ico")
)


@cache
def _plain_endings() -> frozenset[str]:
    """Returns the top-level domains (.com, .de) under which two-label names are public registered domains."""
    rules, longer = public_suffixes()
    return frozenset(rule for rule in rules if "." not in rule) - longer - _PRIVATE_SUFFIXES


class HostRule:
    """Filters columns of URLs by host; remembers up to 65,536 hosts (about 12 MB)."""

    def __init__(self, settings: ParseSettings, domain_blocked: Callable[[str], bool]) -> None:
        self._refuse_trackers = settings.refuse_trackers
        self._blocked = domain_blocked
        self._names = np.empty((_KNOWN_HOSTS, settings.max_host_chars), np.uint8)
        self._sizes = np.empty(_KNOWN_HOSTS, np.int32)
        self._codes = np.zeros(_KNOWN_HOSTS, np.uint8)
        self._file_hashes = _sorted_hashes(TRACKER_FILES)
        self._forget()

    def _forget(self) -> None:
        self._table = np.zeros(2 * _KNOWN_HOSTS, np.int32)
        self._domains: list[str] = []
        self._domain_array = pa.array([], pa.string())
        self._paths: dict[int, tuple[str, ...]] = {}
        self._has_paths = np.zeros(_KNOWN_HOSTS, np.uint8)

    def judge(self, arena: ByteArena, urls: Spans, reasons: Bytes) -> Ints:
        """Sets the reasons of URLs whose host is refused. Returns the number of each host, for `domains`.

        Takes at most 32,768 URLs at a time, with hosts of at most `max_host_chars`.
        """
        if len(self._domains) + urls[0].size > _KNOWN_HOSTS:
            self._forget()
        numbers = np.empty(urls[0].size, np.int32)
        known = len(self._domains)
        count = number_hosts(arena.data, urls, self._table, self._names, self._sizes, known, numbers)
        names, width = self._names[known:count].tobytes(), self._names.shape[1]
        for row, size in enumerate(self._sizes[known:count].tolist()):
            self._learn(known + row, names[row * width : row * width + size].decode())
        reasons[:] = self._codes[numbers]
        if self._refuse_trackers:
            self._judge_trackers(arena, urls, numbers, reasons)
        return numbers

    def domains(self, numbers: Ints) -> pa.StringArray:
        """Returns the registered domains of hosts given by number."""
        new = self._domains[len(self._domain_array) :]
        if new:
            self._domain_array = pa.concat_arrays([self._domain_array, pa.array(new, pa.string())])
        return self._domain_array.take(pa.array(numbers))

    def _learn(self, number: int, host: str) -> None:
        labels = host.rsplit(".", 2)
        if is_common := labels[-1] in _plain_endings() and len(labels) > 1:
            domain = f"{labels[-2]}.{labels[-1]}"
        else:
            domain = registered_domain(host)
        self._domains.append(domain)
        paths = tracker_paths(host, domain) if self._refuse_trackers else ()
        if not is_common and not host_is_public(host):
            self._codes[number] = REASON_CODES[ParseReason.HOST_NOT_PUBLIC]
        elif paths == ("",):
            self._codes[number] = REASON_CODES[ParseReason.TRACKER]
        elif self._blocked(host):
            self._codes[number] = REASON_CODES[ParseReason.BLOCKED_DOMAIN]
        else:
            self._codes[number] = 0
            if paths:
                self._paths[number] = paths
                self._has_paths[number] = 1

    def _judge_trackers(self, arena: ByteArena, urls: Spans, numbers: Ints, reasons: Bytes) -> None:
        suspects = np.empty(urls[0].size, np.uint8)
        find_files(arena.data, urls, self._file_hashes, suspects)
        suspects |= self._has_paths[numbers]
        for row in np.flatnonzero(suspects & (reasons == 0)).tolist():
            url = arena.text(urls[0][row], urls[1][row])
            path = "/" + url.split("/", 3)[3].partition("?")[0]
            named = path.rpartition("/")[2].lower() in TRACKER_FILES
            if named or path.startswith(self._paths.get(int(numbers[row]), ())):
                reasons[row] = REASON_CODES[ParseReason.TRACKER]


def _sorted_hashes(names: frozenset[str]) -> Hashes:
    arrays = [constant(name.encode()) for name in names]
    return np.unique(np.array([hash_of(array, 0, array.size) for array in arrays], np.uint64))
