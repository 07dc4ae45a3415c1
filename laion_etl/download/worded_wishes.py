"""Owners' wishes in words, as people write them into the copyright and the comments of an image.

The tokens of DeviantArt (`NoAI`, `NoImageAI`) count as whole words. Of other texts a clause counts that
speaks of AI, of training, mining or use by it, and forbids: "may not be used to train AI models", "All rights
reserved, also for text and data mining". Nothing is understood beyond that, so "our AI training has no entry
fee" counts, too: that costs an image. "No AI was used" says how an image was made, and "AI training" alone
does not forbid.

Only texts are searched, not pixels (image_texts.py), nor what is Base64: four letters stand in many of them
by chance.
"""

import html
import re

from laion_etl.download.image_texts import separated, texts
from laion_etl.download.jpeg_segments import pixels_taken_out

_MAX_BYTES = 1 << 19  # of the texts of an image, or of one that is compressed; editors write a tenth of it
_MOST_WORDS = 40  # of a clause, from the first that matters

_TOKEN = re.compile(rb"(?<![a-z0-9])(?:no(?:image)?ai(?:train(?:ing)?)?|notrainai|donottrain)(?![a-z0-9])")
# Nothing counts without one of these. What begins with letters is found at the speed of memchr.
_HINTS = (
    *(b"learning", b"mining", b"tdm", b"llm", b"genai", b"artificial", b"neural", b"generative"),
    *(b"chatgpt", b"midjourney", b"noait", b"trainai", b"donottrain", b"&#"),
)
_SHORT_HINTS = [
    re.compile(one)
    for one in (
        rb"ai(?![a-z])",
        rb"a\.\s?i(?![a-z])",
        rb"ml(?![a-z])",
        rb"language.model",
        rb"diffusion.model",
    )
]
_BASE64 = re.compile(rb"[a-z0-9+/]{64,}=*")
_APOSTROPHE = re.compile(rb"\xe2\x80\x99|\x19\x20|\x20\x19|\x92(?=t)")  # UTF-8, UTF-16, Windows
_ESCAPED = re.compile(rb"&[#a-z0-9]{1,12};")
_SHORT = re.compile(rb"\ba\.\s?i\.?(?![a-z])")
_NO_END = re.compile(rb"\b(?:e\.\s?g\.|i\.\s?e\.|(?:incl|etc|resp|art)\.)")
_END_OF_CLAUSE = re.compile(rb"[.;!?<>\"{}|]+|\n[ \t]*\r?\n|\r[ \t]*\r")
_WORD = re.compile(rb"[a-z]+(?:'t)?")
_MODELS = (
    rb"(?:ai|ml|genai|llms?|artificial intelligence|(?:machine|deep) learning|neural net(?:work)?s?"
    rb"|generative|language models?|diffusion models?|chatgpt|midjourney)"
)
_AI = re.compile(rb"\b(?:" + _MODELS + rb"|data mining|tdm)\b")
_USE = re.compile(
    rb"\b(?:train|trained|training|mine|mining|tdm|scrape|scraped|scraping|data ?sets?"
    rb"|(?:machine|deep) learning"
    rb"|(?:used?|usage|fed|feed|upload|uploaded|input|processed)\b.{0,80}?\b(?:for|in|with|by|into|to)"
    rb" (?:[a-z]{1,20} ){0,4}" + _MODELS + rb"|" + _MODELS + rb" (?:use|usage)(?: is| are)?"
    rb" (?:not allowed|not permitted|prohibited|forbidden|denied|banned))\b"
)
_FORBIDS = re.compile(
    rb"\b(?:no|not|never|nor|don't|cannot|can't|mustn't|without|prohibit(?:s|ed)?|forbids?|forbidden"
    rb"|disallow(?:s|ed)?|den(?:y|ied)|reserves?|reserved|refused?|excluded?|excluding|banned"
    rb"|unauthori[sz]ed|opts? out|opted out|optout)\b"
)


def forbids_in_words(image: bytes) -> bool:
    """Whether the texts in an image file forbid to train models with it."""
    left = _MAX_BYTES
    for text in texts(image):
        if left <= 0:
            break
        if text_forbids(text[:left]):
            return True
        left -= len(text)
    return False


def text_forbids(text: bytes) -> bool:
    """Whether a text forbids to train models with what it belongs to; also one in UTF-16."""
    text = text[:_MAX_BYTES]
    if not any(map(_has_hint, _readings(pixels_taken_out(text).lower()))):
        return False
    return any(map(_forbids, _readings(separated(text).lower())))


def _readings(text: bytes) -> list[bytes]:
    """Returns a text as it is read if a zero is a blank, and if it is one half of a letter in UTF-16."""
    if b"\0" not in text:
        return [text]
    return [text.replace(b"\0", b" "), text.replace(b"\0", b"")]


def _has_hint(text: bytes) -> bool:
    return any(hint in text for hint in _HINTS) or any(hint.search(text) for hint in _SHORT_HINTS)


def _unescaped(text: bytes) -> bytes:
    """Returns a text without escapes of XML, of which texts have one layer or two."""
    for _ in range(2):
        if b"&" not in text:
            break
        text = _ESCAPED.sub(lambda found: html.unescape(found[0].decode()).encode(errors="replace"), text)
    return text.lower()


def _forbids(text: bytes) -> bool:
    text = _BASE64.sub(b" ", _unescaped(text))
    if _TOKEN.search(text) is not None:
        return True
    text = _NO_END.sub(b" ", _SHORT.sub(b"ai", _APOSTROPHE.sub(b"'", text)))
    return any(_clause_forbids(clause) for clause in _END_OF_CLAUSE.split(text))


def _clause_forbids(clause: bytes) -> bool:
    words = _WORD.findall(clause)
    starts = range(0, max(1, len(words) - _MOST_WORDS // 2), _MOST_WORDS // 2)
    parts = (b" ".join(words[start : start + _MOST_WORDS]) for start in starts)
    return any(_AI.search(part) and _FORBIDS.search(part) and _USE.search(part) for part in parts)
