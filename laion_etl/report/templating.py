"""How card and report are written: the templates, and how numbers and foreign texts appear in them."""

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from laion_etl.dataset.variants import is_unsafe
from laion_etl.report import charts

TEMPLATES = Path(__file__).parent / "templates"
_CAPTION_CHARS = 160
_ABBREVIATIONS = {word: word.upper() for word in ("url", "http", "dns", "tls", "tdm", "json")}


@cache
def environment() -> Environment:
    """Templates of this package; HTML is escaped, undefined names are errors."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(("html.j2",), default_for_string=True, default=False),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {
        "number": lambda value: f"{value:,}",
        "percent": percent,
        "words": words,
        "cut": cut,
        "similarity": lambda value: "–" if value is None else f"{value:.3f}",
        "language": lambda code: code or "no language",
        "bar": charts.bar,
    }
    made.tests["unspeakable"] = hides_caption
    return made


def percent(share: float) -> str:
    """A share as people read it; small ones keep a digit that says something."""
    if 0 < share < 0.001:
        return "<0.1%"
    return f"{share:.1%}" if share < 0.995 or share == 1 else f"{share:.2%}"


def words(reason: str) -> str:
    """A reason as people write it."""
    return " ".join(_ABBREVIATIONS.get(word, word) for word in reason.split("_"))


def cut(text: str, max_chars: int = _CAPTION_CHARS) -> str:
    """A foreign text on one line, cut to some characters."""
    line = " ".join(text.split())
    return line if len(line) <= max_chars else line[: max_chars - 1].rstrip() + "…"


def hides_caption(reason: str | None) -> bool:
    """Captions of samples that were dropped as unsafe are not repeated anywhere."""
    return reason is not None and is_unsafe(reason)
