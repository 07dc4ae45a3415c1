"""Records a removal request in the store, and what was found, also while it is carried out twice at once."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from laion_etl.blocklists.removal_requests import Request, read_request
from laion_etl.dataset.rewrite import until_unchanged
from laion_etl.io.storage import Store


def record(request: Request, store: Store) -> Request:
    """Record a request; return it with what another process has found of it meanwhile, too.

    Without the pairs of those, Postgres would keep the texts of what is removed everywhere else.
    """
    known = request

    def write() -> None:
        nonlocal known
        found = store.read_with_etag(request.name)
        known = request if found is None else _joined(request, read_request(request, store))
        store.swap(request.name, known.to_json(), None if found is None else found[1])

    until_unchanged(request.name, store, write)
    return known


def record_found(request: Request, store: Store) -> Request:
    """Record what was found, like `record`, and delete checkpoints of parse, which may have it, too."""
    known = record(request, store)
    for name in store.list("checkpoints"):
        store.delete(name)
    return known


def _joined(one: Request, other: Request) -> Request:
    """Return a request with what two searches found, of which the later one may have found less."""
    return replace(
        one,
        pair_ids=one.pair_ids | other.pair_ids,
        crawls=tuple(sorted({*one.crawls, *other.crawls})),
        counts=_larger(one.counts, other.counts),
        lines=_larger(one.lines, other.lines),
    )


def _larger(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    # `|` of counters is the larger count of each, without those of 0.
    return dict(Counter(one) | Counter(other))
