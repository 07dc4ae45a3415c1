"""Reads a removal list into a request: URLs, domains, image hashes and pair ids, one per line."""

import io
import re
from collections.abc import Iterator

from laion_etl.blocklists.removal_requests import RULES, Request
from laion_etl.blocklists.syntax import ListKind, TextReader, get_hasher
from laion_etl.core.errors import InputError

MAX_BYTES = 256_000_000
_PREFIXED = re.compile(r"(domain|url|pair|md5|sha256|pdq):(?!//)\s*(.+)", re.IGNORECASE)
_PLACES = {"domain": "domains", "url": "urls", "pair": "pairs"}
_HEX_DIGITS = {"pairs": 32, "md5": 32, "sha256": 64, "pdq": 64}
_FILE_NAME = re.compile(r"/[\w%~-][\w%~.-]*\Z")
_HEX = re.compile(r"[0-9a-f]+\Z")


def read_list(data: bytes, source: str) -> Request:
    """Parse a list into a request. Raises InputError naming the first invalid line.

    A line is `example.com` (a domain and all names under it), a URL or `host/path`, 32 hexadecimal digits
    (the MD5 of an image or the id of a pair), 64 of them (the SHA-256 of an image), or carries its kind as a
    prefix: `pdq:`, `md5:`, `sha256:`, `pair:`, `url:`, `domain:`. Blank lines and those that begin with # are
    ignored.
    """
    if len(data) > MAX_BYTES:
        raise InputError(f"cannot read {source}: it is larger than {MAX_BYTES:,} bytes; split the list")
    rules: dict[str, set[str]] = {kind: set() for kind in RULES}
    texts: dict[str, list[str]] = {"domains": [], "urls": []}
    for number, line in enumerate(_lines(data, source), 1):
        chosen, value = _kinds(line)
        for kind, lines in texts.items():  # blank where the line is of another kind: numbers stay right
            lines.append(value if kind in chosen else "")
        for kind in chosen & _HEX_DIGITS.keys():
            if len(value) != _HEX_DIGITS[kind] or not _HEX.match(value):
                raise InputError(
                    f"cannot read {source} line {number}: it is not a {kind} of {_HEX_DIGITS[kind]} "
                    "hexadecimal digits; correct or remove the line"
                )
            rules[kind].add(value)
    for kind, lines in texts.items():
        rules[kind] |= _link_hashes(ListKind(kind), "\n".join(lines).encode(), source)
    folders = [line if _may_be_folder(line) else "" for line in texts["urls"]]
    named = _link_hashes(ListKind.URLS, "\n".join(folders).encode(), source)
    if not any(rules.values()):
        raise InputError(
            f"cannot read {source}: it names nothing to remove; write one URL, domain or hash per line"
        )
    return Request(
        {kind: tuple(sorted(found)) for kind, found in rules.items()}, folders=tuple(sorted(named))
    )


def _may_be_folder(line: str) -> bool:
    """Whether a URL expression may name a folder: its path does not end in a plain file name."""
    path = re.split("[?#]", line, maxsplit=1)[0]
    return not _FILE_NAME.search(path) or "%2e" in path.lower()


def _lines(data: bytes, source: str) -> Iterator[str]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"cannot read {source}: it is not UTF-8; convert the file") from error
    for line in text.split("\n"):
        yield line.strip()


def _kinds(line: str) -> tuple[set[str], str]:
    """Return the kinds that a line may be, and its value."""
    if not line or line.startswith("#"):
        return set(), ""
    if match := _PREFIXED.match(line):
        kind = match[1].lower()
        place = _PLACES.get(kind, kind)
        return {place}, match[2].lower() if place in _HEX_DIGITS else match[2]
    value = line.lower()
    if _HEX.match(value) and len(value) == 32:
        return {"md5", "pairs"}, value
    if _HEX.match(value) and len(value) == 64:
        return {"sha256"}, value
    return {"urls" if "/" in line else "domains"}, line


def _link_hashes(kind: ListKind, text: bytes, source: str) -> set[str]:
    reader = TextReader(io.BufferedReader(io.BytesIO(text)), source)
    hash_entries = get_hasher(kind)
    return {f"{value:016x}" for lines in reader.blocks() for value in hash_entries(lines).tolist()}
