"""Takes out of new shards what removal requests name that came while they were made.

A removal first records its request, then searches the store. So a file that was there before a stage looked
for requests is searched; of one that was not, or was made from what the removal had not rewritten yet, the
stage takes out itself what is named. Until that is done the stats do not count as a result.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from laion_etl.blocklists.removal_requests import FOLDER, Matcher, read_requests
from laion_etl.core.errors import ChangedError, OutageError
from laion_etl.core.outages import NO_PATIENCE, Outages
from laion_etl.core.stage_stats import UNFINISHED, Output, StageStats
from laion_etl.dataset.rewrite import until_unchanged
from laion_etl.io.storage import Guard, Store

_NONE = Matcher((), 0)


@dataclass(slots=True)
class Removals:
    """The removal requests of a store, which are read again when there are others."""

    store: Store
    pdq_distance: int
    _known: dict[str, str] = field(default_factory=dict)
    _matcher: Matcher = _NONE

    def matcher(self) -> Matcher:
        """Return what finds the rows that the requests of this moment name."""
        if (now := self.tags()) != self._known:
            self._matcher, self._known = Matcher(read_requests(self.store), self.pdq_distance), now
        return self._matcher

    def tags(self) -> dict[str, str]:
        """Return what changes when a request is added or changed."""
        return self.store.etags(FOLDER, ".json")


def write_stats_without(
    name: str,
    stats: StageStats,
    matcher: Matcher,
    rewrite: Callable[[str, Store, Matcher], None],
    store: Store,
    guard: Guard | None,
    outages: Outages = NO_PATIENCE,
) -> StageStats:
    """Write the stats of a shard whose files are in place, after `rewrite` has taken out what matches.

    Raises OutageError if a removal has rewritten the files before: the shard has to be made again.
    """
    if not matcher:
        return outages.outlast(lambda: store.write_stats(name, stats, guard))
    stem, unfinished = name.removesuffix("_stats.json"), replace(stats, fingerprint=UNFINISHED).to_json()
    outages.outlast(lambda: store.write(name, unfinished, guard))
    data = outages.outlast(lambda: store.read(f"{stem}.parquet"))
    if Output.from_bytes(f"{stem}.parquet", data) not in stats.outputs:
        raise OutageError(
            f"cannot finish {store.uri(stem)}: a removal has rewritten its files; run the same command again"
        )
    outages.outlast(lambda: rewrite(stem, store, matcher))
    return outages.outlast(lambda: _finished(name, stats.fingerprint, store, guard))


def _finished(name: str, fingerprint: str, store: Store, guard: Guard | None) -> StageStats:
    """Give stats, as removals have left them, their fingerprint."""
    left: list[StageStats] = []

    def finish() -> None:
        status = store.status(name)
        stats = replace(store.read_stats(name), fingerprint=fingerprint)

        def unchanged() -> None:
            if guard is not None:
                guard()
            if store.status(name) != status:
                raise ChangedError(f"cannot replace {store.uri(name)}: a removal has rewritten it; retry")

        left[:] = [store.write_stats(name, stats, unchanged)]

    until_unchanged(name, store, finish)
    return left[0]
