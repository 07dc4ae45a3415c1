"""Pages and their image links, as the sources of links make them; no more is imported than that takes."""

from collections.abc import Sequence
from dataclasses import dataclass

from laion_etl.core.caption_source import CaptionSource
from laion_etl.parse.licence import NO_LICENCE


@dataclass(frozen=True, slots=True)
class ImageLink:
    """An image of a page as the page has it; None where it has no such attribute.

    `url` may be relative; `alt` becomes the caption, once it is cleaned, or what else the setting
    LAION_ETL_PARSE_CAPTIONS allows. `text`: the figcaption of an image, or the text of a link to one.
    `source`: ALT for an image, LINK for a link to one, OG for a preview.
    """

    url: str | None
    alt: str | None
    title: str | None = None
    text: str | None = None
    source: CaptionSource = CaptionSource.ALT


@dataclass(frozen=True, slots=True)
class Page:
    """A page with its image links.

    `base`: the URL that links are resolved against, '' for the page's own. `licence`: the URL of a licence of
    everything on the page, like `https://creativecommons.org/licenses/by/4.0/`, '?' for none. `lang`: the
    language that the page says it is in, '' if it does not. `charset`: the label of the page's encoding, like
    `windows-1251`, which the queries of its links are in; '' for UTF-8.
    """

    url: str
    images: Sequence[ImageLink]
    base: str = ""
    licence: str = NO_LICENCE
    lang: str = ""
    charset: str = ""
