"""Contact sheets: a few kept and rejected samples of a crawl, with thumbnails of those that may be shown.

An image is embedded only when its safety tag says UNLIKELY. Everything else (NSFW, UNSURE, never
tagged, suspected under-age, not scored, unreadable) is a neutral placeholder that names the reason, and its
bytes are not even decoded. The choice depends only on key hashes: the same crawl gives the same sheet.
"""

import base64
import hashlib
import heapq
import io
import logging
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import pyarrow as pa
from PIL import Image

from laion_etl.core.errors import DamagedFileError, MissingFileError
from laion_etl.core.funnel import ScoreReason
from laion_etl.core.ids import batch_name
from laion_etl.dataset.score_progress import raw_shards_deleted
from laion_etl.dataset.scored import ScoredCrawl
from laion_etl.io.storage import Store
from laion_etl.io.tarshard import TarError, read_members

_log = logging.getLogger(__name__)

BATCHES_LOOKED_AT = 12  # each tar is read (on S3: downloaded) from its start to the last wanted image
_CANDIDATES = 2_000  # kept samples; the sheet shows some of them per quantile
_CANDIDATES_PER_REASON = 200
_PER_BAND = 8
_PER_REASON = 16
_BANDS = (
    ("Just above the threshold", 0.0),
    ("Lower quartile", 0.25),
    ("Median", 0.5),
    ("Upper quartile", 0.75),
    ("Best matches", 1.0),
)
_ENDINGS, _ENCODINGS = ("jpg", "png", "webp", "avif"), ("JPEG", "PNG", "WEBP", "AVIF")
_SIDE_PX = 224
_QUALITY = 70
_SHOWN_TAG = "UNLIKELY"
_NEVER_SHOWN = frozenset(
    reason.value
    for reason in (ScoreReason.SUSPECTED_UNDERAGE, ScoreReason.UNREADABLE, ScoreReason.NOT_SCORED)
)
_NEVER_CHECKED = frozenset((ScoreReason.UNREADABLE.value, ScoreReason.NOT_SCORED.value))
_COLUMNS = (
    "key", "caption", "language", "similarity", "threshold", "nsfw_tag", "reason",
    "original_width", "original_height", "sha256",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SheetSample:
    """One row on a sheet; `reason` is None for kept samples."""

    batch: int
    key: str
    caption: str
    language: str
    similarity: float | None
    threshold: float | None
    nsfw_tag: str | None
    reason: str | None
    width: int | None
    height: int | None
    image: str | None = None  # SHA-256 of the file

    @property
    def caption_withheld(self) -> bool:
        """Whether its caption must not be shown: it is withheld like the image of what is not tagged as safe.

        Nothing was checked of samples that could not be read or scored; what they say is the web's.
        """
        return self.nsfw_tag != _SHOWN_TAG and self.reason not in _NEVER_CHECKED

    @property
    def withheld(self) -> str | None:
        """Why its image must not be shown; None if it may be."""
        if self.reason in _NEVER_SHOWN:
            return str(self.reason).replace("_", " ")
        if self.nsfw_tag is None:
            return "not checked for safety"
        return None if self.nsfw_tag == _SHOWN_TAG else f"tagged {self.nsfw_tag}"


@dataclass(frozen=True, slots=True)
class Band:
    """A titled row of samples on a sheet."""

    title: str
    samples: tuple[SheetSample, ...]


@dataclass(slots=True)
class Sampler:
    """Picks candidates from a stream of rows: those with the smallest key hashes, per group."""

    batches: frozenset[int]
    _groups: dict[str | None, list[tuple[int, SheetSample]]] = field(default_factory=dict)

    @classmethod
    def over(cls, scored: ScoredCrawl) -> "Sampler":
        """Sample from a few batches of a crawl, chosen by hash."""
        numbers = by_hash(batch.number for batch in scored.batches)
        return cls(frozenset(islice(numbers, BATCHES_LOOKED_AT)))

    def add(self, batch: int, rows: pa.RecordBatch) -> None:
        """Add rows of a scored batch."""
        if batch not in self.batches:
            return
        for row in rows.select(list(_COLUMNS)).to_pylist():
            width, height = row.pop("original_width"), row.pop("original_height")
            image = row.pop("sha256")
            self._offer(SheetSample(batch=batch, width=width, height=height, image=image, **row))

    def merge(self, other: "Sampler") -> None:
        """Add the candidates of other rows, sampled from the same choice of batches."""
        for group in other._groups.values():
            for _, sample in group:
                self._offer(sample)

    def to_plain(self) -> list[dict[str, Any]]:
        """Return the candidates as plain JSON values; `add_plain` reads them."""
        return [
            asdict(sample)
            for _, group in sorted(self._groups.items(), key=_name)
            for _, sample in sorted(group)
        ]

    def add_plain(self, plain: Iterable[Mapping[str, Any]]) -> None:
        """Add what `to_plain` returned. Raises TypeError for anything else."""
        for sample in plain:
            self._offer(SheetSample(**sample))

    def _offer(self, sample: SheetSample) -> None:
        group = self._groups.setdefault(sample.reason, [])
        limit = _CANDIDATES if sample.reason is None else _CANDIDATES_PER_REASON
        entry = (-_hash(sample.key), sample)  # a heap of the smallest hashes, the largest of them on top
        if len(group) < limit:
            heapq.heappush(group, entry)
        elif entry[0] > group[0][0]:
            heapq.heapreplace(group, entry)

    def kept(self) -> list[Band]:
        """Return kept samples at quantiles of the similarity, lowest first, each image once."""
        ordered = _different(sorted(self._candidates(None), key=lambda s: (s.similarity or 0.0, s.key)))
        if len(ordered) <= _PER_BAND * 2:
            return [Band("All kept samples", tuple(ordered))] if ordered else []
        bands, taken = [], 0
        for number, (title, share) in enumerate(_BANDS):
            still = (len(_BANDS) - number) * _PER_BAND
            start = max(taken, min(round(share * len(ordered)) - _PER_BAND // 2, len(ordered) - still))
            taken = min(start + _PER_BAND, len(ordered))
            if start < taken:
                bands.append(Band(title, tuple(ordered[start:taken])))
        return bands

    def rejected(self) -> list[Band]:
        """Return rejected samples per reason, spread over their similarities, highest first."""
        reasons = sorted(reason for reason in self._groups if reason is not None)
        return [Band(reason.replace("_", " "), tuple(self._spread(reason))) for reason in reasons]

    def _spread(self, reason: str) -> list[SheetSample]:
        found = sorted(self._candidates(reason), key=lambda s: (-(s.similarity or -1.0), s.key))
        ordered = _different(found)
        if len(ordered) <= _PER_REASON:
            return ordered
        places = {round(i * (len(ordered) - 1) / (_PER_REASON - 1)) for i in range(_PER_REASON)}
        return [ordered[place] for place in sorted(places)]

    def _candidates(self, reason: str | None) -> Iterable[SheetSample]:
        return (sample for _, sample in self._groups.get(reason, []))


def _different(samples: Iterable[SheetSample]) -> list[SheetSample]:
    """Leave out samples with the image of one before: the web repeats its images."""
    found: dict[str, SheetSample] = {}
    for sample in samples:
        found.setdefault(sample.image or sample.key, sample)
    return list(found.values())


@dataclass(frozen=True, slots=True)
class SheetImages:
    """Images of sheets as data: URIs by key; `deleted`: keys of those deleted with their raw shards."""

    uris: Mapping[str, str]
    deleted: frozenset[str]

    def why_absent(self, key: str) -> str:
        """Why the image of a sample is missing that may be shown."""
        return "deleted after scoring" if key in self.deleted else "cannot be decoded"


def embedded_images(bands: Sequence[Band], crawl: str, max_pixels: int, store: Store) -> SheetImages:
    """Read the images of the samples on the sheets that may be shown.

    Kept ones are read from scored/, rejected ones from shards/. An image that cannot be decoded or exceeds
    the pixel limit is left out, as are those of a tar that is missing or damaged, from the damage on.
    """
    wanted: dict[str, set[str]] = {}
    for sample in (sample for band in bands for sample in band.samples):
        if sample.withheld is None:
            folder = "scored" if sample.reason is None else "shards"
            name = f"{folder}/{crawl}/{batch_name(sample.batch)}.tar"
            wanted.setdefault(name, set()).add(sample.key)
    deleted = _deleted_raw_shards(wanted, crawl, store)
    found: dict[str, str] = {}
    for name, keys in sorted(wanted.items()):
        if name not in deleted:
            found |= _images_of_tar(name, keys, max_pixels, store)
    return SheetImages(found, frozenset(key for name in deleted for key in wanted[name]))


def _deleted_raw_shards(names: Iterable[str], crawl: str, store: Store) -> list[str]:
    """Return the raw shards that are gone, if scoring deleted any (`LAION_ETL_KEEP_RAW_SHARDS=false`)."""
    raw = [name for name in names if name.startswith("shards/")]
    if not raw or not raw_shards_deleted(crawl, store):
        return []
    return [name for name in raw if not store.exists(name)]


def _images_of_tar(name: str, keys: set[str], max_pixels: int, store: Store) -> dict[str, str]:
    found: dict[str, str] = {}
    left = set(keys)
    try:
        with store.open(name) as file:
            for member, data in read_members(file):
                key, _, extension = member.partition(".")
                if key not in left or extension not in _ENDINGS:
                    continue
                left.discard(key)
                if (uri := thumbnail(data, max_pixels)) is not None:
                    found[key] = uri
                if not left:
                    break
    except (TarError, MissingFileError, DamagedFileError) as error:
        _log.warning("the contact sheets lack up to %d images of %s: %s", len(left), name, error)
    return found


def thumbnail(data: bytes, max_pixels: int) -> str | None:
    """Return a small WebP as a data: URI; None if the image is too large or cannot be decoded."""
    try:
        with Image.open(io.BytesIO(data), formats=_ENCODINGS) as image:
            if image.width * image.height > max_pixels:
                return None
            image.draft("RGB", (_SIDE_PX * 2, _SIDE_PX * 2))
            small = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError):
        return None
    small.thumbnail((_SIDE_PX, _SIDE_PX))
    out = io.BytesIO()
    small.save(out, "WEBP", quality=_QUALITY, method=4)
    return f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}"


def by_hash(numbers: Iterable[int]) -> Iterator[int]:
    """Yield batch numbers in the order in which sheets prefer them."""
    hashed = [(_hash(batch_name(number)), number) for number in numbers]
    heapq.heapify(hashed)
    while hashed:
        yield heapq.heappop(hashed)[1]


def _name(group: tuple[str | None, object]) -> str:
    return group[0] or ""


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
