"""The contact sheet: samples of a few scored batches, kept and rejected, with the pictures that may be shown.

Reading them means reading tars, so a sheet is made only when it is opened, in the background, and kept for a
while. What may be shown is decided where the report's sheets are made (report/contact_sheets.py): an image is
shown only when its safety tag says UNLIKELY. All others are placeholders here, without their captions, and
no link leads to them.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any

from laion_etl.core.errors import InputError
from laion_etl.core.schemas import batch_name, scored_stem
from laion_etl.dashboard.data_sources import Sources
from laion_etl.dataset.scored import ScoredBatch, ScoredCrawl, read_batch
from laion_etl.io.storage import Store
from laion_etl.report.contact_sheets import Band, Sample, Sampler, pictures

_BATCHES = 3
_MOST_PER_BAND = 8
_MOST_CHARS = 160
_STATS = re.compile(r"/(\d{9})_stats\.json\Z")
_KEPT_SHEETS = 4
KEY = re.compile(r"\d{14}")


@dataclass(frozen=True, slots=True)
class Sheet:
    """A made sheet: its document and its pictures by sample key, as WebP."""

    document: dict[str, Any]
    pictures: dict[str, bytes]


@dataclass(slots=True)
class Sheets:
    """The pictures of the last sheets; the documents are kept as snapshots like everything else."""

    sources: Sources
    _pictures: dict[str, dict[str, bytes]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def document(self, crawl: str) -> dict[str, Any]:
        """Makes the sheet of a crawl. Raises InputError when nothing is scored, StorageError."""
        sheet = make_sheet(crawl, self.sources.store(), self.sources.max_pixels())
        with self._lock:
            self._pictures.pop(crawl, None)
            self._pictures[crawl] = sheet.pictures
            while len(self._pictures) > _KEPT_SHEETS:
                del self._pictures[next(iter(self._pictures))]
        return sheet.document

    def picture(self, crawl: str, key: str) -> bytes | None:
        """A picture of the crawl's last sheet."""
        with self._lock:
            return self._pictures.get(crawl, {}).get(key)


def make_sheet(crawl: str, store: Store, max_pixels: int) -> Sheet:
    """Reads some batches, chosen by hash: the same crawl gives the same sheet."""
    found = [
        match for name in store.etags(f"scored/{crawl}", "_stats.json") if (match := _STATS.search(name))
    ]
    if not found:
        raise InputError(f"no batch of {crawl} is scored yet, so there are no samples to show")
    numbers = sorted((int(match[1]) for match in found), key=_hash)[:_BATCHES]
    scored = _chosen(crawl, sorted(numbers), store)
    sampler = Sampler.over(scored)
    for batch in scored.batches:
        for rows in read_batch(scored, batch, store):
            sampler.add(batch.number, rows)
    kept, rejected = _cut(sampler.kept()), _cut(sampler.rejected())
    uris = pictures((*kept, *rejected), scored, max_pixels, store)
    images = {key: base64.b64decode(uri.partition(",")[2]) for key, uri in uris.items()}
    document = {
        "batches": sorted(numbers),
        "of": len(found),
        "kept": [_band(band, images) for band in kept],
        "rejected": [_band(band, images) for band in rejected],
    }
    return Sheet(document, images)


def _chosen(crawl: str, numbers: Sequence[int], store: Store) -> ScoredCrawl:
    """A crawl of these batches: reading the stats of all would take too long."""
    units = {number: store.read_stats(f"{scored_stem(crawl, number)}_stats.json") for number in numbers}
    batches = tuple(ScoredBatch(number, stats.kept, stats.outputs, "") for number, stats in units.items())
    return ScoredCrawl(crawl, batches, None, (), ())


def _hash(number: int) -> bytes:
    return hashlib.sha256(batch_name(number).encode()).digest()


def _cut(bands: Sequence[Band]) -> list[Band]:
    return [replace(band, samples=band.samples[:_MOST_PER_BAND]) for band in bands]


def _band(band: Band, images: dict[str, bytes]) -> dict[str, Any]:
    return {"title": band.title, "samples": [_sample(sample, images) for sample in band.samples]}


def _sample(sample: Sample, images: dict[str, bytes]) -> dict[str, Any]:
    hidden = sample.withheld
    return {
        "key": sample.key,
        "withheld": hidden or ("" if sample.key in images else "can't be decoded"),
        "caption": "" if hidden else " ".join(sample.caption.split())[:_MOST_CHARS],
        "language": sample.language,
        "similarity": sample.similarity,
        "threshold": sample.threshold,
        "size": [sample.width, sample.height],
    }
