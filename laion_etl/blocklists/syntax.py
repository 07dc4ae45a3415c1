"""Parses the text of blocklists into hashes of their entries; an invalid line is an InputError.

One entry per line in UTF-8, gzipped or not. Blank lines and lines that begin with '#' are skipped; a comment
may follow a domain or a pair id.
"""

import gzip
import hashlib
import ipaddress
import zlib
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from io import BufferedReader
from itertools import pairwise
from typing import IO, NamedTuple, cast

import ada_url
import numpy as np

from laion_etl.blocklists.hashes import hash_expressions, hash_names
from laion_etl.blocklists.line_kernels import copy_urls, find_entries, find_plain_names, read_pair_ids
from laion_etl.core.byte_arena import ByteArena
from laion_etl.core.errors import InputError
from laion_etl.core.kernels import Bytes, Hashes, Ints
from laion_etl.urls.escapes import compare_spans
from laion_etl.urls.normalize import resolve_urls

_BLOCK_BYTES = 1 << 22
_MAX_LINE_BYTES = 1 << 16
_GZIP_MAGIC = b"\x1f\x8b"


class ListKind(StrEnum):
    """The kind of entries of a list."""

    DOMAINS = "domains"
    URLS = "urls"
    PAIRS = "pairs"
    PATTERNS = "patterns"


class Entries(NamedTuple):
    """Entries of a block of text: its spans, and their line numbers in the source."""

    source: str
    text: bytes
    spans: tuple[Ints, Ints]
    numbers: Ints

    def entry(self, row: int) -> str:
        return self.text[self.spans[0][row] : self.spans[1][row]].decode()

    def error(self, row: int, wanted: str) -> InputError:
        """Returns the error for an entry that is not what was expected, like "a domain"."""
        return InputError(
            f"cannot read {self.source} line {self.numbers[row]}: {self.entry(row)[:200]!r} is not {wanted}; "
            "correct or remove the line"
        )

    @classmethod
    def of_values(cls, values: Sequence[str], numbers: Sequence[int], source: str) -> "Entries":
        """Returns entries that were found in other ways; none is empty."""
        text, spans = _joined(values)
        return cls(source, text, spans, np.asarray(numbers, np.int32))


def _joined(values: Sequence[str]) -> tuple[bytes, tuple[Ints, Ints]]:
    """Returns texts behind each other, and where each starts and ends."""
    encoded = [value.encode() for value in values]
    lengths = np.asarray([len(value) for value in encoded], np.int32)
    ends = np.cumsum(lengths, dtype=np.int32)
    return b"".join(encoded), (ends - lengths, ends)


class TextReader:
    """Reads the entries of a source in blocks of 4 MiB; `content` is then the SHA-256 of its text."""

    def __init__(self, stream: BufferedReader, source: str) -> None:
        self._stream = stream
        self._source = source
        self._sha256 = hashlib.sha256()

    @property
    def content(self) -> str:
        return self._sha256.hexdigest()

    def blocks(self) -> Iterator[Entries]:
        """Yields the entries. Raises InputError for invalid UTF-8, damaged gzip and entries over 64 KiB."""
        number = 1
        for text in self._whole_lines():
            data = np.frombuffer(text, np.uint8)
            newlines = int(np.count_nonzero(data == ord("\n")))
            starts, ends, lines = np.empty((3, newlines + 1), np.int32)
            count = find_entries(data, starts, ends, lines)
            self._check_encoding(text, number)
            self._check_length(int(np.max(ends[:count] - starts[:count], initial=0)))
            yield Entries(self._source, text, (starts[:count], ends[:count]), lines[:count] + number)
            number += newlines

    def _whole_lines(self) -> Iterator[bytes]:
        rest = b""
        for block in self._pieces():
            lines, newline, rest = (rest + block).rpartition(b"\n")
            self._check_length(len(rest))
            if newline:
                yield lines + newline
        if rest:
            yield rest

    def _pieces(self) -> Iterator[bytes]:
        packed = self._stream.peek(2)[:2] == _GZIP_MAGIC
        stream = cast("IO[bytes]", gzip.GzipFile(fileobj=self._stream) if packed else self._stream)
        try:
            block = stream.read(_BLOCK_BYTES).removeprefix(BOM_UTF8)
            while block:
                self._sha256.update(block)
                yield block
                block = stream.read(_BLOCK_BYTES)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise InputError(f"cannot read {self._source}: damaged gzip ({error}); fetch it again") from error

    def _check_length(self, size: int) -> None:
        if size > _MAX_LINE_BYTES:
            raise InputError(
                f"cannot read {self._source}: a line is over 64 KiB long; check that it is a list of entries"
            )

    def _check_encoding(self, text: bytes, number: int) -> None:
        if text.isascii():
            return
        try:
            text.decode()
        except UnicodeDecodeError as error:
            line = number + text.count(b"\n", 0, error.start)
            raise InputError(
                f"cannot read {self._source} line {line}: it is not UTF-8; convert the file"
            ) from error


def get_hasher(kind: ListKind) -> Callable[[Entries], Hashes]:
    """Returns the function that hashes entries of a kind; it raises InputError for the first invalid line."""
    return {ListKind.DOMAINS: domain_hashes, ListKind.URLS: url_hashes, ListKind.PAIRS: pair_hashes}[kind]


def pair_hashes(lines: Entries) -> Hashes:
    """Reads the first 8 bytes of pair ids, 32 hexadecimal digits each."""
    hashes = np.empty(lines.numbers.size, np.uint64)
    bad = read_pair_ids(np.frombuffer(lines.text, np.uint8), lines.spans, hashes)
    if bad >= 0:
        raise lines.error(bad, "a pair id of 32 hexadecimal digits")
    return hashes


def domain_hashes(lines: Entries) -> Hashes:
    """Hashes domains; a line of a hosts file may have several."""
    hashes, hard = _hash_plain_names(lines)
    names = [name for row in np.flatnonzero(hard).tolist() for name in _names(lines, row)]
    return np.concatenate([hashes[hard == 0], _hash_hosts(names)]) if names else hashes


def _hash_plain_names(lines: Entries) -> tuple[Hashes, Bytes]:
    """Returns the hash of each line, and 1 for those for which it does not count: not in a simple form."""
    data = np.frombuffer(lines.text, np.uint8)
    hard = np.empty(lines.numbers.size, np.uint8)
    find_plain_names(data, lines.spans, hard)
    hashes = np.empty(hard.size, np.uint64)
    hash_names(data, lines.spans, hashes)
    return hashes, hard


def _hash_hosts(names: Sequence[str]) -> Hashes:
    text, spans = _joined(names)
    hashes = np.empty(len(names), np.uint64)
    hash_names(np.frombuffer(text, np.uint8), spans, hashes)
    return hashes


def _names(lines: Entries, row: int) -> list[str]:
    first, *names = lines.entry(row).split()
    try:
        if names:
            ipaddress.ip_address(first)  # a hosts file: an address followed by names
        return [normal_host(name) for name in names or [first]]
    except ValueError as error:
        raise lines.error(row, "a domain or a line of a hosts file") from error


def normal_host(name: str) -> str:
    """Normalises a domain or address like the hosts of links: punycode, lower case, no trailing dot.

    A leading `*.` or `.` is ignored. Raises ValueError if it is not exactly one host.
    """
    bare = name.removeprefix("*").removeprefix(".")
    bare = f"[{bare}]" if ":" in bare and "[" not in bare else bare
    url = ada_url.URL(f"http://{bare}/")
    host = str(url.hostname).removesuffix(".")
    # Without two dots at its end, the host of a link would be another one: `1.1..` is a name, 1.1 an address.
    # The parser ignores `@` and `/` in front of a host, behind which it may begin with a dot.
    if "*" in bare or host.startswith(".") or host.endswith(".") or url.href != f"http://{url.hostname}/":
        raise ValueError(f"{name!r} is not a host")
    return host


def url_hashes(lines: Entries) -> Hashes:
    """Hashes URL expressions and their hosts; only paths on these hosts need to be looked up."""
    return _hash_urls(lines)[0]


def _hash_urls(lines: Entries) -> tuple[Hashes, Ints]:
    """Returns the hashes, and where those of each line end: see `hash_expressions`."""
    data = np.frombuffer(lines.text, np.uint8)
    starts, ends = lines.spans[0].copy(), lines.spans[1].copy()
    wrong = np.empty(starts.size, np.uint8)
    arena = ByteArena(len(data) + 8 * starts.size + 16)
    base = arena.add(b"http://a/")
    arena.size = copy_urls(data, (starts, ends), arena.data, arena.size, wrong)
    # An invalid one has an empty span, which resolves to the base; it is reported below.
    bases = (np.array([base[0]], np.int32), np.array([base[1]], np.int32))
    resolve_urls(arena, (starts, ends), bases, np.zeros(starts.size, np.int32), wrong, _MAX_LINE_BYTES)
    if wrong.any():
        raise lines.error(int(np.argmax(wrong > 0)), "a URL or host/path")
    compare_spans(arena, starts, ends)
    hashes, stops = np.empty(2 * starts.size, np.uint64), np.empty(starts.size, np.int32)
    return hashes[: hash_expressions(arena.data, (starts, ends), hashes, stops)], stops


def hashes_by_line(kind: ListKind, lines: Entries) -> list[frozenset[int]]:
    """Returns the hashes of each line of URLs or domains. Raises InputError for the first invalid one."""
    return _url_hashes_by_line(lines) if kind is ListKind.URLS else _domain_hashes_by_line(lines)


def _url_hashes_by_line(lines: Entries) -> list[frozenset[int]]:
    hashes, ends = _hash_urls(lines)
    found, host = hashes.tolist(), 0
    by_line = []
    for start, end in pairwise([0, *ends.tolist()]):
        host = found[start] if end - start > 1 else host
        by_line.append(frozenset({host, found[end - 1]}))
    return by_line


def _domain_hashes_by_line(lines: Entries) -> list[frozenset[int]]:
    hashes, hard = _hash_plain_names(lines)
    by_line = [frozenset({one}) for one in hashes.tolist()]
    for row in np.flatnonzero(hard).tolist():
        by_line[row] = frozenset(_hash_hosts(_names(lines, row)).tolist())
    return by_line
