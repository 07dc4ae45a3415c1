"""The step between the hashes of all ranges and their publishing: finds near duplicates among all of them.

What it decides is in `compared.parquet`, its record in `compared.json`, whose fingerprint is made from the
files of all ranges. Until then `compared/` has what has been compared so far.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from laion_etl.core.errors import InputError
from laion_etl.core.stage_stats import Output, StageStats, fingerprint
from laion_etl.dataset.variants import dataset_name
from laion_etl.io.storage import Store
from laion_etl.publish import near_compare
from laion_etl.publish.near_checkpoints import ComparedSlices
from laion_etl.publish.near_compare import HashFiles, write_decided
from laion_etl.publish.prepared import COMPARED, Prepared, prepared_for
from laion_etl.publish.range_images import bands_of, record_of
from laion_etl.settings import PublishSettings, Settings


@dataclass(frozen=True, slots=True)
class Digests:
    """The files about the images of all ranges; `compared` is None unless near duplicates are looked for."""

    images: tuple[Output, ...] = ()
    compared: Output | None = None

    @property
    def outputs(self) -> list[Output]:
        """All of them, by which a range knows what it was made from."""
        return [*self.images, *([self.compared] if self.compared else [])]


NO_DIGESTS = Digests()


def compare_ranges(crawl: str, settings: Settings, store: Store, variants: Sequence[str]) -> list[StageStats]:
    """Find near duplicates among the images of all ranges, in each variant; see `near_compare.py`.

    Does nothing if it is done, or none are looked for. Raises InputError if a range has no hashes yet.
    """
    if settings.publish.duplicates != "near":
        return []
    names = [dataset_name(settings.publish.name, variant) for variant in variants]
    records = [prepared_for(name, crawl, settings, store) for name in names]
    return [_compare(prepared, settings.publish, store) for prepared in records]


def digests_of(prepared: Prepared, settings: PublishSettings, store: Store) -> Digests:
    """Return the files of all ranges. Raises InputError if something is not there yet, or outdated."""
    if settings.duplicates == "keep":
        return NO_DIGESTS
    records = [record_of(prepared, one, store) for one in prepared.ranges]
    images = tuple(record.outputs[0] for record in records)
    if settings.duplicates != "near":
        return Digests(images)
    stats = store.finished(prepared.name_of_all("compared", "json"), _compared_from(records))
    if stats is None:
        raise InputError(
            f"cannot look for near duplicates of {prepared.crawl}: its ranges are not compared, or have "
            f"changed since; run `laion-etl stage publish --crawl {prepared.crawl} --compare`"
        )
    return Digests(images, stats.outputs[0])


def _compare(prepared: Prepared, settings: PublishSettings, store: Store) -> StageStats:
    """Compare the PDQ hashes of all ranges, unless done. Raises InputError if some are missing."""
    records = [record_of(prepared, one, store) for one in prepared.ranges]
    made_from = _compared_from(records)
    name = prepared.name_of_all("compared", "json")
    slices = ComparedSlices(prepared.folder_of_all(COMPARED), made_from, store)
    if done := store.finished(name, made_from):
        slices.delete()  # those that a process killed at the end has left
        return done
    own, known = (
        tuple(
            output
            for record in records
            for output in record.outputs
            if output.name.rpartition("/")[2].startswith(f"{kind}-")
        )
        for kind in ("hashes", "known")
    )
    for output in (*own, *known):
        if not store.exists(output.name):
            raise InputError(
                f"cannot compare the images of {prepared.crawl}: {store.uri(output.name)} is gone; run "
                f"`laion-etl stage publish --crawl {prepared.crawl} --hashes I/N` for all ranges again"
            )
    files = HashFiles(bands_of(prepared, settings), own, known)
    output, rows = write_decided(files, prepared.name_of_all("compared", "parquet"), slices, store)
    unit = f"{prepared.dataset}/{prepared.version}"
    stats = near_compare.stats_of(prepared.crawl, unit, made_from, output, rows)
    store.write_stats(name, stats)
    slices.delete()
    return stats


def delete_bands(prepared: Prepared, settings: PublishSettings, store: Store) -> None:
    """Delete the hashes by bands: they are large, and a published version no longer needs them."""
    for one in prepared.ranges if settings.duplicates == "near" else ():
        for kind in ("hashes", "known"):
            store.delete(prepared.name_of(one.number, kind, "bands"))


def _compared_from(records: Sequence[StageStats]) -> str:
    return fingerprint(near_compare.STAGE, [record.outputs for record in records])
