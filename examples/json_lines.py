"""A source of one's own: a folder of JSON lines, each a page with its images.

{"page": "https://a.example/", "images": [{"url": "/1.jpg", "caption": "A red car"}]}

PYTHONPATH=examples LAION_ETL_PARSE_SOURCE=json_lines:JsonLines LAION_ETL_CRAWL_SOURCE=pages laion-etl run C
"""

import json
from collections.abc import Iterator
from pathlib import Path

import laion_etl as le


class JsonLines:
    def __init__(self, _settings: object) -> None:
        pass

    def files(self, _crawl: str, root: str) -> list[str]:
        return sorted(map(str, Path(root).glob("*.jsonl")))

    def batches(self, uri: str) -> Iterator[le.LinkBatch]:
        with Path(uri).open("rb") as lines:
            yield from le.link_batches(map(page, lines))


def page(line: bytes) -> le.Page | le.RecordReason:
    try:
        found = json.loads(line)
        images = [le.ImageLink(image["url"], image["caption"]) for image in found["images"]]
        return le.Page(found["page"], images)
    except (ValueError, KeyError, TypeError):
        return le.RecordReason.BROKEN_JSON
