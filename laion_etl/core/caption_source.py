"""Where on a page the caption of a pair comes from; the values of column `caption_source`."""

from laion_etl.core.documented_enum import DocumentedEnum


class CaptionSource(DocumentedEnum):
    """A source of captions, in the order in which they win where two of a page give the same pair."""

    ALT = "alt", "The `alt` attribute of the image."
    TITLE = "title", "The `title` attribute of an image whose alt is missing or too short."
    FIGCAPTION = (
        "figcaption",
        "The `figcaption` of an image whose alt (and title, if asked for) is too short; WARC files only.",
    )
    LINK = "link", "A link to an image file: its `title`, or its text where that is missing or too short."
    OG = "og", "The `og:image` that a page names for previews, with its `og:image:alt`."


SOURCES = tuple(CaptionSource)
CODES = {source: code for code, source in enumerate(SOURCES)}  # in compiled code
