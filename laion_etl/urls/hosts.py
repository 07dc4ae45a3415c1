"""Filters links by host: not public, a tracker, or blocked; and finds the registered domain.

Hosts repeat, so each host is judged once and looked up by number for columns of URLs. Which links pass is a
rule of parse: a change raises RULES_VERSION in parse/link_filters.py. How a host is written (lower case,
punycode) is part of the URL's form: see normalize.py.
"""

import os
from collections.abc import Callable
from functools import cache

import numpy as np

from laion_etl.core.byte_arena import ByteArena
from laion_etl.core.funnel import ParseReason
from laion_etl.core.kernels import Bytes, Hashes, Ints, constant, hash_of
from laion_etl.core.reason_codes import REASON_CODES
from laion_etl.core.wordlists import words
from laion_etl.settings import ParseSettings
from laion_etl.urls.addresses import is_public
from laion_etl.urls.host_kernels import Endings, find_domains, find_files, number_hosts
from laion_etl.urls.public_suffix import public_suffixes, registered_domain

Spans = tuple[Ints, Ints]

# Names that no public resolver answers: RFC 6761 (localhost), 6762 appendix G, ICANN's .internal, names of
# other systems than DNS (.onion RFC 7686, .alt RFC 9476), and what routers call a network (.localdomain,
# .domain); .home.arpa (RFC 8375) is handled separately. Reserved documentation names (.example, .test,
# .invalid) do not resolve either, but cannot point into a private network, so they are kept.
_PRIVATE_SUFFIXES = frozenset(
    (
        "localhost",
        "local",
        "internal",
        "intranet",
        "private",
        "corp",
        "home",
        "lan",
        "onion",
        "alt",
        "localdomain",
        "domain",
    )
)

_KNOWN_HOSTS = 1 << 16


def host_is_public(host: str) -> bool:
    """Whether a host, as URL parsers write it, is public: not a single label, private name or address.

    One dot at the end is that of a fully qualified name. Names with an empty label (`foo.09..`, `a..com`) are
    valid hosts by the URL standard, which takes the last label for that of an address only if it is not
    empty; no resolver can look them up (RFC 1035 2.3.4), so they are not public.
    """
    if host.startswith("["):
        return is_public(host[1:-1])
    labels = without_final_dot(host).split(".")
    last = labels[-1]
    if len(labels) == 1 or "" in labels or last in _PRIVATE_SUFFIXES:
        return False
    if last.isdigit():
        return is_public(".".join(labels))
    return labels[-2:] != ["home", "arpa"]


def without_final_dot(host: str) -> str:
    """Returns a host without the one dot that may end a fully qualified name."""
    return host.removesuffix(".")


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
    labels = without_final_dot(host).split(".")
    names = [".".join(labels[first:]) for first in range(len(labels))]
    found = tuple(path for name in names for path in trackers.get(name, ()))
    return ("",) if "" in found else found


_IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ico")
TRACKER_FILES = frozenset(  # names of images that are meant to be invisible, and of programs that count views
    name if "." in name else name + ending for name in words("tracker-files") for ending in _IMAGE_ENDINGS
)


@cache
def _plain_endings() -> frozenset[str]:
    """Returns the top-level domains (.com, .de) under which two-label names are public registered domains."""
    rules, longer = public_suffixes()
    return frozenset(rule for rule in rules if "." not in rule) - longer - _PRIVATE_SUFFIXES


@cache
def _longer_endings() -> frozenset[str]:
    """Returns the endings of two labels (.co.uk) under which names of three are public registered domains."""
    rules, longer = public_suffixes()
    listed = frozenset(rule for rule in rules if rule.count(".") == 1 and rule[0] not in "*!")
    return listed - longer - {"home.arpa"}  # which has a rule, and is private


class HostRule:
    """Filters columns of URLs by host; remembers up to 65,536 hosts (about 5 MB).

    A kernel judges most hosts: those with an ending like .com or .co.uk that are on no list.
    """

    def __init__(self, settings: ParseSettings, domain_blocked: Callable[[str], bool] | None = None) -> None:
        """`domain_blocked`: whether a host is on a blocklist; None if no domain is."""
        self._refuse_trackers = settings.refuse_trackers
        self._blocked = domain_blocked
        self._names = np.empty((_KNOWN_HOSTS, settings.max_host_chars), np.uint8)
        self._sizes = np.empty(_KNOWN_HOSTS, np.int32)
        self._codes = np.zeros(_KNOWN_HOSTS, np.uint8)
        self._domains = np.empty(_KNOWN_HOSTS, np.int32), np.empty(_KNOWN_HOSTS, np.int32)
        self._key = np.frombuffer(os.urandom(16), np.uint64).copy()
        self._file_hashes = _sorted_hashes(TRACKER_FILES)
        self._endings = _endings()
        self._tracker_hashes = _sorted_hashes(_tracker_domains() if settings.refuse_trackers else frozenset())
        self._forget()

    def _forget(self) -> None:
        self._table = np.zeros(2 * _KNOWN_HOSTS, np.int32)
        self._known = 0
        self._paths: dict[int, tuple[str, ...]] = {}
        self._errors: dict[int, Exception] = {}
        self._has_paths = np.zeros(_KNOWN_HOSTS, np.uint8)

    def judge(self, arena: ByteArena, urls: Spans, reasons: Bytes) -> Ints:
        """Sets the reasons of URLs whose host is refused. Returns the number of each host, for `domains`.

        Takes at most 32,768 URLs at a time, with hosts of at most `max_host_chars`. An exception that judging
        a host raises is raised whenever a URL of that host is among those given.
        """
        if self._known + urls[0].size > _KNOWN_HOSTS:
            self._forget()
        numbers = np.empty(urls[0].size, np.int32)
        first = self._known
        table = self._table, self._key
        self._known = number_hosts(arena.data, urls, table, self._names, self._sizes, first, numbers)
        self._learn(first)
        for number in set(numbers.tolist()) & self._errors.keys() if self._errors else ():
            raise self._errors[number]
        reasons[:] = self._codes[numbers]
        if self._refuse_trackers:
            self._judge_trackers(arena, urls, numbers, reasons)
        return numbers

    def domains(self, numbers: Ints) -> tuple[Bytes, Ints, Ints]:
        """Returns the registered domains of hosts given by number: some bytes, starts and ends in these."""
        starts, ends = self._domains
        return self._names.reshape(-1), starts[numbers], ends[numbers]

    def _learn(self, first: int) -> None:
        """Judges the hosts from a number on."""
        starts, _ = self._domains
        new = slice(first, self._known)
        self._codes[new] = 0
        if self._blocked is None:
            hosts = (first, self._known)
            find_domains(self._names, self._sizes, hosts, self._endings, self._tracker_hashes, self._domains)
        else:
            starts[new] = -1
        for row in np.flatnonzero(starts[new] < 0).tolist():
            self._learn_one(first + row)

    def _learn_one(self, number: int) -> None:
        """Judges a host. Each number must have its domain, so an exception is kept for later."""
        written = self._names[number, : self._sizes[number]].tobytes()
        domain = ""
        try:
            domain, reason, paths = self._judged(written.decode())
        except Exception as error:  # noqa: BLE001 - `judge` raises it for the URLs of this host
            self._errors[number] = error
            reason, paths = None, ()
        starts, ends = self._domains  # a domain is what its host ends with, but for a final dot
        ends[number] = number * self._names.shape[1] + len(written.removesuffix(b"."))
        starts[number] = ends[number] - len(domain.encode())
        if reason is not None:
            self._codes[number] = REASON_CODES[reason]
        elif paths:
            self._paths[number] = paths
            self._has_paths[number] = 1

    def _judged(self, written: str) -> tuple[str, ParseReason | None, tuple[str, ...]]:
        """Returns the registered domain of a host, why it is refused, and the paths of trackers on it."""
        host = without_final_dot(written)
        labels = host.rsplit(".", 2)
        if is_common := labels[-1] in _plain_endings() and len(labels) > 1 and all(host.split(".")):
            domain = f"{labels[-2]}.{labels[-1]}"
        else:
            domain = registered_domain(host)
        paths = tracker_paths(host, domain) if self._refuse_trackers else ()
        if not is_common and not host_is_public(written):
            return domain, ParseReason.HOST_NOT_PUBLIC, ()
        if paths == ("",):
            return domain, ParseReason.TRACKER, ()
        if self._blocked is not None and self._blocked(host):
            return domain, ParseReason.BLOCKED_DOMAIN, ()
        return domain, None, paths

    def _judge_trackers(self, arena: ByteArena, urls: Spans, numbers: Ints, reasons: Bytes) -> None:
        suspects = np.empty(urls[0].size, np.uint8)
        find_files(arena.data, urls, self._file_hashes, suspects)
        suspects |= self._has_paths[numbers]
        for row in np.flatnonzero(suspects & (reasons == 0)).tolist():
            url = arena.text(urls[0][row], urls[1][row])
            path = "/" + url.split("/", 3)[3].partition("?")[0]
            named = path.rpartition("/")[2].lower() in TRACKER_FILES
            if named or _is_below(path, self._paths.get(int(numbers[row]), ())):
                reasons[row] = REASON_CODES[ParseReason.TRACKER]


def _is_below(path: str, trackers: tuple[str, ...]) -> bool:
    """Whether a path is one of the trackers', or below it: `/tr/` is below `/tr`, `/travel.jpg` is not."""
    return any(path == tracker or path.startswith(f"{tracker}/") for tracker in trackers)


@cache
def _endings() -> Endings:
    """Returns endings of one label and of two for the kernel."""
    names = [ending.encode() for ending in _plain_endings() | _longer_endings()]
    hashes = np.array([hash_of(constant(name), 0, len(name)) for name in names], np.uint64)
    order = np.argsort(hashes)
    padded = np.zeros((len(names), max(map(len, names))), np.uint8)
    for row, name in enumerate(names):
        padded[row, : len(name)] = list(name)
    return Endings(hashes[order], padded[order], np.array(list(map(len, names)), np.int32)[order])


def _sorted_hashes(names: frozenset[str]) -> Hashes:
    arrays = [constant(name.encode()) for name in names]
    return np.unique(np.array([hash_of(array, 0, array.size) for array in arrays], np.uint64))
