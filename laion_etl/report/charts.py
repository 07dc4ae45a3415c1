"""Histograms, bars, heat strips and hexagons of the report as inline SVG.

Every function returns Markup with a title for screen readers; the page also shows the numbers in a table.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from laion_etl.report.svg import amount, line, path, rect, svg, text

HEIGHT = 210.0  # of the columns of a histogram
WIDTH = 560.0
DEPTHS = 6  # colours of heat strips and hexagons
_THINNEST = 0.8
_STRIP = 27.0  # height of a heat strip with its gap
_LABELS = 118.0  # room for the names of heat strips
_NAMES = 250.0  # and of bars

Scale = Callable[[int, int], float]  # (count, largest count) -> share of the height


def linear(count: int, highest: int) -> float:
    """Scale heights in proportion to counts."""
    return count / highest


def logarithmic(count: int, highest: int) -> float:
    """Scale heights by the logarithm of counts, so that rare values stay visible."""
    return math.log1p(count) / math.log1p(highest)


@dataclass(frozen=True, slots=True)
class Marker:
    """A vertical line in a histogram; `place` is in units of the x axis."""

    place: float
    label: str


@dataclass(frozen=True, slots=True)
class Axis:
    """The x axis: edges of the bins, labelled ticks, and a function that names a bin."""

    edges: Sequence[float]
    ticks: Sequence[tuple[float, str]]
    title: str
    name: Callable[[int], str]

    def place(self, value: float) -> float:
        """Return the position of a value in SVG units."""
        low, high = self.edges[0], self.edges[-1]
        return (value - low) / (high - low) * WIDTH


def histogram(
    axis: Axis,
    series: Sequence[tuple[str, Sequence[int]]],
    markers: Sequence[Marker],
    title: str,
    scale: Scale = linear,
) -> Markup:
    """Draw stacked columns; `series` are (name, also used as CSS class, and counts per bin)."""
    above = 15.0 if len(series) > 1 else 0.0
    top = 14.0 + 15.0 * len(markers) + above
    sums = [sum(counts) for counts in zip(*(counts for _, counts in series), strict=True)]
    highest, whole = max([1, *sums]), sum(sums)
    parts = []
    for value in _grid(highest, scale):
        y = top + HEIGHT * (1 - scale(value, highest))
        parts.append(line("grid", (0, y), (WIDTH, y)))
        parts.append(amount(value, whole, -8, y + 4, "tick end"))
    if len(series) > 1:
        parts += _legend(series)
    for index, (left, right) in enumerate(pairwise(axis.edges)):
        base = top + HEIGHT
        for name, counts in series:
            # Stacked: a part has its share of the column, whatever the scale.
            tall = scale(sums[index], highest) * HEIGHT * counts[index] / max(1, sums[index])
            if counts[index]:
                tall = max(tall, _THINNEST)
                base -= tall
                x, tip = axis.place(left) + 0.5, _bin_tip(axis.name(index), name, counts[index], whole)
                wide = max(0.5, axis.place(right) - axis.place(left) - 1)
                parts.append(rect(name, x, base, wide, tall, tip))
    for number, marker in enumerate(markers):
        parts += _marker(axis.place(marker.place), 12.0 + above + 15.0 * number, top + HEIGHT, marker.label)
    parts += [text(words, axis.place(value), top + HEIGHT + 18, "tick middle") for value, words in axis.ticks]
    parts.append(text(axis.title, WIDTH / 2, top + HEIGHT + 38, "axis middle"))
    return svg((-66, 0, WIDTH + 88, top + HEIGHT + 44), title, parts, "histogram")


def _bin_tip(bin_name: str, series: str, count: int, whole: int) -> str:
    return f"{bin_name}: {count:,} {series} ({count / max(1, whole):.2%})"


def _grid(highest: int, scale: Scale) -> list[int]:
    """Return round counts up to the largest: powers of ten, or at most five steps of 1, 2 or 5 times one."""
    if scale is logarithmic:
        return [0, *(10**power for power in range(len(str(highest))))]
    steps = (first * 10**power for power in range(len(str(highest))) for first in (1, 2, 5))
    return list(range(0, highest + 1, next(step for step in steps if step * 5 >= highest)))


def _legend(series: Sequence[tuple[str, Sequence[int]]]) -> Iterator[Markup]:
    for number, (name, counts) in enumerate(series):
        x = number * 128.0
        yield rect(name, x, 3, 10, 10)
        yield text(f"{name} {sum(counts):,}", x + 16, 12, "tick")


def _marker(x: float, y: float, bottom: float, label: str) -> tuple[Markup, Markup]:
    side, shift = ("end", -6.0) if x > WIDTH * 0.55 else ("start", 6.0)
    return line("marker", (x, y - 9), (x, bottom)), text(label, x + shift, y, f"marker-label {side}")


def bars(rows: Sequence[tuple[str, int, float]], name: str, title: str) -> Markup:
    """Draw a bar per row (name, count, share) for a PNG file; the page has tables instead."""
    highest = max([1, *(count for _, count, _ in rows)])
    room = WIDTH - _NAMES - 118
    parts = []
    for place, (label, count, share) in enumerate(rows):
        y = 4 + place * 22.0
        long = max(_THINNEST, count / highest * room) if count else 0.0
        parts.append(text(label, _NAMES - 10, y + 13, "label end"))
        parts.append(rect(f"sink {name}", _NAMES, y + 2, long, 14))
        parts.append(text(f"{count:,}  ({share:.1%})", _NAMES + long + 7, y + 13, "tick"))
    return svg((0, 0, WIDTH, 8 + len(rows) * 22), title, parts, "bars")


@dataclass(frozen=True, slots=True)
class Strip:
    """A row of a heat map: counts per bin, and the position of a marker line (None for none)."""

    label: str
    counts: Sequence[int]
    mark: float | None


def strips(axis: Axis, rows: Sequence[Strip], title: str) -> Markup:
    """Draw a strip per row in shades of one colour, each relative to its own fullest bin."""
    parts: list[Markup] = []

    def place(value: float) -> float:
        return _LABELS + axis.place(value) * (WIDTH - _LABELS) / WIDTH

    for number, row in enumerate(rows):
        y, highest, whole = number * _STRIP, max([1, *row.counts]), sum(row.counts)
        parts.append(text(row.label, _LABELS - 9, y + 19, "label end"))
        for index, (left, right) in enumerate(pairwise(axis.edges)):
            count = row.counts[index]
            tip = f"{row.label}, {axis.name(index)}: {count:,} of {whole:,}" if count else ""
            wide = place(right) - place(left) - 0.6
            parts.append(rect(f"heat-{depth(count, highest)}", place(left), y + 1, wide, _STRIP - 3, tip))
        if row.mark is not None:
            parts.append(line("mark", (place(row.mark), y + 1), (place(row.mark), y + _STRIP - 2)))
    bottom = len(rows) * _STRIP
    parts += [text(words, place(value), bottom + 16, "tick middle") for value, words in axis.ticks]
    parts.append(text(axis.title, (_LABELS + WIDTH) / 2, bottom + 36, "axis middle"))
    return svg((0, 0, WIDTH + 22, bottom + 42), title, parts, "strips")


def depth(count: int, highest: int) -> int:
    """Return the shade of a count: 0 for none, otherwise 1 to 6 by its square root, so rare values show."""
    return 0 if not count else 1 + min(DEPTHS - 1, int(DEPTHS * (count / highest) ** 0.5))


@dataclass(frozen=True, slots=True)
class Hexagon:
    """A cell of a binned scatter plot; the centre is in units of the axes."""

    x: float
    y: float
    count: int
    tip: str


def hexagons(
    cells: Sequence[Hexagon],
    width: float,
    ticks: Sequence[tuple[float, str]],
    box: tuple[float, str],
    title: str,
) -> Markup:
    """Draw a scatter plot in hexagons of a given width; both axes have the same ticks.

    `box` marks the region right of and above a place.
    """
    low, high = ticks[0][0], ticks[-1][0]
    left, size = 56.0, 400.0
    unit = size / max(1e-9, high - low)
    highest = max([1, *(cell.count for cell in cells)])
    parts = []
    for value, words in ticks:
        at = (value - low) * unit
        parts.append(line("grid", (left + at, 0), (left + at, size)))
        parts.append(line("grid", (left, size - at), (left + size, size - at)))
        parts.append(text(words, left + at, size + 17, "tick middle"))
        parts.append(text(words, left - 8, size - at + 4, "tick end"))
    for cell in cells:
        x, y = left + (cell.x - low) * unit, size - (cell.y - low) * unit
        parts.append(path(f"heat-{depth(cell.count, highest)}", _hexagon(x, y, width * unit / 2), cell.tip))
    if low <= box[0] < high:
        at = (box[0] - low) * unit
        parts.append(rect("box", left + at, 0.8, size - at, size - at))
        parts.append(text(box[1], left + size, -13, "marker-label end"))
    parts.append(text("width, px", left + size / 2, size + 38, "axis middle"))
    parts.append(text("height, px", 0, -13, "axis"))
    return svg((0, -28, left + size + 24, size + 74), title, parts, "heat")


def _hexagon(x: float, y: float, half: float) -> str:
    """Return the path of a hexagon standing on a corner; `half` is half its width."""
    tall = half / math.sqrt(3)
    corners = ((0, -2), (1, -1), (1, 1), (0, 2), (-1, 1), (-1, -1))
    return "M" + " L".join(f"{x + half * dx:.1f},{y + tall * dy:.1f}" for dx, dy in corners) + " Z"


def bar(share: float, name: str) -> Markup:
    """Draw a bar for a table cell, `share` of its width filled."""
    inside = Markup(
        '<rect class="track" width="100" height="1"/><rect class="{}" width="{:.2f}" height="1"/>'
    )
    shape = Markup(
        '<svg class="bar" viewBox="0 0 100 1" preserveAspectRatio="none" aria-hidden="true">{}</svg>'
    )
    return shape.format(inside.format(name, max(0.0, min(1.0, share)) * 100))
