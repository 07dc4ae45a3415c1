"""Captions as callers give them."""

from collections.abc import Sequence

from laion_etl.core.errors import InputError
from laion_etl.core.quantities import quantity
from laion_etl.parse.language import language_detector
from laion_etl.settings import Settings


def checked_captions(captions: Sequence[str | None] | None, count: int) -> list[str]:
    """Return a caption for each of `count` images, '' for None. Raises InputError for another number."""
    if captions is None:
        return [""] * count
    if isinstance(captions, str) or len(captions) != count:
        given = "one text" if isinstance(captions, str) else quantity(len(captions), "caption")
        raise InputError(
            f"cannot use {given} for {quantity(count, 'image')}: give a list with one caption for each"
        )
    # A lone surrogate cannot be written as UTF-8.
    return [(caption or "").encode("utf-8", "replace").decode() for caption in captions]


def languages_of(captions: Sequence[str], settings: Settings) -> list[str]:
    """Return the codes of the languages of captions, '' where the detector of the settings is not sure."""
    distinct = sorted({caption for caption in captions if caption.strip()})
    found = dict(zip(distinct, language_detector(settings.parse).detect(distinct).codes, strict=True))
    return [found.get(caption, "") for caption in captions]
