"""Images that a page names elsewhere than in its img elements: links to image files, and its preview."""

from collections.abc import Iterable

from laion_etl.core.caption_source import CaptionSource
from laion_etl.parse.page import ImageLink

_BLANK = "".join(map(chr, range(33)))  # what the URL standard strips
_ENDINGS = (".jpg", ".jpeg", ".png", ".webp")  # what the downloader accepts
_IMAGE_NAMES = ("og:image", "og:image:url")
_CAPTION_NAME = "og:image:alt"


def names_image(url: str) -> bool:
    """Whether the path of a URL ends like an image that is downloaded.

    `File:Name.jpg` is left out: in wikis that is a page about the image. The kernel of the same name has the
    same rule.
    """
    path = url.lstrip(_BLANK)
    for mark in "?#":
        path = path.partition(mark)[0]
    name = path.rstrip(_BLANK).rpartition("/")[2]
    return ":" not in name and name.lower().endswith(_ENDINGS)


def link_to_image(url: str | None, title: str | None, text: str | None) -> ImageLink | None:
    """Returns a link to an image file, None for a link to anything else."""
    if url is None or not names_image(url):
        return None
    return ImageLink(url, None, title, text, CaptionSource.LINK)


def preview_images(metas: Iterable[tuple[str | None, str | None]]) -> list[ImageLink]:
    """Returns the og:image of a page, given property (or name) and content of its meta elements in order.

    og:image:alt belongs to the image before it (ogp.me, "Structured Properties"). og:image:url is another
    name for og:image, and follows it in some pages.
    """
    found: list[ImageLink] = []
    for name, content in metas:
        if name in _IMAGE_NAMES and content is not None:
            if name == _IMAGE_NAMES[0] or not found:
                found.append(ImageLink(content, None, source=CaptionSource.OG))
        elif name == _CAPTION_NAME and found and found[-1].alt is None:
            found[-1] = ImageLink(found[-1].url, content, source=CaptionSource.OG)
    return found
