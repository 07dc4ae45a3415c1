"""The hashes of the lines of a removal list, as arrays.

A line takes 80 bytes (400 while they are read) and 9 microseconds. As a Request it took 1.3 kB and 10, its id
15, and a range read the list twice. Each range of a divided removal has the whole list, maybe millions of
lines, to find which of them match, and names only those.
"""

import hashlib
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from laion_etl.blocklists.removal_requests import Request
from laion_etl.blocklists.rule_hashes import RULES, WIDTHS, hash_of


@dataclass(frozen=True, slots=True)
class HashesOfLines:
    """The hashes of one kind (n, width), and the line of each, ascending."""

    lines: NDArray[np.int32]
    hashes: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.lines)

    def of_line(self, line: int) -> tuple[str, ...]:
        """Return the hashes of a line in hexadecimal digits."""
        first, end = np.searchsorted(self.lines, [line, line + 1])
        return tuple(bytes(one).hex() for one in self.hashes[first:end])

    def numbers(self) -> NDArray[np.uint64]:
        """Return the first 64 bits of each hash."""
        first = np.ascontiguousarray(self.hashes[:, :8]).view(">u8")
        found: NDArray[np.uint64] = first.reshape(-1).astype(np.uint64)
        return found


@dataclass(frozen=True, slots=True)
class LineRules:
    """The hashes of lines by kind, and the version of the URL rule of each line; equal lines are one."""

    kinds: Mapping[str, HashesOfLines]
    url_rules: NDArray[np.int16]

    @classmethod
    def of(cls, requests: Iterable[Request]) -> "LineRules":
        """Return the rules of requests of one line each."""
        collected = LineCollector()
        for request in requests:
            collected.add(request.rules, request.url_rule)
        return collected.rules()

    def __len__(self) -> int:
        return len(self.url_rules)

    def id_of(self, line: int) -> str:
        """Return the id of the request of a line."""
        rules = {kind: found.of_line(line) for kind, found in self.kinds.items()}
        return Request(rules, url_rule=int(self.url_rules[line])).id


class LineCollector:
    """Collects the rules of one line after another."""

    def __init__(self) -> None:
        self._lines = {kind: array("i") for kind in RULES}
        self._hashes = {kind: bytearray() for kind in RULES}
        self._url_rules = array("h")
        self._known: set[bytes] = set()

    def add(self, rules: Mapping[str, Iterable[str]], url_rule: int = 0) -> None:
        """Add a line, unless there is one with the same rules. Raises ValueError for what is not a hash."""
        hashes = {kind: sorted(hash_of(one, kind) for one in rules.get(kind, ())) for kind in RULES}
        content = hashlib.blake2b(repr((hashes, url_rule)).encode(), digest_size=16).digest()
        if content in self._known:
            return
        self._known.add(content)
        for kind, found in hashes.items():
            self._lines[kind].extend([len(self._url_rules)] * len(found))
            self._hashes[kind] += b"".join(found)
        self._url_rules.append(url_rule)

    def rules(self, url_rule: int = 0) -> LineRules:
        """Return what was collected; `url_rule`: that of the lines that were added without."""
        kinds = {
            kind: HashesOfLines(
                np.frombuffer(self._lines[kind], np.int32),
                np.frombuffer(self._hashes[kind], np.uint8).reshape(-1, width),
            )
            for kind, width in WIDTHS.items()
        }
        url_rules = np.frombuffer(self._url_rules, np.int16)
        return LineRules(kinds, np.where(url_rules, url_rules, np.int16(url_rule)))
