"""Records a removal request in the store, and what was found, also while it is carried out twice at once."""

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from laion_etl.blocklists.removal_requests import Request, read_request
from laion_etl.core.errors import ChangedError
from laion_etl.io.storage import Store

_TRIES = 100  # each one is lost to another process, which has got on with its work


def record(request: Request, store: Store) -> Request:
    """Record a request; return it with what another process has found of it meanwhile, too.

    Without the pairs of those, Postgres would keep the texts of what is removed everywhere else.
    """
    for _ in range(_TRIES):
        found = store.read_with_etag(request.name)
        known = request if found is None else _joined(request, read_request(request, store))
        with suppress(ChangedError):
            store.swap(request.name, known.to_json(), None if found is None else found[1])
            return known
    raise ChangedError(
        f"cannot write {store.uri(request.name)}: other processes change it all the time; run the removal "
        "again when they have ended"
    )


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
