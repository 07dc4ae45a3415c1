"""The step between the hashes of all ranges and their publishing: compares the images of all of them.

What it decides about near duplicates is in `compared.parquet`, its record in `compared.json`, whose
fingerprint is made from the files of all ranges. Until then `compared/` has what has been compared so far.
About semantic duplicates it is `semantic.parquet`, `semantic.json` and `semantic/`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from laion_etl.core.errors import InputError
from laion_etl.core.stage_stats import Output, StageStats, fingerprint
from laion_etl.dataset.variants import dataset_name
from laion_etl.io.storage import Store
from laion_etl.publish import near_compare, semantic_compare
from laion_etl.publish.clusters import read_clusters
from laion_etl.publish.near_checkpoints import ComparedSlices
from laion_etl.publish.near_compare import HashFiles, write_decided
from laion_etl.publish.prepared import COMPARED, SEMANTIC, Prepared, prepared_for
from laion_etl.publish.range_images import bands_of, record_of
from laion_etl.publish.semantic_compare import KEYS, Comparison, write_redundant
from laion_etl.settings import PublishSettings, Settings


@dataclass(frozen=True, slots=True)
class Digests:
    """The files about the images of all ranges.

    `compared` is None unless near duplicates are looked for, `semantic` likewise. `by_files`: whether equal
    files are looked for.
    """

    images: tuple[Output, ...] = ()
    compared: Output | None = None
    semantic: Output | None = None
    by_files: bool = True

    @property
    def outputs(self) -> list[Output]:
        """All of them, by which a range knows what it was made from."""
        return [*self.images, *(one for one in (self.compared, self.semantic) if one)]

    @property
    def fingerprint(self) -> str:
        """The fingerprint of all of them; '' for none."""
        return fingerprint(self.outputs) if self.images else ""


NO_DIGESTS = Digests()


def compare_ranges(crawl: str, settings: Settings, store: Store, variants: Sequence[str]) -> list[StageStats]:
    """Find near and semantic duplicates among the images of all ranges, in each variant.

    See near_compare.py and semantic_compare.py. Does nothing if it is done, or none are looked for. Raises
    InputError if a range has no hashes yet.
    """
    if not settings.publish.compares_ranges:
        return []
    names = [dataset_name(settings.publish.name, variant) for variant in variants]
    records = [prepared_for(name, crawl, settings, store) for name in names]
    return [
        compare(prepared, settings.publish, store)
        for prepared in records
        for compare in _comparisons(settings.publish)
    ]


def digests_of(prepared: Prepared, settings: PublishSettings, store: Store) -> Digests:
    """Return the files of all ranges. Raises InputError if something is not there yet, or outdated."""
    if not settings.looks_for_duplicates:
        return NO_DIGESTS
    records = [record_of(prepared, one, store) for one in prepared.ranges]
    images = tuple(record.outputs[0] for record in records)
    near = semantic = None
    if settings.duplicates == "near":
        near = _decided(prepared, "compared", _compared_from(records), "near", store)
    if settings.semantic_duplicates:
        made_from = _semantic_from(records, settings)
        semantic = _decided(prepared, "semantic", made_from, "semantic", store)
    return Digests(images, near, semantic, settings.duplicates != "keep")


def _decided(prepared: Prepared, name: str, made_from: str, kind: str, store: Store) -> Output:
    """Return the file of a comparison. Raises InputError if it is not done, or outdated."""
    stats = store.finished(prepared.name_of_all(name, "json"), made_from)
    if stats is None:
        raise InputError(
            f"cannot look for {kind} duplicates of {prepared.crawl}: its ranges are not compared, or have "
            f"changed since; run `laion-etl stage publish --crawl {prepared.crawl} --compare`"
        )
    return stats.outputs[0]


def _comparisons(
    settings: PublishSettings,
) -> list[Callable[[Prepared, PublishSettings, Store], StageStats]]:
    """Return the comparisons that settings want."""
    near, semantic = settings.duplicates == "near", settings.semantic_duplicates > 0
    return [*([_compare] if near else []), *([_compare_semantic] if semantic else [])]


def _compare(prepared: Prepared, settings: PublishSettings, store: Store) -> StageStats:
    """Compare the PDQ hashes of all ranges, unless done. Raises InputError if some are missing."""
    records = [record_of(prepared, one, store) for one in prepared.ranges]
    made_from = _compared_from(records)
    name = prepared.name_of_all("compared", "json")
    slices = ComparedSlices(prepared.folder_of_all(COMPARED), made_from, store)
    if done := store.finished(name, made_from):
        slices.delete()  # those that a process killed at the end has left
        return done
    own, known = (_files_of(prepared, records, kind, store) for kind in ("hashes", "known"))
    files = HashFiles(bands_of(prepared, settings), own, known)
    output, rows = write_decided(files, prepared.name_of_all("compared", "parquet"), slices, store)
    unit = f"{prepared.dataset}/{prepared.version}"
    stats = near_compare.stats_of(prepared.crawl, unit, made_from, output, rows)
    store.write_stats(name, stats)
    slices.delete()
    return stats


def _compare_semantic(prepared: Prepared, settings: PublishSettings, store: Store) -> StageStats:
    """Compare the embeddings of all ranges, unless done. Raises InputError if some are missing."""
    records = [record_of(prepared, one, store) for one in prepared.ranges]
    made_from = _semantic_from(records, settings)
    name = prepared.name_of_all("semantic", "json")
    done = ComparedSlices(prepared.folder_of_all(SEMANTIC), made_from, store, KEYS)
    if stats := store.finished(name, made_from):
        done.delete()
        return stats
    files = _files_of(prepared, records, "clusters", store)
    clusters = read_clusters(prepared.clusters_name, prepared.crawl, store)
    comparison = Comparison(clusters, files, settings.semantic_duplicates, store)
    output, rows = write_redundant(comparison, prepared.name_of_all("semantic", "parquet"), done)
    unit = f"{prepared.dataset}/{prepared.version}"
    stats = StageStats(semantic_compare.STAGE, prepared.crawl, unit, made_from, rows, rows, {}, (output,))
    store.write_stats(name, stats)
    done.delete()
    return stats


def _files_of(
    prepared: Prepared, records: Sequence[StageStats], kind: str, store: Store
) -> tuple[Output, ...]:
    """Return the files of a kind of all ranges. Raises InputError if one is gone."""
    found = tuple(
        output
        for record in records
        for output in record.outputs
        if output.name.rpartition("/")[2].startswith(f"{kind}-")
    )
    for output in found:
        if not store.exists(output.name):
            raise InputError(
                f"cannot compare the images of {prepared.crawl}: {store.uri(output.name)} is gone; run "
                f"`laion-etl stage publish --crawl {prepared.crawl} --hashes I/N` for all ranges again"
            )
    return found


def delete_bands(prepared: Prepared, settings: PublishSettings, store: Store) -> None:
    """Delete hashes by bands and embeddings: they are large, and a published version does not need them."""
    for one in prepared.ranges if settings.compares_ranges else ():
        for kind in ("hashes", "known", "clusters"):
            store.delete(prepared.name_of(one.number, kind, "bands"))


def _compared_from(records: Sequence[StageStats]) -> str:
    return fingerprint(near_compare.STAGE, [record.outputs for record in records])


def _semantic_from(records: Sequence[StageStats], settings: PublishSettings) -> str:
    outputs = [record.outputs for record in records]
    return fingerprint(semantic_compare.STAGE, settings.semantic_duplicates, outputs)
