"""Pictures of results and of queries: decoded by confined processes only, whoever sent them."""

import io
from contextlib import AbstractContextManager
from dataclasses import replace
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

from laion_etl.core.errors import InputError, MissingInputError
from laion_etl.core.host_resources import usable_cores
from laion_etl.core.schemas import batch_of, scored_stem
from laion_etl.io.storage import Store
from laion_etl.io.tarshard import BLOCK, TarError, member_of
from laion_etl.score.model import ClipModel
from laion_etl.score.pixels import PixelPlan, Pixels, format_of
from laion_etl.score.preprocess_pool import Material, Preparers
from laion_etl.score.shared_tables import Plans
from laion_etl.search.hnsw import Floats
from laion_etl.search.query import Hit
from laion_etl.settings import Settings

MEDIA_TYPES = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp", "avif": "image/avif"}
_BLOCKS = 8  # pictures on their way at once
_THUMBNAIL = PixelPlan(256)
_QUALITY = 80


def ending_of(data: bytes) -> str:
    """The kind of a picture by its first bytes; raises InputError for others than the pipeline takes."""
    if found := format_of(data):
        return found
    raise InputError("this is no JPEG, PNG, WebP or AVIF file")


def stored_picture(hit: Hit, store: Store) -> tuple[str, bytes] | None:
    """Ending and bytes of a sample's picture, out of its scored shard; None when its place was not noted.

    Raises MissingInputError when the shard was rewritten since, so that no other picture is shown instead.
    """
    row = hit.row
    if row["picture_offset"] is None:
        return None
    tar = f"{scored_stem(row['crawl'], batch_of(hit.sample_id))}.tar"
    start, ending = row["picture_offset"] - BLOCK, row["picture_ending"]
    try:
        name, data = member_of(store.read_range(tar, start, BLOCK + row["picture_bytes"]), start)
    except TarError:
        name, data = "", b""
    if name != f"{row['key']}.{ending}":
        raise MissingInputError(
            f"{store.uri(tar)} was rewritten since it was indexed; index the version again"
        )
    return ending, data


class Reader(AbstractContextManager["Reader"]):
    """A CLIP model with its processes: texts and pictures to vectors, pictures to thumbnails.

    Usable from several threads, but for the model.
    """

    def __init__(self, model: ClipModel, settings: Settings) -> None:
        self._model = model
        plans = tuple(
            replace(plan, max_pixels=settings.clip.max_pixels) for plan in (model.pixel_plan, _THUMBNAIL)
        )
        self._preparers = Preparers(Plans(plans), 1, _BLOCKS, usable_cores())

    def __enter__(self) -> "Reader":
        self._preparers.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._preparers.__exit__(kind, error, trace)

    def text(self, text: str) -> Floats:
        """The vector of a text; raises InputError for a blank one."""
        if not text.strip():
            raise InputError("the query is empty")
        vector: Floats = self._model.embed_texts([text])[0]
        return vector

    def picture(self, data: bytes) -> Floats:
        """The vector of a picture; raises InputError when it can't be read."""
        return self.picture_and_thumbnail(data)[0]

    def picture_and_thumbnail(self, data: bytes) -> tuple[Floats, bytes]:
        """The vector of a picture, and the picture small; raises InputError when it can't be read."""
        found = self._pixels(ending_of(data), data)
        if found is None:
            raise InputError("this picture is damaged or too large")
        [vector] = self._model.embed_pixels(found[0][None])
        return vector, webp(found[1])

    def thumbnail(self, ending: str, data: bytes) -> bytes | None:
        """The middle square of a picture as a small WebP; None when it can't be read."""
        found = self._pixels(ending, data)
        return None if found is None else webp(found[1])

    def _pixels(self, ending: str, data: bytes) -> list[Pixels] | None:
        prepared = self._preparers.prepare([Material((ending, data))])
        try:
            prepared.wait()
            if not prepared.readable[0]:
                return None
            return [np.array(table[0]) for table in prepared.tables.pixels]
        finally:
            self._preparers.release(prepared)


def webp(pixels: Pixels) -> bytes:
    """RGB pixels as a WebP file."""
    file = io.BytesIO()
    made: Any = Image.fromarray(pixels)
    made.save(file, "WEBP", quality=_QUALITY, method=2)
    return file.getvalue()
