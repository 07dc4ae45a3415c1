"""Prepares the publishing of a crawl in ranges of batches: checks it, and records what the ranges agree on.

What costs a request for each batch is left to the ranges: which batches are scored they find out, and the
end decides on what is missing. Here are checked the partitions, the batches that the score stage named as
missing, ids that another crawl has, and rules. Only a crawl that is prepared again, with nothing changed so
far, is compared batch by batch with the version that is published, to publish it only if it is another one.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

from laion_etl.blocklists.removal_requests import read_requests
from laion_etl.core.errors import DamagedFileError, InputError
from laion_etl.core.stage_stats import StageStats, fingerprint
from laion_etl.dataset import manifest
from laion_etl.dataset.manifest import STATS, ManifestPart
from laion_etl.dataset.scored import ScoredCrawl, scored_among
from laion_etl.dataset.subsets import subsets
from laion_etl.dataset.variants import dataset_name
from laion_etl.dataset.versions import Release, is_named, read_versions
from laion_etl.io.storage import Store
from laion_etl.publish.batch_choice import read_scored, scored_by_hash
from laion_etl.publish.clusters import learn_clusters, plan_clusters, write_clusters
from laion_etl.publish.commit import refresh_card, removals_of
from laion_etl.publish.compared_ranges import NO_DIGESTS, Digests, digests_of
from laion_etl.publish.completeness import Expected, check_named_batches, confirmed, partitions_of
from laion_etl.publish.image_dedupe import compared_with
from laion_etl.publish.join import has_restored
from laion_etl.publish.prepared import BatchRange, Former, Prepared, divide, read_prepared
from laion_etl.publish.repeated_ids import check_ids
from laion_etl.report.contact_sheets import BATCHES_LOOKED_AT
from laion_etl.settings import Settings

_MOST_LOOKED_AT = 600  # batches, for some that are scored


def prepare(
    crawl: str,
    planned: Sequence[int],
    settings: Settings,
    store: Store,
    variant: str,
    expected: Expected | None = None,
    version: str = "",
) -> Prepared | StageStats:
    """Check a crawl and record how it is published in ranges.

    Returns the stats of the current version if that has the crawl with the same settings and inputs. Raises
    like `publish_dataset`.
    """
    prepared = division(crawl, planned, settings, store, variant, expected)
    part = _published_part(prepared, planned, store)
    named = part is not None and is_named(part.version, version or crawl)
    if part and named and _is_published(prepared, part, planned, settings, store):
        refresh_card(prepared.dataset, store)
        return store.read_stats(Release(prepared.dataset, part.version).file(STATS))
    release = read_versions(prepared.dataset, store).release(version or crawl)
    return _recorded(replace(prepared, version=release.version), planned, store)


@dataclass(frozen=True, slots=True)
class Removed:
    """A removal that has rewritten all that it matches: its id, and the batches that had something."""

    request_id: str
    batches: frozenset[int]


def prepare_removal(
    crawl: str,
    planned: Sequence[int],
    settings: Settings,
    store: Store,
    variant: str,
    removed: Removed | None,
) -> Prepared:
    """Check a crawl and record how it is published without what a removal has taken out.

    Ranges in which that has changed nothing take over the files of the published version. If `removed` is
    None, none does: something could not be read, and may still have what is to be removed.
    """
    prepared = division(crawl, planned, settings, store, variant)
    part = _published_part(prepared, planned, store)
    former = _former(prepared, part, settings, removed, store) if part and removed else None
    release = read_versions(prepared.dataset, store).release(crawl)
    return _recorded(replace(prepared, version=release.version, former=former), planned, store)


def _published_part(prepared: Prepared, planned: Sequence[int], store: Store) -> ManifestPart | None:
    """Return what is published of the crawl. Raises InputError if another crawl has the same ids."""
    current = manifest.current_manifest(prepared.dataset, store)
    check_ids(prepared.crawl, planned, current, store)
    return current.part(prepared.crawl) if current else None


def _recorded(prepared: Prepared, planned: Sequence[int], store: Store) -> Prepared:
    if prepared.clusters and not store.exists(prepared.clusters_name):
        clusters = learn_clusters(plan_clusters(prepared.crawl, planned, store), store)
        write_clusters(prepared.clusters_name, clusters, store)
    prepared.write(store)
    return prepared


def division(
    crawl: str,
    planned: Sequence[int],
    settings: Settings,
    store: Store,
    variant: str,
    expected: Expected | None = None,
) -> Prepared:
    """Check a crawl and return how it is divided; its version is still empty."""
    dataset = Release(dataset_name(settings.publish.name, variant), crawl).name
    subsets(settings.publish)
    ranges = divide(planned, settings.publish.batches_per_range)
    published = manifest.published_stats(dataset, crawl, store)
    partitions = partitions_of(crawl, expected, published, store)
    if expected is not None:
        check_named_batches(crawl, len(planned), expected.max_missing_share, store)
    sheet, known = _some_batches(crawl, planned, ranges, store)
    semantic = settings.publish.semantic_duplicates > 0
    clusters = plan_clusters(crawl, planned, store).fingerprint if semantic else ""
    prepared = Prepared(
        crawl=crawl,
        dataset=dataset,
        variant=variant,
        version="",
        planned=fingerprint(list(planned)),
        ranges=ranges,
        partitions=partitions,
        max_missing_share=None if expected is None else expected.max_missing_share,
        sheet_batches=sheet,
        columns=known.columns,
        earlier=compared_with(dataset, crawl, settings.publish, store),
        removals=removals_of(crawl, read_requests(store)),
        clusters=clusters,
    )
    return replace(prepared, rules=prepared.rules_with(settings))


def inputs_of(prepared: Prepared, one: BatchRange, scored: ScoredCrawl, digests: Digests = NO_DIGESTS) -> str:
    """Return the fingerprint of what a range is made from."""
    batches = [(batch.number, batch.outputs) for batch in scored.batches]
    return fingerprint(prepared.rules, one.number, batches, scored.missing, scored.damaged, digests.outputs)


def batches_of(one: BatchRange, planned: Sequence[int]) -> Sequence[int]:
    """Return the numbers of the batches of a range."""
    return [number for number in planned if one.first <= number <= one.last]


def scored_of(
    records: Sequence[Prepared], one: BatchRange, planned: Sequence[int], store: Store
) -> ScoredCrawl:
    """Return the scored batches of a range that may be published in these datasets."""
    scored = scored_among(records[0].crawl, batches_of(one, planned), store)
    if any(prepared.max_missing_share is not None for prepared in records):
        return confirmed(scored, store)
    return scored


def _former(
    prepared: Prepared, part: ManifestPart, settings: Settings, removed: Removed, store: Store
) -> Former | None:
    """Return the published version, if it was made by the same rules but for this removal.

    Not if there are further requests since: batches may still have what they name.
    """
    try:
        before = read_prepared(prepared.dataset, prepared.crawl, store)
    except DamagedFileError:
        before = None
    if before is None or settings.publish.looks_for_duplicates:
        return None  # one image less changes what is a duplicate in other ranges
    is_it = before.version == part.version
    known = Former(before.version, before.rules, before.removals) if is_it else before.former
    if known is None or (known.version, known.removals) != (part.version, part.removals):
        return None
    by_same_rules = replace(prepared, removals=known.removals).rules_with(settings) == known.rules
    if not by_same_rules or not {*prepared.removals} - {*known.removals} <= {removed.request_id}:
        return None
    firsts = [one.first for one in prepared.ranges]
    return replace(
        known, changed=tuple(sorted({bisect_right(firsts, batch) for batch in removed.batches} - {0}))
    )


def _is_published(
    prepared: Prepared, part: ManifestPart, planned: Sequence[int], settings: Settings, store: Store
) -> bool:
    """Whether a published part was made by the same rules from the same scored batches.

    False if a damaged shard has been restored: its samples were left out.
    """
    try:
        before = read_prepared(prepared.dataset, prepared.crawl, store)
    except DamagedFileError:
        before = None
    if before is None or before.rules != prepared.rules:
        return False
    try:
        digests = digests_of(prepared, settings.publish, store)
    except InputError:  # those of a range are not there
        return False
    stats = store.read_stats(Release(prepared.dataset, part.version).file(STATS))
    inputs = []
    for one in prepared.ranges:
        scored = scored_of([prepared], one, planned, store)
        inputs.append(inputs_of(prepared, one, scored, digests))
        if has_restored(stats, scored, store):
            return False
    return part.fingerprint == prepared.whole(inputs)


def _some_batches(
    crawl: str, planned: Sequence[int], ranges: Sequence[BatchRange], store: Store
) -> tuple[tuple[int, ...], ScoredCrawl]:
    """Return the batches of the contact sheets, and these and the first of each range as scored.

    Raises InputError if none is scored, or if batches were scored by different heads.
    """
    sheet = list(islice(scored_by_hash(crawl, planned, _MOST_LOOKED_AT, store), BATCHES_LOOKED_AT))
    first = read_scored(crawl, [one.first for one in ranges], store)
    known = {batch.number: batch for batch in (*sheet, *first)}
    if not known:
        raise InputError(
            f"cannot publish {crawl}: none of the batches looked at is scored; run "
            f"`laion-etl stage score --crawl {crawl}` first"
        )
    chosen = tuple(sorted(batch.number for batch in sheet))
    return chosen, ScoredCrawl(crawl, tuple(known[n] for n in sorted(known)), None, (), ())
