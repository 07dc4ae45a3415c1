"""Encodes queries and reads images of results; images are decoded only in sandboxed processes."""

import io
from contextlib import AbstractContextManager
from dataclasses import replace
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

from laion_etl.core.errors import InputError, MissingInputError
from laion_etl.core.schemas import batch_of, scored_stem
from laion_etl.io.storage import Store
from laion_etl.io.tarshard import BLOCK, TarError, member_of
from laion_etl.score.model import ClipModel
from laion_etl.score.pixels import PixelPlan, Pixels, format_of
from laion_etl.score.preparer import PreprocessInput
from laion_etl.score.preprocess_pool import Preparers
from laion_etl.score.shared_tables import Plans
from laion_etl.search.hnsw import Floats
from laion_etl.search.query import Hit, SearchIndex, check_model
from laion_etl.search.rows import Place, image_places
from laion_etl.settings import Settings

MEDIA_TYPES = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp", "avif": "image/avif"}
_BLOCKS = 8  # images in flight at once
_THUMBNAIL = PixelPlan(256)
_QUALITY = 80


def detect_format(data: bytes) -> str:
    """Return the format of an image from its first bytes. Raises InputError for an unsupported one."""
    if found := format_of(data):
        return found
    raise InputError(
        "cannot read this file: it is not a JPEG, PNG, WebP or AVIF image; use one of these formats"
    )


def stored_image(hit: Hit, store: Store) -> tuple[str, bytes] | None:
    """Read encoding and bytes of a sample's image from its scored shard; None if its place is not indexed.

    Raises MissingInputError if the shard no longer has it, so that the wrong image is never shown.
    """
    row = hit.row
    if row["picture_offset"] is None:
        return None
    tar = f"{scored_stem(row['crawl'], batch_of(hit.sample_id))}.tar"
    name, place = row["key"], (row["picture_ending"], row["picture_offset"], row["picture_bytes"])
    data = _member_at(tar, name, place, store)
    if data is None and (moved := image_places(tar, store).get(name)) is not None:
        place = moved  # the shard was rewritten since it was indexed
        data = _member_at(tar, name, place, store)
    if data is None:
        raise MissingInputError(f"cannot find the image {name} in {store.uri(tar)}: it was removed since")
    return format_of(data) or place[0], data


def _member_at(tar: str, key: str, place: Place, store: Store) -> bytes | None:
    """Return the bytes at a place of a tar; None if another member, or nothing, is there."""
    ending, offset, size = place
    try:
        name, data = member_of(store.read_range(tar, offset - BLOCK, BLOCK + size), offset - BLOCK)
    except TarError:
        return None
    return data if name == f"{key}.{ending}" else None


class QueryEncoder(AbstractContextManager["QueryEncoder"]):
    """A CLIP model with its worker processes: encodes texts and images, and makes thumbnails.

    Thumbnails may be made from several threads; calls that use the model may not run concurrently.
    """

    def __init__(self, model: ClipModel, settings: Settings) -> None:
        self._model = model
        plans = tuple(
            replace(plan, max_pixels=settings.clip.max_pixels) for plan in (model.pixel_plan, _THUMBNAIL)
        )
        self._preparers = Preparers(Plans(plans), 1, _BLOCKS, settings.clip.preparers)

    def __enter__(self) -> "QueryEncoder":
        self._preparers.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._preparers.__exit__(kind, error, trace)

    def check_index(self, index: SearchIndex) -> None:
        """Raise InputError unless queries are comparable with what is indexed."""
        check_model(index, self._model.name, self._model.weights_sha256)

    def text(self, text: str) -> Floats:
        """Return the vector of a text. Raises InputError for a blank one."""
        if not text.strip():
            raise InputError("cannot search: the query is empty; give a text or an image")
        vector: Floats = self._model.embed_texts([text])[0]
        return vector

    def image(self, data: bytes) -> Floats:
        """Return the vector of an image. Raises InputError if it cannot be read."""
        return self.image_and_thumbnail(data)[0]

    def image_and_thumbnail(self, data: bytes) -> tuple[Floats, bytes]:
        """Return the vector and a thumbnail of an image. Raises InputError if it cannot be read."""
        found = self._pixels(detect_format(data), data)
        if found is None:
            raise InputError("cannot read this image: it is damaged or too large; use another one")
        [vector] = self._model.embed_pixels(found[0][None])
        return vector, webp(found[1])

    def thumbnail(self, ending: str, data: bytes) -> bytes | None:
        """Return the centre square of an image as a small WebP; None if it cannot be read."""
        found = self._pixels(ending, data)
        return None if found is None else webp(found[1])

    def _pixels(self, ending: str, data: bytes) -> list[Pixels] | None:
        prepared = self._preparers.prepare([PreprocessInput((ending, data))])
        try:
            prepared.wait()
            if not prepared.readable[0]:
                return None
            return [np.array(table[0]) for table in prepared.tables.pixels]
        finally:
            self._preparers.release(prepared)


def webp(pixels: Pixels) -> bytes:
    """Encode RGB pixels as a WebP file."""
    file = io.BytesIO()
    made: Any = Image.fromarray(pixels)
    made.save(file, "WEBP", quality=_QUALITY, method=2)
    return file.getvalue()
