"""The contact sheet: kept and rejected samples of a few scored batches, with the images that may be shown.

This reads tars, so a sheet is built only when it is opened, in the background, and cached for a while. The
rule for what may be shown is the report's (report/contact_sheets.py): an image is shown only if its safety
tag says UNLIKELY. All others are placeholders, without captions and without URLs.
"""

import base64
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any

from laion_etl.core.errors import InputError, LaionEtlError
from laion_etl.core.schemas import scored_stem
from laion_etl.dashboard.data_sources import Sources
from laion_etl.dataset.score_progress import read_score_progress
from laion_etl.dataset.scored import ScoredBatch, ScoredCrawl, read_batch
from laion_etl.io.storage import Store
from laion_etl.report.contact_sheets import Band, Sampler, SheetImages, SheetSample, embedded_images

_BATCHES = 3
_MAX_PER_BAND = 8
_MAX_CHARS = 160
_KEPT_SHEETS = 4


@dataclass(frozen=True, slots=True)
class Sheet:
    """A sheet: its document and its images by sample key, as WebP."""

    document: dict[str, Any]
    images: dict[str, bytes]


@dataclass(slots=True)
class Sheets:
    """The images of recent sheets; the documents are kept as snapshots like all others."""

    sources: Sources
    _images: dict[str, dict[str, bytes]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def document(self, crawl: str) -> dict[str, Any]:
        """Build the sheet of a crawl. Raises InputError if nothing is scored, StorageError."""
        sheet = make_sheet(
            crawl, self.sources.store(), self.sources.max_pixels(), _first_scored(crawl, self.sources)
        )
        with self._lock:
            self._images.pop(crawl, None)
            self._images[crawl] = sheet.images
            while len(self._images) > _KEPT_SHEETS:
                del self._images[next(iter(self._images))]
        return sheet.document

    def image(self, crawl: str, key: str) -> bytes | None:
        """Return an image of the crawl's last sheet; None if it is not on it."""
        with self._lock:
            return self._images.get(crawl, {}).get(key)


def make_sheet(
    crawl: str, store: Store, max_pixels: int, first_scored: tuple[list[int], int] = ([], 0)
) -> Sheet:
    """Build a sheet from a few batches, drawn with the crawl's name as seed, so that it stays the same.

    While its batches are being scored it uses `first_scored`: some batch numbers, and how many are scored.
    """
    numbers, places = _drawn(crawl, store) or first_scored
    if not numbers:
        raise InputError(f"cannot show samples of {crawl}: no batch is scored yet; score one first")
    scored = _chosen(crawl, sorted(numbers), store)
    sampler = Sampler.over(scored)
    for batch in scored.batches:
        for rows in read_batch(scored, batch, store):
            sampler.add(batch.number, rows)
    kept, rejected = _cut(sampler.kept()), _cut(sampler.rejected())
    found = embedded_images((*kept, *rejected), crawl, max_pixels, store)
    images = {key: base64.b64decode(uri.partition(",")[2]) for key, uri in found.uris.items()}
    document = {
        "batches": sorted(numbers),
        "of": places,
        "kept": [_band(band, found) for band in kept],
        "rejected": [_band(band, found) for band in rejected],
    }
    return Sheet(document, images)


def _drawn(crawl: str, store: Store) -> tuple[list[int], int] | None:
    score = read_score_progress(crawl, store)
    if not score.units:
        return None
    chosen = random.Random(crawl).sample(  # noqa: S311 - no secret
        range(score.units), min(_BATCHES, score.units)
    )
    return [score.at(place) for place in chosen], score.units


def _first_scored(crawl: str, sources: Sources) -> tuple[list[int], int]:
    """Return the first batches that score workers have finished, and how many there are by now."""
    with suppress(LaionEtlError), sources.database() as database:
        rows = database.rows("dashboard.first_scored", {"crawl": crawl, "rows": _BATCHES})
        return [number for number, _ in rows], rows[0][1] if rows else 0
    return [], 0


def _chosen(crawl: str, numbers: Sequence[int], store: Store) -> ScoredCrawl:
    """Return the crawl with only these batches: reading the stats of all would take too long."""
    units = {number: store.read_stats(f"{scored_stem(crawl, number)}_stats.json") for number in numbers}
    batches = tuple(ScoredBatch(number, stats.kept, stats.outputs, "") for number, stats in units.items())
    return ScoredCrawl(crawl, batches, None, (), ())


def _cut(bands: Sequence[Band]) -> list[Band]:
    return [replace(band, samples=band.samples[:_MAX_PER_BAND]) for band in bands]


def _band(band: Band, images: SheetImages) -> dict[str, Any]:
    return {"title": band.title, "samples": [_sample(sample, images) for sample in band.samples]}


def _sample(sample: SheetSample, images: SheetImages) -> dict[str, Any]:
    hidden = sample.withheld
    return {
        "key": sample.key,
        "withheld": hidden or ("" if sample.key in images.uris else images.why_absent(sample.key)),
        "caption": "" if hidden else " ".join(sample.caption.split())[:_MAX_CHARS],
        "language": sample.language,
        "similarity": sample.similarity,
        "threshold": sample.threshold,
        "size": [sample.width, sample.height],
    }
