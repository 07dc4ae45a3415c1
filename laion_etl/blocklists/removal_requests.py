"""Removal requests that have been carried out: `removals/<id>.json` in the store, one per list.

A request stores hashes, never the URLs or names that were requested: for domains and URLs the 64-bit hashes
that blocklists use (docs/blocklists.md), for images MD5, SHA-256 and PDQ, and the ids of all pairs found.
So parse, download and publish can exclude what was removed without the store revealing what it was.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import ada_url
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from laion_etl.blocklists import Blocklists
from laion_etl.blocklists.image_hashes import HashBlocklist, PdqBlocklist
from laion_etl.core.errors import InputError
from laion_etl.core.funnel import PublishReason
from laion_etl.core.schemas import BATCH_FILES
from laion_etl.core.stage_stats import fingerprint
from laion_etl.io.storage import Store

FOLDER = "removals"
FORMAT = 1
REASON = PublishReason.REMOVED_BY_REQUEST.value
RULES = ("domains", "urls", "pairs", "md5", "sha256", "pdq")
FOUND = "found"  # no rule matches the row itself: the same pair was found elsewhere in the store

_NOWHERE = "http://removed.invalid/"

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Request:
    """A list of what is to be removed, and what was found.

    `rules`: hexadecimal hashes by kind. `pair_ids`: the pairs that were found. `crawls`: where they were
    found. `counts`: how many pairs each rule was the first to find.
    """

    rules: Mapping[str, tuple[str, ...]]
    pair_ids: frozenset[str] = frozenset()
    crawls: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Id derived from the rules, whatever their order."""
        return fingerprint("removal", {kind: sorted(self.rules.get(kind, ())) for kind in RULES})

    @property
    def named_pairs(self) -> frozenset[str]:
        """Ids of the pairs that were requested and of those that were found."""
        return self.pair_ids | {*self.rules.get("pairs", ())}

    @property
    def name(self) -> str:
        """Name of its file in the store."""
        return f"{FOLDER}/{self.id}.json"

    def to_json(self) -> bytes:
        document = {
            "format": FORMAT,
            "id": self.id,
            "rules": {kind: sorted(self.rules.get(kind, ())) for kind in RULES},
            "removed": {kind: self.counts.get(kind, 0) for kind in RULES},
            "crawls": sorted(self.crawls),
            "pair_ids": sorted(self.pair_ids),
        }
        return json.dumps(document, indent=1).encode() + b"\n"

    def without_findings(self) -> "Request":
        return replace(self, pair_ids=frozenset(), crawls=(), counts={})


class Matcher:
    """Finds the rows that removal requests cover."""

    def __init__(self, requests: Sequence[Request], pdq_distance: int) -> None:
        self._requests = requests
        self._pdq_distance = pdq_distance

    def __bool__(self) -> bool:
        return bool(self._requests)

    def match_rules(self, rows: pa.RecordBatch | pa.Table) -> npt.NDArray[np.object_]:
        """Return the rule that matches each row; None for rows that stay.

        Uses those of the columns url, pair_id, md5, sha256 and pdq that the rows have.
        """
        found = np.full(rows.num_rows, None, np.object_)
        for kind, mask in reversed(self._masks(rows)):
            found[mask] = kind
        return found

    def finds(self, rows: pa.RecordBatch | pa.Table) -> Mask:
        """Return a mask of the rows that any rule matches."""
        return np.asarray([rule is not None for rule in self.match_rules(rows).tolist()], np.bool_)

    def _masks(self, rows: pa.RecordBatch | pa.Table) -> list[tuple[str, Mask]]:
        has = set(rows.schema.names)
        masks = []
        if "url" in has:
            urls = _column(rows, "url").cast(pa.string())
            urls = pc.if_else(pc.equal(urls, ""), _NOWHERE, urls)  # blanked by an earlier request
            masks += [("domains", self._by_domain(urls)), ("urls", self._links.urls_blocked(urls))]
        if "pair_id" in has:
            ids = [value.hex() for value in _column(rows, "pair_id").to_pylist()]
            masks += [("pairs", _in(ids, self._set("pairs"))), (FOUND, _in(ids, self._found))]
        masks += [(kind, _in(_column(rows, kind).to_pylist(), self._set(kind)))
                  for kind in ("md5", "sha256") if kind in has]  # fmt: skip
        if "pdq" in has and self._set("pdq"):
            masks.append(("pdq", self._near(_column(rows, "pdq").to_pylist())))
        return masks

    def _by_domain(self, urls: pa.StringArray) -> Mask:
        if not self._links.blocks_domains:
            return np.zeros(len(urls), np.bool_)
        return np.asarray([self._links.domain_blocked(_host(url)) for url in urls.to_pylist()], np.bool_)

    def _near(self, hashes: list[str | None]) -> Mask:
        return np.asarray([bool(one) and self._pdq.matches(bytes.fromhex(one or "")) for one in hashes], bool)

    def _set(self, kind: str) -> frozenset[str]:
        return frozenset(one for request in self._requests for one in request.rules.get(kind, ()))

    @cached_property
    def _found(self) -> frozenset[str]:
        return frozenset().union(*(request.pair_ids for request in self._requests))

    @cached_property
    def _links(self) -> Blocklists:
        return blocked_links(self._requests).blocklists()

    @cached_property
    def _pdq(self) -> PdqBlocklist:
        return PdqBlocklist([bytes.fromhex(one) for one in self._set("pdq")], self._pdq_distance)


@dataclass(frozen=True, slots=True)
class BlockedLinks:
    """The domains, URLs and pairs of requests, as the hashes of blocklists."""

    domains: tuple[int, ...] = ()
    urls: tuple[int, ...] = ()
    pairs: tuple[int, ...] = ()

    def blocklists(self) -> Blocklists:
        lists = [np.asarray(sorted(one), np.uint64) for one in (self.domains, self.urls, self.pairs)]
        domains, urls, pairs = ([one] for one in lists)
        return Blocklists(domains, urls, pairs, fingerprint=fingerprint(self) if any(map(len, lists)) else "")


NO_LINKS = BlockedLinks()


def blocked_links(requests: Sequence[Request]) -> BlockedLinks:
    """Return the domains, URLs and pairs that parsing must exclude because of requests."""
    pairs = {one[:16] for request in requests for one in request.named_pairs}
    domains, urls = (
        {one for request in requests for one in request.rules.get(kind, ())} for kind in ("domains", "urls")
    )
    return BlockedLinks(*(tuple(sorted(int(one, 16) for one in found)) for found in (domains, urls, pairs)))


@dataclass(frozen=True, slots=True)
class BlockedImages:
    """Image hashes that downloading must exclude because of requests."""

    hashes: HashBlocklist = field(default_factory=HashBlocklist)
    near: PdqBlocklist = field(default_factory=PdqBlocklist)


NO_IMAGES = BlockedImages()


def blocked_images(requests: Sequence[Request], pdq_distance: int) -> BlockedImages:
    """Return the image hashes of requests: exact digests and PDQ."""
    md5, sha256, pdq = (
        [bytes.fromhex(one) for request in requests for one in request.rules.get(kind, ())]
        for kind in ("md5", "sha256", "pdq")
    )
    return BlockedImages(HashBlocklist(md5, sha256), PdqBlocklist(pdq, pdq_distance))


def blanked(table: pa.Table, matcher: Matcher) -> pa.Table:
    """Empty the texts of a batch where a request matches; rows keep their place, which is their key."""
    gone = matcher.finds(table)
    for name in BATCH_FILES.former_names(("url", "caption", "page_url"), table.schema):
        column = pc.if_else(pa.array(gone), "", table[name])
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), column)
    return table


def read_requests(store: Store) -> tuple[Request, ...]:
    """Read all requests of a store, by id. Raises InputError naming a file that is not a request."""
    return tuple(_read(name, store) for name in store.list(FOLDER) if name.endswith(".json"))


def read_request(request: Request, store: Store) -> Request:
    """Return the stored request with what was found before, or the given one if none is stored."""
    return _read(request.name, store) if store.exists(request.name) else request


def _read(name: str, store: Store) -> Request:
    try:
        document: dict[str, Any] = json.loads(store.read(name))
        rules = {kind: tuple(bytes.fromhex(one).hex() for one in document["rules"][kind]) for kind in RULES}
        counts = {kind: int(document["removed"][kind]) for kind in RULES}
        return Request(rules, frozenset(document["pair_ids"]), tuple(document["crawls"]), counts)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"cannot read {store.uri(name)}: it is not a removal request ({error}); restore it"
        ) from error


def _column(rows: pa.RecordBatch | pa.Table, name: str) -> pa.Array:
    column = rows.column(name)
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _in(values: Sequence[str | None], wanted: frozenset[str]) -> Mask:
    return np.asarray([value in wanted for value in values], np.bool_)


def _host(url: str) -> str:
    try:
        return str(ada_url.URL(url).hostname)
    except ValueError:
        return ""
