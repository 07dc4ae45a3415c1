"""Owners' wishes in words, as people write them into the copyright and the comments of an image.

The tokens of DeviantArt (`NoAI`, `NoImageAI`) count as whole words. Of other texts a clause counts that
speaks of AI, of training or mining, and forbids: "may not be used to train AI models", "All rights reserved,
also for text and data mining". Nothing is understood beyond that, so "our AI training has no entry fee"
counts, too: that costs an image. "No AI was used" says how an image was made, and "AI training" alone does
not forbid.

Texts are those of Exif, XMP, IPTC and comments. Bytes of pixels are never searched: four letters stand in
many of them by chance.
"""

import re
from collections.abc import Iterator

from laion_etl.download import webp_chunks
from laion_etl.download.jpeg_segments import COMMENT, walked
from laion_etl.download.png_chunks import chunks

_MAX_BYTES = 1 << 18  # of the texts of an image, or of one that is compressed; editors write a tenth of it
_MOST_WORDS = 40  # of a clause, from the first that matters
_SEGMENTS = frozenset({0xE1, 0xEC, 0xED, COMMENT})  # Exif and XMP, Ducky, IPTC
_PNG_TEXTS = frozenset({b"tEXt", b"iTXt", b"eXIf"})
_WEBP_TEXTS = frozenset({b"EXIF", b"XMP "})

_TOKEN = re.compile(rb"(?<![a-z0-9])no(?:image)?ai(?![a-z0-9])")
_HINT = re.compile(
    rb"train|mining|scrap|dataset|tdm|(?:machine|deep)[ \-]learn"
)  # no clause counts without one
_SHORT = re.compile(rb"\ba\.i\.?(?![a-z])")
_END_OF_CLAUSE = re.compile(rb"[.;!?<>\"{}|\r\n]+")
_WORD = re.compile(rb"[a-z]+(?:'t)?")
_AI = re.compile(
    rb"\b(?:ai|ml|genai|llms?|artificial intelligence|(?:machine|deep) learning|neural networks?"
    rb"|data mining|tdm)\b"
)
_USE = re.compile(
    rb"\b(?:train|training|mine|mining|tdm|scrape|scraping|datasets?|(?:machine|deep) learning)\b"
)
_FORBIDS = re.compile(
    rb"\b(?:no|not|never|nor|don't|cannot|can't|mustn't|without|prohibit(?:s|ed)?|forbids?|forbidden"
    rb"|disallow(?:s|ed)?|den(?:y|ied)|reserves?|reserved|refused?|excluded?|excluding|banned"
    rb"|unauthori[sz]ed|opts? out|opted out|optout)\b"
)


def forbids_in_words(image: bytes) -> bool:
    """Whether the texts in an image file forbid to train models with it."""
    left = _MAX_BYTES
    for text in _texts(image):
        if left <= 0:
            break
        if text_forbids(text[:left]):
            return True
        left -= len(text)
    return False


def text_forbids(text: bytes) -> bool:
    """Whether a text forbids to train models with what it belongs to; also one in UTF-16."""
    lowered = text[:_MAX_BYTES].lower()
    return _forbids(lowered.replace(b"\0", b" ")) or (
        b"\0" in lowered and _forbids(lowered.replace(b"\0", b""))
    )


def _forbids(text: bytes) -> bool:
    if _TOKEN.search(text) is not None:
        return True
    if _HINT.search(text) is None:
        return False
    clauses = _END_OF_CLAUSE.split(_SHORT.sub(b"ai", text))
    return any(_HINT.search(clause) is not None and _clause_forbids(clause) for clause in clauses)


def _clause_forbids(clause: bytes) -> bool:
    words = _WORD.findall(clause)
    starts = range(0, max(1, len(words) - _MOST_WORDS // 2), _MOST_WORDS // 2)
    parts = (b" ".join(words[start : start + _MOST_WORDS]) for start in starts)
    return any(_AI.search(part) and _USE.search(part) and _FORBIDS.search(part) for part in parts)


def _texts(image: bytes) -> Iterator[bytes]:
    if image.startswith(b"\xff\xd8"):
        for marker, start, end in walked(image):
            if marker in _SEGMENTS:
                yield image[start:end]
    elif image.startswith(b"\x89PNG"):
        for kind, body, _ in chunks(image):
            if kind in _PNG_TEXTS:
                yield body
    elif image.startswith(b"RIFF"):
        for kind, body, _ in webp_chunks.chunks(image):
            if kind in _WEBP_TEXTS:
                yield body
