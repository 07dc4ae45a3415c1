"""The image links of a page of HTML, and what else a WAT file has of it, by the parser lexbor (selectolax).

What a WAT file does not have: where images are that a script loads later, or that come in several sizes; the
copies for readers without scripts (noscript); captions of figures; the language that the page states. The
rest follows the rules of the extractor that makes WAT files, so that a pair has the same id whichever file it
comes from: `src` is the address of an image unless it is a stand-in for another.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from selectolax.lexbor import LexborHTMLParser, LexborNode

from laion_etl.core.caption_source import CaptionSource
from laion_etl.parse.image_links import link_to_image, names_image, preview_images
from laion_etl.parse.licence import NO_LICENCE, may_have_licence, page_licence
from laion_etl.parse.page import ImageLink
from laion_etl.parse.srcset import largest

# Where scripts that load images late keep the address; the first that a page has is taken.
_LAZY = (
    *("data-src", "data-original", "data-lazy-src", "data-lazy", "data-original-src", "data-img-src"),
    *("data-actualsrc", "data-echo", "data-ll-src", "data-lazyload"),
)
_IMAGES = "img, amp-img"  # pages for AMP have the second for the first
_LAZY_SETS = ("data-srcset", "data-lazy-srcset", "data-original-set")
_TYPES = ("image/jpeg", "image/jpg", "image/png", "image/webp")  # of a source; without one it may be any
_STAND_IN = re.compile(r"\s*(?:data:|about:|javascript:|blob:|\Z)", re.IGNORECASE)
_NO_ADDRESS = re.compile(r"[{}<>\"]")
_LANG = re.compile(r"[A-Za-z]{2,8}(?:-[A-Za-z0-9]{1,8}){0,4}\Z")
_MAX_TEXT_CHARS = 8_000  # of a caption that is an element's text; four times what is kept
_BLOCKS = "br, p, div, li, tr, td, h1, h2, h3, h4"


@dataclass(frozen=True, slots=True)
class Found:
    """What a page has; `base` is that which it states, '' without one."""

    images: list[ImageLink]
    base: str = ""
    licence: str = NO_LICENCE
    lang: str = ""


def found_in(html: str, wanted: Collection[str]) -> Found:
    """Returns the images of a page, and those that it names elsewhere as far as these sources are wanted."""
    tree = LexborHTMLParser(html)
    images = [*_images(tree, CaptionSource.FIGCAPTION in wanted)]
    if CaptionSource.LINK in wanted:
        images += _links(tree)
    metas = [
        (node.attributes.get("name") or node.attributes.get("property"), node.attributes.get("content"))
        for node in tree.css("meta")
    ]
    if CaptionSource.OG in wanted and any(name == "og:image:alt" for name, _ in metas):
        images += preview_images(metas)
    base = tree.css_first("base[href]")
    return Found(
        images=images,
        base=(base.attributes.get("href") or "") if base else "",
        licence=_licence(tree, metas) if may_have_licence(html) else NO_LICENCE,
        lang=_lang(tree),
    )


def _images(tree: LexborHTMLParser, figures: bool) -> Iterator[ImageLink]:
    addresses = _Addresses(tree)
    captions = _figcaptions(tree, addresses) if figures else {}
    for node in tree.css(_IMAGES):
        attributes = node.attributes
        yield ImageLink(
            addresses.of(node),
            _value(attributes, "alt"),
            _value(attributes, "title"),
            captions.get(node.mem_id),
        )


@dataclass(slots=True)
class _Addresses:
    """Where the images of a page are."""

    tree: LexborHTMLParser
    _sources: dict[int, list[str]] = field(default_factory=dict)  # of pictures, by their images  # words: ok

    def __post_init__(self) -> None:
        for picture in self.tree.css("picture"):  # words: ok
            sets = [found for node in picture.css("source") if (found := _source_set(node))]  # words: ok
            if sets and (image := picture.css_first("img")):  # words: ok
                self._sources[image.mem_id] = sets

    def of(self, node: LexborNode) -> str | None:
        """Returns the address of an image: src, unless a script or a set of sizes has the real one."""
        attributes = node.attributes
        for name in _LAZY:
            if (address := _value(attributes, name)) and _is_address(address):
                return address
        src = _value(attributes, "src")
        if src and not _STAND_IN.match(src):
            return src
        sets = [_value(attributes, name) or "" for name in ("srcset", *_LAZY_SETS)]
        return largest([*sets, *self._sources.get(node.mem_id, ())]) or src


def _is_address(value: str) -> bool:
    """Whether the attribute of a script is an address: some have a number, a word or JSON in it."""
    return ("/" in value or names_image(value)) and not (_STAND_IN.match(value) or _NO_ADDRESS.search(value))


def _source_set(node: LexborNode) -> str:
    """Returns the images of a source element, '' if they are of another format than is downloaded."""
    attributes = node.attributes
    kind = _value(attributes, "type")
    if kind and kind.strip().lower() not in _TYPES:
        return ""
    return next((found for name in ("srcset", *_LAZY_SETS) if (found := _value(attributes, name))), "")


def _figcaptions(tree: LexborHTMLParser, addresses: _Addresses) -> dict[int, str]:
    """Returns the captions of figures by their images; one of several images belongs to no single one."""
    captions: dict[int, str] = {}
    for figure in tree.css("figure"):
        caption = figure.css_first("figcaption")
        images = figure.css(_IMAGES)
        if caption and len({addresses.of(image) for image in images}) == 1:
            text = _text(caption)
            captions |= {image.mem_id: text for image in images}
    return captions


def _links(tree: LexborHTMLParser) -> Iterator[ImageLink]:
    for node in tree.css("a[href]"):
        attributes = node.attributes
        if found := link_to_image(_value(attributes, "href"), _value(attributes, "title"), None):
            yield ImageLink(found.url, None, found.title, _text(node), found.source)


def _licence(tree: LexborHTMLParser, metas: list[tuple[str | None, str | None]]) -> str:
    links = ((node.attributes.get("href"), node.attributes.get("rel")) for node in tree.css("[href]"))
    return page_licence(((url, rel) for url, rel in links if url and may_have_licence(url)), metas)


def _lang(tree: LexborHTMLParser) -> str:
    attributes = tree.root.attributes if tree.root else {}
    lang = (_value(attributes, "lang") or _value(attributes, "xml:lang") or "").strip().replace("_", "-")
    return lang.lower() if _LANG.match(lang) else ""


def _text(node: LexborNode) -> str:
    """Returns the text of an element; changes the page, so that words of different blocks stay apart."""
    for block in node.css(_BLOCKS):
        block.insert_before(" ")
    return node.text(deep=True)[:_MAX_TEXT_CHARS]


def _value(attributes: dict[str, str | None], name: str) -> str | None:
    """Returns an attribute, '' for one without a value; None where there is none."""
    return attributes[name] or "" if name in attributes else None
