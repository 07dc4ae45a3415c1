"""The last steps of publishing: cards, manifest and stats, then versions.json, which makes it visible."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from laion_etl.blocklists.removal_requests import Request, read_requests
from laion_etl.core.errors import ChangedError, InputError
from laion_etl.core.stage_stats import Output, StageStats
from laion_etl.dataset import manifest
from laion_etl.dataset.manifest import STATS, Manifest
from laion_etl.dataset.subsets import DataFile
from laion_etl.dataset.versions import (
    Release,
    Version,
    dataset_folder,
    read_versions,
    write_versions,
)
from laion_etl.io.storage import Store
from laion_etl.publish import manifest_writer
from laion_etl.publish.presentation import OF_THE_DATASET, presentation
from laion_etl.publish.repeated_ids import check_ids
from laion_etl.report.publish_context import PublishContext


def commit_version(context: PublishContext, files: Sequence[DataFile], store: Store) -> StageStats:
    """Write card, manifest and stats and list the version; repeated if the dataset changed in between.

    Raises InputError if another process has published a version of this name, or another crawl with batches
    of the same numbers, or if a removal request was made since the rows were read.
    """
    release = context.release
    stats, version = context.stats, None
    while True:
        versions = read_versions(release.name, store)
        if version in versions.listed:  # the write succeeded although its response was lost
            return stats
        if release.version in {one.version for one in versions.listed}:
            raise InputError(
                f"cannot publish {release.name}/{release.version}: another process has published it; "
                "check it (laion-etl dataset verify) and publish again"
            )
        current = versions.current
        before = manifest.read_manifest(release.name, current, store) if current else None
        check_ids(context.crawl, context.scored.numbers, before, store)
        known = replace(context, earlier_versions=len(versions.listed) + len(versions.purged))
        written = _describe(known, files, before, store)
        _delete_others(release, written, store)
        stats = replace(context.stats, outputs=tuple(Output(f.name, f.bytes, f.sha256) for f in written))
        store.write_stats(release.file(STATS), stats)
        if context.removals != removals_of(context.crawl, read_requests(store)):
            raise NewRequestsError(
                f"cannot publish {release.name}/{release.version}: there are new removal requests; publish "
                f"{context.crawl} again, from the start"
            )
        version = Version(release.version, context.crawl, stats.outputs[-1])
        with suppress(ChangedError):
            write_versions(versions.with_version(version), store)
            return stats


def _describe(
    context: PublishContext, files: Sequence[DataFile], before: Manifest | None, store: Store
) -> list[DataFile]:
    """Write the card, metadata and report, then the manifest; return all files of the version."""
    parts = [part for part in before.parts if part.crawl != context.crawl] if before else []
    others = [file for file in before.files if file.crawl not in ("", context.crawl)] if before else []
    known = replace(context, earlier=tuple(parts))
    written = [
        *files,
        *(_write(known, name, data, store) for name, data in presentation(known, files, others, store)),
    ]
    return [*written, _write(known, manifest.NAME, manifest_writer.manifest(known, written, others), store)]


def _write(context: PublishContext, name: str, data: bytes, store: Store) -> DataFile:
    output = store.write(context.release.file(name), data)
    return DataFile(output.name, "", None, output.bytes, output.sha256)


def _delete_others(release: Release, files: Sequence[DataFile], store: Store) -> None:
    """Delete files that a killed attempt left in the folder, which is not visible yet.

    Raises InputError if one of the version's own is gone: a range may have been published long ago.
    """
    found, keep = set(store.list(release.folder)), {file.name for file in files}
    if gone := sorted(keep - found):
        raise InputError(
            f"cannot publish {release.name}/{release.version}: {store.uri(gone[0])} is gone, and "
            f"{len(gone) - 1:,} more; publish its crawl again, or only the ranges whose files are gone"
        )
    for name in sorted(found - keep):
        store.delete(name)


class NewRequestsError(InputError):
    """Removal requests came while a crawl was published; from the start, it is published without them."""


def removals_of(crawl: str, requests: Sequence[Request]) -> tuple[str, ...]:
    """Return the ids of the removal requests that concern a crawl."""
    return tuple(sorted(request.id for request in requests if crawl in request.crawls))


def refresh_card(dataset: str, store: Store) -> None:
    """Copy what the current version says of the whole dataset to its root: card, metadata, licence."""
    current = read_versions(dataset, store).current
    while current is not None:
        for name, data in root_files(Release(dataset, current.version), store).items():
            if not store.exists(name) or store.read(name) != data:
                store.write(name, data)
        shown, current = current, read_versions(dataset, store).current
        if current == shown:  # otherwise another publisher was faster, and this write may hide its card
            return


def root_files(release: Release, store: Store) -> dict[str, bytes]:
    """Return name in the store and content of the files at the dataset's root while this version is current.

    Versions that were published by 0.1 have a card only.
    """
    root = dataset_folder(release.name)
    copies = {f"{root}/{name}": release.file(source) for name, source in OF_THE_DATASET.items()}
    return {name: store.read(source) for name, source in copies.items() if store.exists(source)}
