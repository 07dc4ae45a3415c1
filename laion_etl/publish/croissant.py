"""croissant.json: machine-readable metadata by MLCommons' Croissant specification 1.0 and its RAI extension.

It has one record set per subset, read from the parquet files below its folder, and every data file with its
SHA-256. A version has one about its own rows, the dataset one about all of them, like the cards. There is no
`datePublished`: files contain no dates, so that equal data give equal bytes. Croissant asks for semantic
versions, so the number is `<format of the columns>.<earlier versions of the dataset>.0`.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from laion_etl.core.head_columns import HeadColumn
from laion_etl.core.published_columns import PUBLISHED_COLUMNS
from laion_etl.core.schemas import DATASET_FILES
from laion_etl.dataset.subsets import DataFile, Subset
from laion_etl.publish.card_text import BIBTEX, DESCRIPTION, LICENSE_NAME
from laion_etl.publish.croissant_rai import responsible_ai
from laion_etl.report.publish_context import PIPELINE, PublishContext

_PARQUET = "application/x-parquet"
_URLS = ("URL", "page_url")
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    **{
        term: f"cr:{term}"
        for term in (
            "citeAs", "column", "equivalentProperty", "extract", "field", "fileProperty", "fileObject",
            "fileSet", "format", "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField",
            "path", "recordSet", "references", "regex", "repeated", "replace", "samplingRate", "separator",
            "source", "subField", "transform",
        )
    },
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
}  # fmt: skip


def croissant(context: PublishContext, files: Sequence[DataFile], folder: str) -> bytes:
    """Return the metadata of a version or of the whole dataset; `files` are the data files in its folder."""
    filled = [subset for subset in context.subsets if any(file.subset == subset.name for file in files)]
    crawls = sorted({context.crawl, *(file.crawl for file in files if file.subset)})
    document = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": context.release.name,
        "version": f"{DATASET_FILES.number}.{context.earlier_versions}.0",
        "description": (
            f"{DESCRIPTION} Made from {', '.join(crawls)} by {PIPELINE}. Version {context.release.version}."
        ),
        "license": LICENSE_NAME,
        "citeAs": BIBTEX,
        "isBasedOn": "https://commoncrawl.org",
        "keywords": ["image-text pairs", "web", "Common Crawl", "CLIP"],
        "isLiveDataset": False,
        **responsible_ai(context),
        "distribution": [
            *(_file_set(subset, files, folder) for subset in filled),
            *(_file_object(file, folder) for file in files if file.subset),
        ],
        "recordSet": [_record_set(subset, _heads(context, crawls)) for subset in filled],
    }
    return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"


def file_patterns(subset: str, files: Iterable[DataFile], folder: str) -> list[str]:
    """Return the patterns of a subset's files, relative to a folder, sorted."""
    folders = {file.name.rpartition("/")[0] for file in files if file.subset == subset}
    return sorted(f"{one.removeprefix(f'{folder}/')}/*.parquet" for one in folders)


def _heads(context: PublishContext, crawls: Sequence[str]) -> Sequence[HeadColumn]:
    return context.columns if len(crawls) > 1 else context.scored.columns


def _file_set(subset: Subset, files: Sequence[DataFile], folder: str) -> dict[str, Any]:
    patterns = file_patterns(subset.name, files, folder)
    return {
        "@type": "cr:FileSet",
        "@id": f"{subset.name}-files",
        "name": f"{subset.name}-files",
        "description": f"The parquet files of {subset.name}.",
        "encodingFormat": _PARQUET,
        "includes": patterns[0] if len(patterns) == 1 else patterns,
    }


def _file_object(file: DataFile, folder: str) -> dict[str, Any]:
    name = file.name.removeprefix(f"{folder}/")
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": name,
        "contentSize": f"{file.bytes} B",
        "encodingFormat": _PARQUET,
        "sha256": file.sha256,
    }


def _record_set(subset: Subset, heads: Sequence[HeadColumn]) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": subset.name,
        "name": subset.name,
        "description": f"Image links and texts: {subset.rule}.",
        "key": {"@id": f"{subset.name}/SAMPLE_ID"},
        "field": [
            *(_field(subset, column.field, column.meaning) for column in PUBLISHED_COLUMNS),
            *(_field(subset, head.field, head.meaning) for head in heads),
        ],
    }


def _field(subset: Subset, column: pa.Field, meaning: str) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"{subset.name}/{column.name}",
        "name": column.name,
        "description": meaning,
        "dataType": _data_type(column),
        "source": {"fileSet": {"@id": f"{subset.name}-files"}, "extract": {"column": column.name}},
    }


def _data_type(column: pa.Field) -> str:
    if column.name in _URLS:
        return "sc:URL"
    if pa.types.is_integer(column.type):
        return "sc:Integer"
    if pa.types.is_boolean(column.type):
        return "sc:Boolean"
    return "sc:Float" if pa.types.is_floating(column.type) else "sc:Text"
