"""Reads a removal list: URLs, domains, samples, image hashes and pair ids, one per line."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import ada_url

from laion_etl.blocklists.removal_requests import Request
from laion_etl.blocklists.rule_hashes import RULES
from laion_etl.blocklists.syntax import Entries, ListKind, hashes_by_line, normal_host
from laion_etl.core.errors import InputError
from laion_etl.core.quantities import quantity
from laion_etl.removal.requested_lines import RequestedLine
from laion_etl.urls.public_suffix import is_public_suffix

MAX_BYTES = 256_000_000
_LINES_AT_ONCE = 4096
_PREFIXED = re.compile(
    r"(domain|suffix|url|pair|pair_id|md5|sha256|pdq|key|sample_id|image-of):(?!//)\s*(.+)", re.IGNORECASE
)
_PLACES = {
    "domain": "domains", "suffix": "domains", "url": "urls", "pair": "pairs", "pair_id": "pairs",
    "sample_id": "key",
}  # fmt: skip
_NAMES = {"pairs": "pair id", "md5": "MD5", "sha256": "SHA-256", "pdq": "PDQ"}
_CONFIRMED = re.compile(r"suffix:", re.IGNORECASE)
_HEX_DIGITS = {"pairs": 32, "md5": 32, "sha256": 64, "pdq": 64}
_FILE_NAME = re.compile(r"/[\w%~-][\w%~.-]*\Z")
_HEX = re.compile(r"[0-9a-f]+\Z")
_SAMPLE = re.compile(r"[0-9]{1,17}\Z", re.ASCII)
_COMMENT = re.compile(r"\s+#.*")
_CSV = re.compile(r"""\A["']|["']\Z|\t|;\s|,\s|,["']|,https?://""", re.IGNORECASE)
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Line:
    """A line that names something: its `rules` by kind, or a `sample`, the pair of which is looked up.

    `image_of`: the hashes of the URL whose image is named, which image_of.py looks up.
    """

    number: int
    text: str
    rules: Mapping[str, frozenset[str]]
    folders: frozenset[str] = frozenset()
    sample: int | None = None
    image_of: tuple[str, ...] = ()

    def request(self, pairs: Mapping[int, str]) -> Request | None:
        """Return the request of this line alone; None for a sample or an image that is not known."""
        rules = dict(self.rules)
        if self.image_of and not rules:
            return None
        if self.sample is not None:
            if self.sample not in pairs:
                return None
            rules["pairs"] = frozenset({pairs[self.sample]})
        return _request(rules, self.folders)


@dataclass(frozen=True, slots=True)
class RemovalList:
    """The lines of a list, in order; blank lines and comments are left out."""

    source: str
    lines: tuple[Line, ...]

    @property
    def samples(self) -> frozenset[int]:
        """The samples that lines name by `key` or SAMPLE_ID."""
        return frozenset(line.sample for line in self.lines if line.sample is not None)

    def requested(self, pairs: Mapping[int, str]) -> tuple[RequestedLine, ...]:
        """Return each line with its request; `pairs` as for `request`."""
        return tuple(RequestedLine.of(line.number, line.text, line.request(pairs)) for line in self.lines)

    def request(self, pairs: Mapping[int, str] | None = None) -> Request:
        """Return the request; `pairs`: ids of the pairs of named samples, as far as they were found."""
        found: dict[str, set[str]] = {kind: set() for kind in RULES}
        folders: set[str] = set()
        for line in self.lines:
            for kind, hashes in line.rules.items():
                found[kind] |= hashes
            folders |= line.folders
        found["pairs"] |= {(pairs or {})[one] for one in self.samples if one in (pairs or {})}
        return _request(found, folders)


def _request(rules: Mapping[str, set[str] | frozenset[str]], folders: set[str] | frozenset[str]) -> Request:
    return Request(
        {kind: tuple(sorted(rules.get(kind, ()))) for kind in RULES}, folders=tuple(sorted(folders))
    )


def read_list(data: bytes, source: str) -> Request:
    """Parse a list that names no samples into a request; raises as `read_lines`."""
    return read_lines(data, source).request()


def read_lines(data: bytes, source: str) -> RemovalList:
    """Parse a list. Raises InputError naming the first invalid line.

    A line is `example.com` (a domain and all names under it), a URL or `host/path`, the `key` or SAMPLE_ID of
    a sample, 32 hexadecimal digits (the MD5 of an image or the id of a pair), 64 of them (the SHA-256 of an
    image), or carries its kind as a prefix: `pdq:`, `md5:`, `sha256:`, `pair:`, `key:`, `url:`, `domain:`.
    `image-of:` and the URL of an image names all copies of it, under any URL.
    Blank lines and those that begin with # are ignored. Public suffixes like `com` and `github.io` are
    refused, unless they are confirmed by `suffix:`.
    """
    if len(data) > MAX_BYTES:
        raise InputError(
            f"cannot read {source}: it is larger than {quantity(MAX_BYTES, 'byte')}; split the list"
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"cannot read {source}: it is not UTF-8; convert the file") from error
    stripped = ((number, line.strip()) for number, line in enumerate(text.split("\n"), 1))
    texts = ((number, line) for number, line in stripped if line and line[0] != "#")
    lines: list[Line] = []
    while block := [*islice(texts, _LINES_AT_ONCE)]:
        lines += _read_block(block, source)
    if not lines:
        raise InputError(
            f"cannot read {source}: it names nothing to remove; write one URL, domain, key or hash per line"
        )
    return RemovalList(source, tuple(lines))


@dataclass(frozen=True, slots=True)
class _Draft:
    """A line; if it has a `kind`, it names the URL or domain `value`, which is not hashed yet."""

    line: Line
    kind: ListKind | None = None
    value: str = ""
    as_image: bool = False

    def with_hashes(self, hashes: frozenset[int]) -> Line:
        found = frozenset(f"{one:016x}" for one in hashes)
        if self.as_image:
            return replace(self.line, image_of=tuple(sorted(found)))
        folder = self.kind is ListKind.URLS and _may_be_folder(self.value)
        return replace(self.line, rules={str(self.kind): found}, folders=found if folder else frozenset())


def _read_block(block: Iterable[tuple[int, str]], source: str) -> list[Line]:
    """Read lines, by number. Raises InputError for the first invalid one."""
    drafts: list[_Draft] = []
    try:
        for number, text in block:
            drafts.append(_LineReader(source, number).read(text))
        return _hashed(drafts, source)
    except InputError:
        for draft in drafts:  # one by one: an invalid line before that of this error comes first
            _hashed([draft], source)
        raise


def _hashed(drafts: Sequence[_Draft], source: str) -> list[Line]:
    """Hash all URLs at once, and all domains: one by one they take thirty times as long."""
    lines = {draft.line.number: draft.line for draft in drafts}
    for kind in (ListKind.URLS, ListKind.DOMAINS):
        named = [draft for draft in drafts if draft.kind is kind]
        if not named:
            continue
        values, numbers = [draft.value for draft in named], [draft.line.number for draft in named]
        found = hashes_by_line(kind, Entries.of_values(values, numbers, source))
        lines |= {draft.line.number: draft.with_hashes(one) for draft, one in zip(named, found, strict=True)}
    for draft in drafts:
        if draft.kind is not None and not draft.as_image and not _CONFIRMED.match(draft.line.text):
            _LineReader(source, draft.line.number).check_hosts(draft.kind, draft.value)
    return [*lines.values()]


@dataclass(frozen=True, slots=True)
class _LineReader:
    source: str
    number: int

    def read(self, line: str) -> _Draft:
        """Return what a line names, which is neither blank nor a comment."""
        kinds, value = _kinds(line)
        if value.startswith("#"):
            raise self._error("it has a comment in place of a value")
        if "key" in kinds:
            if not _SAMPLE.match(value):
                raise self._error("it is not a key or SAMPLE_ID of at most 17 digits")
            return _Draft(Line(self.number, line, {}, sample=int(value)))
        if "image-of" in kinds:
            return self._image_of(line, value)
        for kind in kinds & {"domains", "urls"}:
            self._check(kind, value)
            return _Draft(Line(self.number, line, {}), ListKind(kind), value)
        for kind in kinds:
            if len(value) != _HEX_DIGITS[kind] or not _HEX.match(value):
                raise self._error(f"it is not a {_NAMES[kind]} of {_HEX_DIGITS[kind]} hexadecimal digits")
        return _Draft(Line(self.number, line, dict.fromkeys(kinds, frozenset({value}))))

    def _image_of(self, line: str, value: str) -> _Draft:
        """Return a line that names the image of a URL. Raises InputError if that names no single file."""
        self._check("urls", value)
        if "://" not in value or _hosts("urls", value) or value.endswith("/"):
            raise self._error(
                f"{value[:_SHOWN]!r} is not the URL of an image", "write it with https:// and path"
            )
        return _Draft(Line(self.number, line, {}), ListKind.URLS, value, as_image=True)

    def check_hosts(self, kind: str, value: str) -> None:
        """Raise InputError for a name below which anyone has domains."""
        for host in _hosts(kind, value):
            if is_public_suffix(host):
                raise self._error(
                    f"{host!r} is a public suffix, below which anyone has domains",
                    f"name the domains themselves, or confirm that all below it are meant by suffix:{host}",
                )

    def _check(self, kind: str, value: str) -> None:
        """Raise InputError for what would pass for a URL or domain and match nothing."""
        if _CSV.search(value) or (kind == "domains" and "," in value):
            raise self._error(
                "it looks like a line of a table", "write one URL, domain, key or hash per line, nothing else"
            )
        if kind == "urls":
            self._check_url(value)

    def _check_url(self, value: str) -> None:
        if value.startswith("/"):
            raise self._error(f"{value[:_SHOWN]!r} has no host", "write a URL or host/path")
        if re.search(r"\s", value):
            advice = "write comments on lines of their own" if " #" in value else "write spaces as %20"
            raise self._error("a URL has no spaces", advice)
        path = re.split("[?#]", value, maxsplit=1)[0]
        if path.endswith("/*"):
            raise self._error(
                "a URL has no wildcards", f"write {path[:-1][:_SHOWN]} for all that is below it"
            )
        if "*" in path.split("://")[-1].split("/")[0]:
            raise self._error("a URL has no wildcards", "write the domain alone for all hosts below it")

    def _error(self, cause: str, advice: str = "correct or remove the line") -> InputError:
        return InputError(f"cannot read {self.source} line {self.number}: {cause}; {advice}")


def hashes_of_urls(urls: Sequence[str], source: str) -> list[tuple[str, ...]]:
    """Return the hashes of each URL and its host, as requests have them. Raises InputError."""
    entries = Entries.of_values(urls, range(1, len(urls) + 1), source)
    return [tuple(sorted(f"{one:016x}" for one in found)) for found in hashes_by_line(ListKind.URLS, entries)]


def _may_be_folder(line: str) -> bool:
    """Whether a URL expression may name a folder: its path does not end in a plain file name."""
    path = re.split("[?#]", line, maxsplit=1)[0]
    return not _FILE_NAME.search(path) or "%2e" in path.lower()


def _hosts(kind: str, value: str) -> Sequence[str]:
    """Return the hosts that a line names as a whole; none for an invalid line, which is refused later."""
    try:
        if kind == "domains":
            names = value.split()
            return [normal_host(name) for name in names[1:] or names]
        url = ada_url.URL(value if "://" in value else f"http://{value}")
        return [str(url.hostname).rstrip(".")] if url.pathname == "/" and not url.search else []
    except ValueError:
        return []


def _kinds(line: str) -> tuple[set[str], str]:
    """Return the kinds that a line may be, and its value."""
    if match := _PREFIXED.match(line):
        kind, value = match[1].lower(), match[2]
        place = _PLACES.get(kind, kind)
        if place in _HEX_DIGITS or place == "key":
            return {place}, _COMMENT.sub("", value.lower())
        return {place}, value if place in ("urls", "image-of") else _COMMENT.sub("", value)
    value = _COMMENT.sub("", line)
    lower = value.lower()
    if _HEX.match(lower) and len(lower) == 32:
        return {"md5", "pairs"}, lower
    if _HEX.match(lower) and len(lower) == 64:
        return {"sha256"}, lower
    if _SAMPLE.match(value):
        return {"key"}, value
    return ({"urls"}, line) if "/" in value else ({"domains"}, value)
