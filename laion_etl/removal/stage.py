"""Removal requests: listed data is deleted from the store, and every dataset gets a version without it.

1. The request is recorded as hashes (`removals/<id>.json`, see removal_requests.py). The store is searched,
   by the locators of its crawls; matches are recorded, too.
2. Shards, scored shards, pairs and batches are rewritten without the matches (see dataset/rewrite.py);
   checkpoints of parse, which are copies of pairs, are deleted.
3. Affected crawls are published again from the rewritten shards: a new version of each dataset;
   the removed rows are taken out of the search index.
4. Versions that still contain matches are reported, and with `purge` deleted, except files that other
   versions list.

`remove` does everything. Where much has to be done, `prepare` ends after the first step, `rewrite_range` does
a part of the second (work.py), `prepare_publications` divides the third (republish.py); `finish` does the
rest.

A run killed at any moment and repeated has the same result: each step finds what is left to do. A file that
cannot be read stops none of the others: what can be removed is, and the error at the end names the file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from laion_etl.blocklists.removal_requests import Request, read_request, read_request_of
from laion_etl.core.errors import InputError
from laion_etl.core.quantities import first_in_line, first_items, quantity
from laion_etl.core.stage_stats import StageStats
from laion_etl.dataset.locator.units import published_datasets
from laion_etl.io.storage import Store
from laion_etl.publish.commit import refresh_card
from laion_etl.publish.purge import purge_versions
from laion_etl.removal.found_pairs import found_pairs
from laion_etl.removal.record import record, record_found
from laion_etl.removal.republish import (
    Publications,
    affected,
    holding,
    is_large,
    left_of,
    prepare_publish,
    publish_again,
    read_publications,
    removed_of,
)
from laion_etl.removal.requested_lines import RequestedLine, write_lines
from laion_etl.removal.search import Failures, Progress, Search
from laion_etl.removal.work import (
    Work,
    begin_again,
    end_work,
    failures_of,
    read_work,
    rewrite_units,
    write_done,
    write_work,
)
from laion_etl.search.layout import delete_unnamed
from laion_etl.search.masking import mask_removed
from laion_etl.settings import Settings

_NAMED = 3  # unreadable files, or ranges, in an error message


@dataclass(frozen=True, slots=True)
class Removal:
    """Result of a request: versions published, and versions (name/version) that hold or held its data."""

    request: Request
    published: tuple[StageStats, ...]
    holding: tuple[str, ...]
    purged: tuple[str, ...]

    def to_plain(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "id": self.request.id,
            "pairs": len(self.request.pair_ids),
            "removed": dict(self.request.counts),
            "published": [stats.unit for stats in self.published],
            "holding": list(self.holding),
            "purged": list(self.purged),
        }


class UnfinishedRemovalError(InputError):
    """Files that cannot be read may still hold what is to be removed; `removal` is what was done."""

    def __init__(self, removal: Removal, errors: Sequence[str], again: str) -> None:
        super().__init__(
            f"cannot finish the removal {removal.request.id}: {quantity(len(errors), 'failure')}, all else "
            f"is removed: {' | '.join(first_items(errors, _NAMED))}; mend or delete these files and {again}"
        )
        self.removal = removal


def remove(
    request: Request,
    settings: Settings,
    store: Store,
    *,
    purge: bool = False,
    on_file: Progress | None = None,
    lines: Sequence[RequestedLine] = (),
) -> Removal:
    """Carry out a request; `on_file` is called with the progress of searching and rewriting files.

    `lines`: those of the list, whose pairs are counted. Affected crawls are published
    again with the settings of their manifests, not with these. Raises UnfinishedRemovalError if files cannot
    be read, after all others are done, and StorageError.
    """
    failures = Failures()
    _begin(request, store)
    request, work = _search(request, settings, store, failures, on_file, lines=lines)
    request = record_found(request, store)
    rewrite_units(work.units, request, settings, store, failures, on_file)
    end = _End("run the same command again", purge)
    return _end(request, work, settings, store, failures, end)


def look_up(
    request: Request,
    settings: Settings,
    store: Store,
    *,
    on_file: Progress | None = None,
    lines: Sequence[RequestedLine] = (),
) -> tuple[Request, Work]:
    """Return the request with all that `remove` would find, and what it would rewrite; changes nothing."""
    return _search(request, settings, store, Failures(), on_file, lines=lines)


def prepare(
    request: Request,
    settings: Settings,
    store: Store,
    *,
    purge: bool = False,
    on_file: Progress | None = None,
    lines: Sequence[RequestedLine] = (),
) -> Removal | Work:
    """Search for what is requested and record what is to be rewritten, in ranges, and the lines of the list.

    If that is one range at most, and no crawl that has something is published in ranges, the removal is
    carried out at once. Raises like `remove`.
    """
    failures = Failures()
    _begin(request, store)
    request, work = _search(request, settings, store, failures, on_file, with_pairs=False, lines=lines)
    write_lines(request.id, lines, store)
    write_work(work, store)
    request = record_found(request, store)
    if work.ranges > 1 or is_large(affected(request, settings, store, failures), store):
        return work
    for number in range(1, work.ranges + 1):
        rewrite_range(request.id, number, work.ranges, settings, store, on_file)
    return finish(request.id, settings, store, purge=purge)


def rewrite_range(
    request_id: str,
    number: int,
    ranges: int,
    settings: Settings,
    store: Store,
    on_file: Progress | None = None,
) -> int:
    """Rewrite the files of one range of a prepared removal; return how many it has.

    Does nothing if that is done and everything could be read; `finish` names files that could not be.
    """
    work = read_work(request_id, store)
    units = work.range(number, ranges)
    if failures_of(work, number, store) != []:
        failures = Failures()
        rewrite_units(
            units, read_request_of(request_id, store), settings, store, failures, on_file, record=True
        )
        write_done(work, number, failures, store)
    return sum(map(len, units))


def prepare_publications(request_id: str, settings: Settings, store: Store) -> Publications:
    """Record in which ranges the affected crawls are published again, once all files are rewritten.

    `publish_part` publishes one of them (republish.py), `finish` merges them. Raises like `finish`.
    """
    work, failures, request = _rewritten(request_id, store)
    return prepare_publish(request, work, settings, store, failures)


def finish(request_id: str, settings: Settings, store: Store, *, purge: bool = False) -> Removal:
    """Make the new versions visible once all ranges are rewritten, and report as `remove` does.

    Publishes here what was not prepared by `prepare_publications`. Raises InputError naming ranges that are
    not rewritten or not published, and like `remove`.
    """
    work, failures, request = _rewritten(request_id, store)
    found = read_publications(request_id, store)
    if found is not None and (left := left_of(found, store)):
        raise InputError(
            f"cannot finish the removal {request_id}: the ranges {first_in_line(left, _NAMED)} are not "
            f"published; run `laion-etl dataset republish --request {request_id} --range I/{found.tasks}` "
            "for them first"
        )
    again = "carry out the removal again from --prepare on"
    return _end(request, work, settings, store, failures, _End(again, purge, found))


def _rewritten(request_id: str, store: Store) -> tuple[Work, Failures, Request]:
    """Return the work of a divided removal, what could not be read, and the request with all that was found.

    Raises InputError naming ranges that are not done.
    """
    work = read_work(request_id, store)
    done = {number: failures_of(work, number, store) for number in range(1, work.ranges + 1)}
    if left := [f"{number}/{work.ranges}" for number, failed in done.items() if failed is None]:
        raise InputError(
            f"cannot finish the removal {request_id}: the ranges {first_in_line(left, _NAMED)} are not "
            "rewritten; run them first"
        )
    failures = Failures([*work.failures, *(one for failed in done.values() for one in failed or ())])
    request = read_request_of(request_id, store).with_pairs(found_pairs(request_id, store))
    return work, failures, record(request, store)


def _search(
    request: Request,
    settings: Settings,
    store: Store,
    failures: Failures,
    on_file: Progress | None,
    *,
    with_pairs: bool = True,
    lines: Sequence[RequestedLine] = (),
) -> tuple[Request, Work]:
    """Find what is requested, also what ranges have removed by now, and the files to rewrite."""
    stored = read_request(request, store)
    counted = (one for line in lines if (one := line.request) is not None)
    found = Search(stored, settings, store, failures, on_file, with_pairs=with_pairs, lines=counted).run()
    known = found.request.with_pairs(found_pairs(request.id, store))
    return known, Work.of(known, found.names, failures.messages)


def _begin(request: Request, store: Store) -> None:
    """Record the request: from now on parse, download, score and publish keep out what it names.

    So it is recorded before the search, which then finds all that they had written until then.
    """
    begin_again(request.id, store)
    record(request, store)


@dataclass(frozen=True, slots=True)
class _End:
    """How a removal ends: what to do if it fails, whether old versions go, what is published in ranges."""

    again: str
    purge: bool
    published: Publications | None = None


def _end(
    request: Request,
    work: Work,
    settings: Settings,
    store: Store,
    failures: Failures,
    end: _End,
) -> Removal:
    """Publish what has to be published, and report which versions still have what was removed."""
    todo = affected(request, settings, store, failures)
    published = []
    for one in todo:
        with failures.collected():
            published.append(publish_again(one, removed_of(work, one.crawl, failures), end.published, store))
    datasets = published_datasets(store)
    for name in datasets:
        with failures.collected():
            refresh_card(name, store)  # a killed attempt may have left that of the version before
        with failures.collected():
            mask_removed(name, request.crawls, store)
    kept: list[str] = []
    for name in datasets:
        with failures.collected():
            kept += [f"{name}/{version}" for version in holding(request, name, store)]
    purged: list[str] = []
    for name in datasets if end.purge else ():
        with failures.collected():
            old = holding(request, name, store)
            purge_versions(name, frozenset(old), store)
            delete_unnamed(name, store)  # their indexes have captions and embeddings too
            purged += [f"{name}/{version}" for version in old]
    left = tuple(version for version in kept if version not in purged)
    removal = Removal(request, tuple(published), left, tuple(purged))
    if failures.messages:
        raise UnfinishedRemovalError(removal, list(failures.messages), end.again)
    end_work(request.id, store)
    return removal
