"""Writes manifest.json: every file of a version with its size and hash, and what the version was made from.

It lists all files of the dataset as of that version, including those of other crawls in the folders of
earlier versions. No wall clock and no machine paths: the same data and settings give the same manifest.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from laion_etl.core.head_columns import HeadColumn
from laion_etl.core.schemas import DATASET_FILES
from laion_etl.dataset.manifest import BATCH_RANGES, FORMAT, ManifestPart, relative_name
from laion_etl.dataset.subsets import DataFile
from laion_etl.dataset.versions import Release
from laion_etl.report.publish_context import PIPELINE, PublishContext


def manifest(context: PublishContext, files: Iterable[DataFile], earlier_files: Iterable[DataFile]) -> bytes:
    """Return the manifest of a version: its own files, and those of other crawls written by earlier versions.

    Names are relative to the version's folder.
    """
    release = context.release
    listed = [_entry(file, release) for file in (*files, *earlier_files)]
    parts = sorted((*context.earlier, crawl_part(context)), key=lambda part: part.crawl)
    own = crawl_part(context)
    document = {
        "format": FORMAT,
        "name": release.name,
        "version": release.version,
        "variant": context.variant,
        "pipeline": PIPELINE,
        "crawls": [part.crawl for part in parts],
        "models": sorted({model for part in parts for model in part.models}),
        "rows": context.total_rows,
        "subsets": [
            {"name": subset.name, "rule": subset.rule, "rows": context.total_subset_rows(subset.name)}
            for subset in context.subsets
        ],
        "parts": [part.to_plain() for part in parts],
        "files": sorted(listed, key=lambda entry: entry["name"]),
        "schema_format": DATASET_FILES.number,
        "schema": schema_entries(context.columns),
        "settings": own.settings,
        "batches": own.batches,
        "partitions": own.partitions,
        "funnel": context.funnel.to_plain(),
    }
    if samples := context.stats.details.get("samples"):
        document["samples"] = {"per_tar": context.settings.publish.reshard, **samples}
    return _encode(document)


def crawl_part(context: PublishContext) -> ManifestPart:
    """Describe the rows of the crawl that a version was made for."""
    scored = context.scored
    return ManifestPart(
        crawl=context.crawl,
        version=context.release.version,
        fingerprint=context.stats.fingerprint,
        rows=context.statistics.kept,
        subsets=context.statistics.subset_rows,
        dropped=dict(context.dropped),
        removals=context.removals,
        models=scored.all_models,
        settings=context.applied_settings,
        batches={
            "planned": scored.planned,
            "published": scored.count,
            BATCH_RANGES: [list(one) for one in scored.ranges],
            "missing": list(scored.missing),
            "unplanned": list(scored.unplanned),
        },
        columns=scored.columns,
        removed=context.removed,
        scores=scored.scores,
        evaluation_sets=context.evaluation_sets,
        partitions={"expected": scored.partitions, "missing": list(scored.missing_partitions)},
    )


def schema_entries(heads: Sequence[HeadColumn] = ()) -> list[dict[str, Any]]:
    """Return the columns of the subsets' parquet files; those of custom heads with their meaning."""
    declared = [
        {"name": column.name, "type": str(column.type), "nullable": column.nullable}
        for column in DATASET_FILES.schema
    ]
    custom = [
        {
            "name": head.name,
            "type": str(head.field.type),
            "nullable": True,
            "meaning": head.meaning,
            "head": head.head,
        }
        for head in heads
    ]
    return [*declared, *custom]


def with_file(document: bytes, file: DataFile, release: Release) -> bytes:
    """Return the manifest with the entry of one file replaced."""
    plain = json.loads(document)
    entry = _entry(file, release)
    others = [other for other in plain["files"] if other["name"] != entry["name"]]
    plain["files"] = sorted([*others, entry], key=lambda known: known["name"])
    return _encode(plain)


def _entry(file: DataFile, release: Release) -> dict[str, Any]:
    return {**asdict(file), "name": relative_name(file.name, release)}


def _encode(document: dict[str, Any]) -> bytes:
    return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"
