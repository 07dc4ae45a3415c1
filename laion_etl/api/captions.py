"""Captions as callers give them."""

from collections.abc import Sequence

from laion_etl.core.errors import InputError
from laion_etl.core.quantities import quantity
from laion_etl.parse.language import language_detector
from laion_etl.parse.language_codes import code_of
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
    return [
        _text(number, caption).encode("utf-8", "replace").decode() for number, caption in enumerate(captions)
    ]


def _text(number: int, caption: object) -> str:
    if caption is None or isinstance(caption, str):
        return caption or ""
    raise InputError(f"cannot use caption {number:,}: it is a {type(caption).__name__}; give a text, or None")


def checked_languages(languages: Sequence[str | None], count: int) -> list[str]:
    """Return the code of each of `count` images as detectors answer it, '' for None or `none`.

    Raises InputError for another number, and for what is not a code.
    """
    if isinstance(languages, str) or len(languages) != count:
        given = "one text" if isinstance(languages, str) else quantity(len(languages), "language")
        raise InputError(f"cannot use {given} for {quantity(count, 'image')}: give a list with one for each")
    return [_code(language) for language in languages]


def _code(language: object) -> str:
    if (code := code_of(language)) is not None:
        return code
    raise InputError(
        f"cannot use the language {language!r:.40}: it is not a code; write it like en or de, and '' for none"
    )


def languages_of(captions: Sequence[str], settings: Settings) -> list[str]:
    """Return the codes of the languages of captions, '' where the detector of the settings is not sure."""
    distinct = sorted({caption for caption in captions if caption.strip()})
    found = dict(zip(distinct, language_detector(settings.parse).detect(distinct).codes, strict=True))
    return [found.get(caption, "") for caption in captions]
