"""Publishes the crawls of a divided removal again, in ranges that processes work on side by side.

`removing/<id>/publish.json` lists the crawls that are published in ranges, once all files are rewritten. The
ranges of all of them are divided among at most 1,024 tasks; one that is done has
`published-<i>-of-<n>.json`. The end of the removal only merges them (`publish/finish.py`). A crawl that is
published at once is left to it.
"""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from laion_etl.blocklists.removal_requests import Request
from laion_etl.core.errors import DamagedFileError, InputError
from laion_etl.core.formats import check_format
from laion_etl.core.plain_json import NOT_AS_EXPECTED, parse_json
from laion_etl.core.quantities import quantity
from laion_etl.core.stage_stats import StageStats, fingerprint
from laion_etl.dataset.locator.units import published_datasets
from laion_etl.dataset.manifest import ManifestPart, current_manifest, read_manifest
from laion_etl.dataset.shaping_settings import as_published
from laion_etl.dataset.variants import RESEARCH
from laion_etl.dataset.versions import read_versions
from laion_etl.io.storage import Store
from laion_etl.publish.commit import NewRequestsError
from laion_etl.publish.compared_ranges import compare_ranges
from laion_etl.publish.finish import finish_ranges
from laion_etl.publish.prepare import Removed
from laion_etl.publish.ranges import hash_range, publish_range
from laion_etl.publish.stage import is_in_ranges, prepare_removal_in_ranges, publish_removal
from laion_etl.removal.found_pairs import work_folder
from laion_etl.removal.search import Failures
from laion_etl.removal.work import MOST_RANGES, Work
from laion_etl.settings import Settings

FORMAT = 1
_TIMES_AGAIN = 5  # removals that begin while a crawl is published
_log = logging.getLogger(__name__)
_NAME = "publish.json"

Step = Callable[[str, int, int, Settings, Store, Sequence[str]], list[StageStats]]


@dataclass(frozen=True, slots=True)
class Published:
    """A crawl as it is published in a dataset, and the settings that it is published with again."""

    dataset: str
    crawl: str
    variant: str
    settings: Settings


@dataclass(frozen=True, slots=True)
class Publication:
    """A crawl that is published again in ranges, in variants that were made with the same settings."""

    crawl: str
    datasets: tuple[str, ...]
    variants: tuple[str, ...]
    ranges: int


@dataclass(frozen=True, slots=True)
class Publications:
    """All crawls of a removal that are published again in ranges.

    `left_out`: why other crawls could not be prepared, or the datasets that could not be looked at.
    """

    request_id: str
    listed: tuple[Publication, ...]
    duplicates: bool
    left_out: tuple[str, ...] = ()

    @property
    def tasks(self) -> int:
        return min(sum(one.ranges for one in self.listed), MOST_RANGES)

    @property
    def fingerprint(self) -> str:
        return fingerprint("removal publications", self.request_id, self.listed)

    def task(self, number: int, tasks: int) -> list[tuple[Publication, int]]:
        """Return the ranges of a task, counted from 1. Raises InputError for another number of tasks."""
        if tasks != self.tasks or not 1 <= number <= tasks:
            raise InputError(
                f"cannot publish range {number}/{tasks} of removal {self.request_id}: it has {self.tasks} "
                "ranges; take those that `laion-etl dataset republish --prepare` names"
            )
        ranges = [(one, place) for one in self.listed for place in range(1, one.ranges + 1)]
        first, last = ((place * len(ranges)) // tasks for place in (number - 1, number))
        return ranges[first:last]

    def has(self, dataset: str, crawl: str) -> bool:
        return any(one.crawl == crawl and dataset in one.datasets for one in self.listed)


def affected(request: Request, settings: Settings, store: Store, failures: Failures) -> list[Published]:
    """Return what was published before the request was known, and has to be published again."""
    found: list[Published] = []
    for name in published_datasets(store):
        with failures.collected():
            if (manifest := current_manifest(name, store)) is None:
                continue
            found += [
                _published(name, part, str(manifest.document["variant"]), settings)
                for part in manifest.parts
                if part.crawl in request.crawls and request.id not in part.removals
            ]
    return found


def holding(request: Request, dataset: str, store: Store) -> list[str]:
    """Return the visible versions whose files or report still contain removed data."""
    found = []
    for version in read_versions(dataset, store).listed:
        parts = read_manifest(dataset, version, store).parts
        if any(part.crawl in request.crawls and request.id not in part.removals for part in parts):
            found.append(version.version)
    return found


def is_large(found: Sequence[Published], store: Store) -> bool:
    """Whether something is published in ranges."""
    return any(is_in_ranges(one.crawl, one.settings, store) for one in found)


def prepare_publish(
    request: Request, work: Work, settings: Settings, store: Store, failures: Failures
) -> Publications:
    """Record in which ranges the crawls of a removal are published again, after all files are rewritten.

    What cannot be prepared stops no other crawl; it is named in `left_out`.
    """
    unread = Failures()
    groups: dict[tuple[str, Settings], list[Published]] = {}
    for one in affected(request, settings, store, unread):
        groups.setdefault((one.crawl, one.settings), []).append(one)
    left_out = [*unread.messages]
    listed: list[Publication] = []
    duplicates = False
    for (crawl, chosen), members in groups.items():
        variants = tuple(one.variant for one in members)
        own = Failures()
        with own.collected():
            removed = removed_of(work, crawl, failures)
            ranges = prepare_removal_in_ranges(crawl, chosen, store, variants, removed)
            if ranges is not None:
                datasets = tuple(one.dataset for one in members)
                listed.append(Publication(crawl, datasets, variants, ranges))
                duplicates |= chosen.publish.looks_for_duplicates
        left_out += [
            f"{crawl} ({', '.join(one.dataset for one in members)}): {cause}" for cause in own.messages
        ]
    made = Publications(request.id, tuple(listed), duplicates, tuple(left_out))
    document = {"format": FORMAT, "duplicates": duplicates, "publications": [asdict(one) for one in listed]}
    store.write(_name(request.id), json.dumps(document, indent=1).encode() + b"\n")
    return made


def check_all_prepared(found: Publications) -> None:
    """Raise InputError, which names what was left out, unless all crawls of a removal are prepared."""
    if found.left_out:
        raise InputError(
            f"cannot prepare {quantity(len(found.left_out), 'crawl')} of removal {found.request_id}: "
            f"{' | '.join(found.left_out)}; mend what is named and run the command again, or add "
            "--allow-failures: then `laion-etl dataset remove --finish` publishes them"
        )


def removed_of(work: Work, crawl: str, failures: Failures) -> Removed | None:
    """Return what publishing may rely on; None if something could not be read, and may not be rewritten."""
    return None if failures.messages else Removed(work.request_id, work.batches(crawl))


def read_publications(request_id: str, store: Store) -> Publications | None:
    """Return what was prepared; None if nothing was."""
    if (found := store.read_with_etag(_name(request_id))) is None:
        return None
    try:
        document: dict[str, Any] = parse_json(found[0])
        check_format(store.uri(_name(request_id)), document.get("format"), FORMAT)
        listed = tuple(
            Publication(one["crawl"], tuple(one["datasets"]), tuple(one["variants"]), int(one["ranges"]))
            for one in document["publications"]
        )
        return Publications(request_id, listed, bool(document["duplicates"]))
    except NOT_AS_EXPECTED as error:
        raise DamagedFileError(
            f"cannot read {store.uri(_name(request_id))}: {error!r}; run `laion-etl dataset republish "
            f"--request {request_id} --prepare` again"
        ) from error


def hash_part(request_id: str, number: int, tasks: int, settings: Settings, store: Store) -> int:
    """Hash the images of the ranges of a task, where duplicates are left out; return how many it has."""
    return len(_each(_prepared(request_id, store), number, tasks, settings, store, hash_range))


def compare_all(request_id: str, settings: Settings, store: Store) -> None:
    """Compare the images of crawls that leave out near or semantic duplicates; all are hashed before."""
    for one in _prepared(request_id, store).listed:
        compare_ranges(one.crawl, _settings_of(one, settings, store), store, one.variants)


def publish_part(request_id: str, number: int, tasks: int, settings: Settings, store: Store) -> int:
    """Publish the ranges of a task; return how many it has. Does nothing if that is done."""
    found = _prepared(request_id, store)
    ranges = found.task(number, tasks)
    if not _is_done(found, number, store):
        _each(found, number, tasks, settings, store, publish_range)
        document = {"format": FORMAT, "publications": found.fingerprint}
        store.write(_done_name(found, number), json.dumps(document).encode() + b"\n")
    return len(ranges)


def left_of(found: Publications, store: Store) -> list[str]:
    """Return the ranges that are not published, such as 3/16."""
    numbers = range(1, found.tasks + 1)
    return [f"{number}/{found.tasks}" for number in numbers if not _is_done(found, number, store)]


def publish_again(
    one: Published, removed: Removed | None, found: Publications | None, store: Store
) -> StageStats:
    """Merge the ranges of a crawl that was prepared, or publish it here, and make the version visible."""
    if found is not None and found.has(one.dataset, one.crawl):
        return finish_ranges(one.crawl, one.variant, one.settings, store)
    for _ in range(_TIMES_AGAIN):
        try:
            return publish_removal(one.crawl, one.settings, store, one.variant, removed)
        except NewRequestsError as error:
            _log.warning("%s; this is done now", error)
            removed = None  # the other removal may have changed more batches
    return publish_removal(one.crawl, one.settings, store, one.variant, removed)


def _each(
    found: Publications, number: int, tasks: int, settings: Settings, store: Store, step: Step
) -> list[tuple[Publication, int]]:
    """Do a step of all ranges of a task, one of which does not stop the others when it fails."""
    ranges = found.task(number, tasks)
    errors: list[InputError] = []
    for one, place in ranges:
        try:
            chosen = _settings_of(one, settings, store)
            step(one.crawl, place, one.ranges, chosen, store, one.variants)
        except InputError as error:
            errors.append(error)
    if errors:
        raise errors[0]
    return ranges


def _settings_of(publication: Publication, settings: Settings, store: Store) -> Settings:
    dataset, variant = publication.datasets[0], publication.variants[0]
    manifest = current_manifest(dataset, store)
    part = manifest.part(publication.crawl) if manifest else None
    if part is None:
        raise InputError(
            f"cannot publish {publication.crawl} again: {dataset} does not have it any more; run "
            "`laion-etl dataset republish --prepare` again"
        )
    return _published(dataset, part, variant, settings).settings


def _published(dataset: str, part: ManifestPart, variant: str, settings: Settings) -> Published:
    """Return a part with the settings of its manifest: a removal changes nothing else."""
    name = dataset if variant == RESEARCH else dataset.removesuffix(f"-{variant}")
    chosen = replace(settings, publish=replace(settings.publish, name=name))
    return Published(dataset, part.crawl, variant, as_published(chosen, part.settings))


def _prepared(request_id: str, store: Store) -> Publications:
    if (found := read_publications(request_id, store)) is None:
        raise InputError(
            f"cannot publish the crawls of removal {request_id} again: that is not prepared; run "
            f"`laion-etl dataset republish --request {request_id} --prepare`"
        )
    return found


def _is_done(found: Publications, number: int, store: Store) -> bool:
    if (read := store.read_with_etag(_done_name(found, number))) is None:
        return False
    try:
        return bool(parse_json(read[0])["publications"] == found.fingerprint)
    except NOT_AS_EXPECTED:
        return False


def _name(request_id: str) -> str:
    return f"{work_folder(request_id)}/{_NAME}"


def _done_name(found: Publications, number: int) -> str:
    return f"{work_folder(found.request_id)}/published-{number:04d}-of-{found.tasks:04d}.json"
