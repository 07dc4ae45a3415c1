"""Blocklists of domains, URLs and pairs: files of tens of millions of entries, looked up in columns.

A list is stored as sorted 64-bit hashes in a file that all processes of a machine map: 8 bytes per entry, and
8 more per host in URL expressions. A listed entry is always found; the false-positive rate is about
n / 2**64 per lookup (n: entries). Formats and figures: docs/blocklists.md.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from laion_etl.blocklists.compiled import CompiledList, compiled_list
from laion_etl.blocklists.hashes import flag_contained, flag_urls, name_blocked
from laion_etl.blocklists.link_keys import flag_hosts, parsed_host
from laion_etl.blocklists.patterns import UrlPatterns, read_patterns
from laion_etl.blocklists.syntax import ListKind
from laion_etl.core.kernels import Hashes
from laion_etl.core.schemas import pair_id
from laion_etl.core.text_columns import buffers_of
from laion_etl.settings import ParseSettings
from laion_etl.urls import normalize
from laion_etl.urls.escapes import comparable_urls

Mask = npt.NDArray[np.bool_]

_NOWHERE = "http://removed.invalid/"  # for a URL that is not there any more, or never was one


class Blocklists:
    """All configured lists; `fingerprint` changes whenever their content does ('' without lists).

    `earlier`: entries that other versions of the URL rule than today's may have made, by version; a link has
    to be looked up there in the form that the version gives it.
    """

    def __init__(
        self,
        domains: Sequence[Hashes] = (),
        urls: Sequence[Hashes] = (),
        pairs: Sequence[Hashes] = (),
        patterns: UrlPatterns | None = None,
        fingerprint: str = "",
        earlier: Mapping[int, "Blocklists"] | None = None,
    ) -> None:
        self.fingerprint = fingerprint
        self.earlier = dict(earlier or {})
        self._domains = [entries for entries in domains if entries.size]
        self._urls = [entries for entries in urls if entries.size]
        self._pairs = [entries for entries in pairs if entries.size]
        self._patterns = patterns or UrlPatterns()

    def joined(self, other: "Blocklists") -> "Blocklists":
        """Returns the combined lists, with the patterns of this one."""
        earlier = {
            rule: self.earlier.get(rule, Blocklists()).joined(other.earlier.get(rule, Blocklists()))
            for rule in sorted({*self.earlier, *other.earlier})
        }
        return Blocklists(
            [*self._domains, *other._domains],
            [*self._urls, *other._urls],
            [*self._pairs, *other._pairs],
            self._patterns,
            self.fingerprint + other.fingerprint,
            earlier,
        )

    @property
    def blocks_domains(self) -> bool:
        return bool(self._domains)

    @property
    def blocks_urls(self) -> bool:
        return bool(self._urls or self._patterns)

    @property
    def blocks_pairs(self) -> bool:
        return bool(self._pairs)

    def domain_blocked(self, host: str) -> bool:
        """Whether a host, as URL parsers write it, or one of its parent domains is listed."""
        if not self._domains or not host:
            return False
        name = np.frombuffer(host.encode(), np.uint8)
        return any(name_blocked(name, entries) for entries in self._domains)

    def hosts_blocked(self, urls: pa.StringArray) -> Mask:
        """Whether the host of an absolute URL, or one of its parent domains, is listed, per URL."""
        flags = np.zeros(len(urls), np.uint8)
        if not self._domains or not len(urls):
            return flags.astype(np.bool_)
        (data, offsets), unusual = buffers_of(urls), np.zeros(len(urls), np.uint8)
        for entries in self._domains:
            flag_hosts(data, offsets, entries, flags, unusual)
        for row in np.flatnonzero(unusual).tolist():
            flags[row] = self.domain_blocked(parsed_host(urls[row].as_py()))
        return flags.astype(np.bool_)

    def urls_blocked(self, urls: pa.StringArray) -> Mask:
        """Whether an expression or pattern blocks a URL, per absolute URL, however it is escaped."""
        flags = np.zeros(len(urls), np.uint8)
        urls = comparable_urls(urls)
        if self._urls and len(urls):
            data, offsets = buffers_of(urls)
            for entries in self._urls:
                flag_urls(data, offsets, entries, flags)
        blocked = flags.astype(np.bool_)
        return blocked | self._patterns.matches(urls) if self._patterns else blocked

    def pairs_blocked(self, pair_ids: Hashes) -> Mask:
        """Whether a pair is listed, per pair; each is given by the first 8 bytes of its id, big-endian."""
        flags = np.zeros(pair_ids.size, np.uint8)
        for entries in self._pairs:
            flag_contained(entries, pair_ids, flags)
        return flags.astype(np.bool_)

    def masks(
        self, urls: Sequence[str] | pa.StringArray, captions: Sequence[str] | None = None
    ) -> list[tuple[ListKind, Mask]]:
        """Return which of some absolute URLs are blocked, by kind of list; by pair only with captions.

        An empty URL is not blocked.
        """
        texts_of_urls = urls if isinstance(urls, pa.StringArray) else pa.array(urls, pa.string())
        present = pc.greater(pc.binary_length(pc.fill_null(texts_of_urls, "")), 0)
        known = pc.if_else(present, texts_of_urls, _NOWHERE)
        masks = []
        if self.blocks_domains:
            masks.append((ListKind.DOMAINS, self.hosts_blocked(known)))
        if self.blocks_urls:
            masks.append((ListKind.URLS, self.urls_blocked(known)))
        if self.blocks_pairs and captions is not None:
            texts = zip(known.to_pylist(), captions, strict=True)
            ids = [int.from_bytes(pair_id(url, caption)[:8]) for url, caption in texts]
            masks.append((ListKind.PAIRS, self.pairs_blocked(np.asarray(ids, np.uint64))))
        return masks


def load_blocklists(settings: ParseSettings, data_dir: Path) -> Blocklists:
    """Loads the configured lists; hashed ones are compiled once per URL rule into `<data_dir>/blocklists`.

    Raises InputError for a source that cannot be read, naming the first invalid line.
    """
    folder = data_dir / "blocklists"
    sources = {
        ListKind.DOMAINS: settings.blocked_domains,
        ListKind.URLS: settings.blocked_urls,
        ListKind.PAIRS: settings.blocked_pairs,
    }
    lists = {kind: [compiled_list(kind, name, folder) for name in names] for kind, names in sources.items()}
    read = [read_patterns(name) for name in settings.blocked_url_patterns]
    contents = {kind: {one.content for one in found} for kind, found in lists.items()}
    pairs = _entries(lists[ListKind.PAIRS])
    contents[ListKind.PATTERNS] = {content for _, content in read}
    return Blocklists(
        domains=_entries(lists[ListKind.DOMAINS]),
        urls=_entries(lists[ListKind.URLS]),
        pairs=pairs,
        patterns=UrlPatterns([pattern for patterns, _ in read for pattern in patterns]),
        fingerprint=_content_fingerprint(contents),
        # Nothing says by which rule listed pair ids were made; URLs and domains are hashed by today's.
        earlier={rule: Blocklists(pairs=pairs) for rule in normalize.EARLIER_RULES if pairs},
    )


def _entries(lists: Sequence[CompiledList]) -> list[Hashes]:
    return [one.entries for one in lists]


def _content_fingerprint(contents: dict[ListKind, set[str]]) -> str:
    named = sorted(f"{kind} {content}" for kind, found in contents.items() for content in found)
    return hashlib.sha256("\n".join(named).encode()).hexdigest() if named else ""
