"""Removal requests that have been carried out: `removals/<id>.json` in the store, one per list.

A request stores hashes, never the URLs or names that were requested: for domains and URLs the 64-bit hashes
that blocklists use (docs/blocklists.md), for images MD5, SHA-256 and PDQ, and the ids of all pairs found.
So parse, download and publish can exclude what was removed without the store revealing what it was.

A hash is of one form of the URL, so a request says which version of the URL rule made it (urls/normalize.py).
Where that has changed since, parse and lookups try a URL as it is and in the form of the request's rule.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from laion_etl.blocklists import Blocklists
from laion_etl.blocklists.column_masks import Mask, column, compared_hashes, is_in, near, to_hashes
from laion_etl.blocklists.near_hashes import NearListed
from laion_etl.blocklists.rule_hashes import RULES, hash_of
from laion_etl.blocklists.turned_hashes import turned
from laion_etl.core.errors import InputError
from laion_etl.core.formats import check_format
from laion_etl.core.funnel import PublishReason
from laion_etl.core.plain_json import NOT_AS_EXPECTED, parse_json
from laion_etl.core.schemas import BATCH_FILES
from laion_etl.core.stage_stats import fingerprint
from laion_etl.io.storage import Store
from laion_etl.urls import normalize

FOLDER = "removals"
FORMAT = 2  # 1 has no url_rule: it is 1
REASON = PublishReason.REMOVED_BY_REQUEST.value
FOUND = "found"  # no rule matches the row itself: the same pair was found elsewhere in the store


class Found(NamedTuple):
    """What was found in a file of a crawl: the rule of each pair, and the pairs of some lines by id."""

    crawl: str
    rules: Mapping[str, str]
    lines: Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Request:
    """A list of what is to be removed, and what was found.

    `rules`: hexadecimal hashes by kind. `pair_ids`: the pairs that were found. `crawls`: where they were
    found. `counts`: how many pairs each rule was the first to find. `url_rule`: the version of the URL rule
    of the hashes of domains, URLs and pairs. `folders`: those of `urls` that come from folders, `host/path/`;
    None in requests of version 0.1. `lines`: pairs by the id of the request of one line of the list.
    """

    rules: Mapping[str, tuple[str, ...]]
    pair_ids: frozenset[str] = frozenset()
    crawls: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    url_rule: int = field(default_factory=lambda: normalize.RULE_VERSION)
    folders: tuple[str, ...] | None = None
    lines: Mapping[str, int] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Id derived from the rules, whatever their order."""
        rules = {kind: sorted(self.rules.get(kind, ())) for kind in RULES}
        return fingerprint("removal", rules, *([self.url_rule] if self.url_rule > 1 else []))

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
            "url_rule": self.url_rule,
            "rules": {kind: sorted(self.rules.get(kind, ())) for kind in RULES},
            "removed": {kind: self.counts.get(kind, 0) for kind in RULES},
            "crawls": sorted(self.crawls),
            "pair_ids": sorted(self.pair_ids),
            **({} if self.folders is None else {"folders": list(self.folders)}),
            "lines": dict(sorted(self.lines.items())),
        }
        return json.dumps(document, indent=1).encode() + b"\n"

    def with_pairs(self, findings: Iterable[Found]) -> "Request":
        """Return the request with what was found; pairs it knows of have the same lines and count once."""
        pairs, crawls = set(self.pair_ids), set(self.crawls)
        counts, lines = Counter(self.counts), Counter(self.lines)
        for crawl, found, by_line in findings:
            counts += Counter(rule for pair, rule in found.items() if pair not in pairs and rule != FOUND)
            lines += Counter({line: len({*named} - pairs) for line, named in by_line.items()})
            pairs |= found.keys()
            crawls.add(crawl)
        known = replace(self, pair_ids=frozenset(pairs), crawls=tuple(sorted(crawls)))
        return replace(known, counts=counts, lines=dict(lines))


class Matcher:
    """Finds the rows that removal requests cover; what the lookups need of them is made once, not by file."""

    def __init__(self, requests: Sequence[Request], pdq_distance: int) -> None:
        self._requests = requests
        self._pdq_distance = pdq_distance
        self._pairs = frozenset(map(bytes.fromhex, self._set("pairs")))
        self._found = {bytes.fromhex(one) for request in requests for one in request.pair_ids}

    def add_found(self, pairs: Iterable[str]) -> list[str]:
        """Cover more pairs from now on, given by their hexadecimal ids; return those that are new."""
        new = [one for one in pairs if bytes.fromhex(one) not in self._found]
        self._found.update(map(bytes.fromhex, new))
        return new

    def __bool__(self) -> bool:
        return bool(self._requests)

    def match_rules(self, rows: pa.RecordBatch | pa.Table) -> npt.NDArray[np.object_]:
        """Return the rule that matches each row; None for rows that stay.

        Uses those of the columns url, caption, pair_id, md5, sha256, pdq and pdq_quality that the rows have.
        """
        found = np.full(rows.num_rows, None, np.object_)
        for kind, mask in reversed(self._masks(rows)):
            found[mask] = kind
        return found

    def match_pairs(self, rows: pa.Table) -> tuple[dict[str, str], Mask]:
        """Return the rule that matches each matching pair, by its hexadecimal id, and `finds` of the rows."""
        rules = self.match_rules(rows)
        matched = rules.astype(np.bool_)
        pairs = rows["pair_id"].filter(pa.array(matched)).to_pylist()
        found: dict[str, str] = {}
        for pair, rule in zip(pairs, rules[matched].tolist(), strict=True):
            found.setdefault(pair.hex(), rule)
        return found, matched

    def finds(self, rows: pa.RecordBatch | pa.Table) -> Mask:
        """Return a mask of the rows that any rule matches."""
        found = np.zeros(rows.num_rows, np.bool_)
        for _, mask in self._masks(rows):
            found |= mask
        return found

    def _masks(self, rows: pa.RecordBatch | pa.Table) -> list[tuple[str, Mask]]:
        has = set(rows.schema.names)
        masks = []
        if "url" in has:
            urls = column(rows, "url").cast(pa.string())
            masks += [(str(kind), mask) for kind, mask in self._links.masks(urls)]
            masks += self._masks_of_forms(rows, urls)
        if "pair_id" in has:
            ids = column(rows, "pair_id")
            masks += [("pairs", is_in(ids, self._pairs)), (FOUND, is_in(ids, self._found))]
        masks += [(one, is_in(column(rows, one), self._set(one))) for one in ("md5", "sha256") if one in has]
        if "pdq" in has and self._near is not None:
            masks.append(("pdq", near(compared_hashes(rows).to_pylist(), self._near)))
        return masks

    def _masks_of_forms(
        self, rows: pa.RecordBatch | pa.Table, known: pa.StringArray
    ) -> list[tuple[str, Mask]]:
        """Look rows up in the forms that the rules of the requests give their URLs, if there are several."""
        masks: list[tuple[str, Mask]] = []
        if not self._links_by_rule:
            return masks
        may_differ = normalize.may_have_other_forms(known)
        # The other rows are looked up as they are; their pairs too, if they have ids.
        asked = pa.array(may_differ if "pair_id" in rows.schema.names else np.ones(len(known), np.bool_))
        urls, differ = known.filter(asked).to_pylist(), may_differ[np.asarray(asked)].tolist()
        caption = BATCH_FILES.former_names(["caption"], rows.schema)[0]
        captions = column(rows, caption).filter(asked).to_pylist() if caption in rows.schema.names else None
        for rule, links in self._links_by_rule.items():
            forms = [
                normalize.form_by_rule(rule, url) if other else url
                for url, other in zip(urls, differ, strict=True)
            ]
            for kind, found in links.masks(forms, captions):
                mask = np.zeros(len(known), np.bool_)
                mask[np.asarray(asked)] = found
                masks.append((str(kind), mask))
        return masks

    def _set(self, kind: str) -> frozenset[str]:
        return frozenset(one for request in self._requests for one in request.rules.get(kind, ()))

    @cached_property
    def _near(self) -> NearListed | None:
        listed = turned(to_hashes(sorted(self._set("pdq"))))
        return NearListed(listed, self._pdq_distance) if len(listed) else None

    @cached_property
    def _links(self) -> Blocklists:
        return blocked_links(self._requests).blocklists()

    @cached_property
    def _links_by_rule(self) -> dict[int, Blocklists]:
        """The links of the requests by the rule that made them; empty while there is one rule."""
        if not normalize.EARLIER_RULES:
            return {}
        return {rule: links.blocklists() for rule, links in _by_rule(self._requests).items()}


@dataclass(frozen=True, slots=True)
class BlockedLinks:
    """The domains, URLs and pairs of requests, as the hashes of blocklists.

    `earlier`: those that other versions of the URL rule than today's made, by version.
    """

    domains: tuple[int, ...] = ()
    urls: tuple[int, ...] = ()
    pairs: tuple[int, ...] = ()
    earlier: tuple[tuple[int, "BlockedLinks"], ...] = ()

    def blocklists(self) -> Blocklists:
        lists = [np.asarray(sorted(one), np.uint64) for one in (self.domains, self.urls, self.pairs)]
        domains, urls, pairs = ([one] for one in lists)
        made_from = fingerprint(self) if any(map(len, lists)) else ""
        earlier = {rule: links.blocklists() for rule, links in self.earlier}
        return Blocklists(domains, urls, pairs, fingerprint=made_from, earlier=earlier)


NO_LINKS = BlockedLinks()


def blocked_links(requests: Sequence[Request]) -> BlockedLinks:
    """Return the domains, URLs and pairs that parsing must exclude because of requests."""
    earlier = (one for one in _by_rule(requests).items() if one[0] != normalize.RULE_VERSION)
    return replace(_links_of(requests), earlier=tuple(earlier))


def _by_rule(requests: Sequence[Request]) -> dict[int, BlockedLinks]:
    rules = sorted({request.url_rule for request in requests})
    return {rule: _links_of([one for one in requests if one.url_rule == rule]) for rule in rules}


def _links_of(requests: Sequence[Request]) -> BlockedLinks:
    pairs = {one[:16] for request in requests for one in request.named_pairs}
    domains, urls = (
        {one for request in requests for one in request.rules.get(kind, ())} for kind in ("domains", "urls")
    )
    hashes = [tuple(sorted(int(one, 16) for one in found)) for found in (domains, urls, pairs)]
    return BlockedLinks(hashes[0], hashes[1], hashes[2])


def blanked(table: pa.Table, matcher: Matcher) -> pa.Table:
    """Empty the texts of a batch where a request matches; rows keep their place, which is their key."""
    gone = matcher.finds(table)
    for name in BATCH_FILES.former_names(("url", "caption", "page_url"), table.schema):
        texts = pc.if_else(pa.array(gone), "", table[name])
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), texts)
    return table


def read_requests(store: Store) -> tuple[Request, ...]:
    """Read all requests of a store, by id. Raises InputError naming a file that is not a request."""
    return tuple(_read(name, store) for name in store.list(FOLDER) if name.endswith(".json"))


def read_request(request: Request, store: Store) -> Request:
    """Return the stored request with what was found before, or the given one if none is stored."""
    if not store.exists(request.name):
        return request
    return replace(_read(request.name, store), folders=request.folders)


def read_request_of(request_id: str, store: Store) -> Request:
    """Read a request. Raises InputError if the store has none of this id."""
    if not store.exists(name := f"{FOLDER}/{request_id}.json"):
        raise InputError(f"cannot find {store.uri(name)}: it does not exist; check the id of the removal")
    return _read(name, store)


def _read(name: str, store: Store) -> Request:
    try:
        plain: dict[str, Any] = parse_json(store.read(name))
        check_format(store.uri(name), plain.get("format"), FORMAT)
        rule = check_format(store.uri(name), plain.get("url_rule"), normalize.RULE_VERSION, "URL rule")
        rules = {kind: tuple(hash_of(one, kind).hex() for one in plain["rules"][kind]) for kind in RULES}
        counts = {kind: int(plain["removed"][kind]) for kind in RULES}
        folders = None if plain.get("folders") is None else tuple(map(str, plain["folders"]))
        pairs = frozenset(hash_of(one, "pairs").hex() for one in plain["pair_ids"])
        crawls, lines = tuple(plain["crawls"]), dict(plain.get("lines", {}))
        return Request(rules, pairs, crawls, counts, rule, folders, lines)
    except NOT_AS_EXPECTED as error:
        cause = f"it is not a removal request ({error})"
        raise InputError(f"cannot read {store.uri(name)}: {cause}; restore it") from error
