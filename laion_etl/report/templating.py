"""The templates of card and report, and the formatting of numbers and untrusted text in them."""

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from laion_etl.core.quantities import quantity
from laion_etl.dataset.variants import is_unsafe
from laion_etl.report import charts

TEMPLATES = Path(__file__).parent / "templates"
_CAPTION_CHARS = 160
_ABBREVIATIONS = {word: word.upper() for word in ("url", "http", "dns", "tls", "tdm", "json")}


@cache
def environment() -> Environment:
    """Return the environment of this package's templates; HTML is escaped, undefined names are errors."""
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
        "quantity": quantity,
        "money": lambda value: f"{value:,.2f}",
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
    """Format a share as a percentage; small shares keep a significant digit."""
    if 0 < share < 0.001:
        return "<0.1%"
    return f"{share:.1%}" if share < 0.995 or share == 1 else f"{share:.2%}"


def words(reason: str) -> str:
    """Format a drop reason as words."""
    return " ".join(_ABBREVIATIONS.get(word, word) for word in reason.split("_"))


def cut(text: str, max_chars: int = _CAPTION_CHARS) -> str:
    """Put untrusted text on one line, cut to a number of characters."""
    line = " ".join(text.split())
    return line if len(line) <= max_chars else line[: max_chars - 1].rstrip() + "…"


def hides_caption(reason: str | None) -> bool:
    """Whether a caption is hidden: those of samples dropped as unsafe are never repeated."""
    return reason is not None and is_unsafe(reason)
