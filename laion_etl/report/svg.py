"""Writes SVG directly: the few shapes that charts are made of.

Colours and fonts come from classes (templates/chart.css), so that a chart follows the page's theme and can
be rendered alone. `tip` is what the page shows when the pointer rests on a shape.
"""

from collections.abc import Iterable

from markupsafe import Markup


def rect(name: str, x: float, y: float, width: float, height: float, tip: str = "") -> Markup:
    """A rectangle; `name` is its class."""
    shape = Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"{}/>')
    return shape.format(name, x, y, width, height, _tip(tip))


def path(name: str, line: str, tip: str = "") -> Markup:
    """A shape by its outline in SVG's path language."""
    return Markup('<path class="{}" d="{}"{}/>').format(name, line, _tip(tip))


def line(name: str, start: tuple[float, float], end: tuple[float, float]) -> Markup:
    """A straight line."""
    shape = Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>')
    return shape.format(name, *start, *end)


def text(words: str, x: float, y: float, name: str) -> Markup:
    """A line of text; classes `middle` and `end` place it."""
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}">{}</text>').format(name, x, y, words)


def amount(count: int, whole: int, x: float, y: float, name: str, more: str = "") -> Markup:
    """Place a count and its share of the whole at the same position; the page shows one of them."""
    share = f"{count / whole:.1%}" if whole else ""
    return text(f"{count:,}{more}", x, y, f"{name} abs") + text(f"{share}{more}", x, y, f"{name} rel")


def svg(box: tuple[float, float, float, float], title: str, parts: Iterable[Markup], name: str) -> Markup:
    """Return a drawing; `box` is left, top, width and height of its visible area."""
    shape = Markup(
        '<svg class="chart {}" xmlns="http://www.w3.org/2000/svg" viewBox="{}" role="img" '
        'aria-label="{}">{}</svg>'
    )
    return shape.format(name, " ".join(f"{side:.0f}" for side in box), title, Markup("").join(parts))


def _tip(words: str) -> Markup:
    return Markup(' data-tip="{}"').format(words) if words else Markup("")
