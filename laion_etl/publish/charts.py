"""The drawings of the report as inline SVG: colours come from the page's classes, so they follow its theme.

Every function returns Markup with a title for screen readers; numbers stand in a table beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from markupsafe import Markup, escape

_FLOW_HEIGHT = 150.0  # of the widest node, SVG units
_NODE_WIDTH = 10.0
_TOP = 58.0  # room for the labels above the flow
_TURN = 10.0  # inner radius where a dropped band turns down
_LINES_SHOWN = 6  # reasons below a step; the last line adds up the rest
_LINE_HEIGHT = 17.0


@dataclass(frozen=True, slots=True)
class FlowStep:
    """A node of the funnel: what came in, what went on, and the named rest (most frequent first)."""

    stage: str
    title: str
    input: int
    kept: int
    dropped: Sequence[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Marker:
    """A vertical line in a histogram; `place` is in units of the x axis."""

    place: float
    label: str


def funnel(steps: Sequence[FlowStep], last: str) -> Markup:
    """The flow of records from left to right; what a step drops bends down and is named below.

    `last` names the node at the right end, which has what the last step kept.
    """
    scale = _FLOW_HEIGHT / max(1, max((step.input for step in steps), default=1))
    widths = [225.0 if step.dropped else 118.0 for step in steps]
    parts: list[Markup] = []
    x, depth = 8.0, 0
    for step, width in zip(steps, widths, strict=True):
        parts.append(_flow_step(step, x, width, scale))
        depth = max(depth, min(len(step.dropped), _LINES_SHOWN))
        x += width
    end = steps[-1].kept if steps else 0
    parts.append(_node(last, end, x, max(1.5, end * scale)))
    height = _TOP + _FLOW_HEIGHT + 2 * _TURN + 44 + depth * _LINE_HEIGHT
    return _svg(
        x + 96, height, "Records left after each stage, and why the others were dropped", parts, "funnel"
    )


def _flow_step(step: FlowStep, x: float, width: float, scale: float) -> Markup:
    tall = max(1.5, step.input * scale)
    kept = max(1.0, step.kept * scale) if step.kept else 0.0
    lost = max(1.0, (step.input - step.kept) * scale) if step.dropped else 0.0
    start = x + _NODE_WIDTH
    parts = [_node(step.title, step.input, x, tall)]
    if kept:
        parts.append(_tag("rect", "flow-kept", x=start, y=_TOP, width=width - _NODE_WIDTH, height=kept))
    if lost:
        parts.append(_dropped_band(start, _TOP + max(kept, tall - lost), lost))
        parts.append(_dropped_list(step, start + _TURN, lost))
    return Markup("").join(parts)


def _node(title: str, count: int, x: float, tall: float) -> Markup:
    return Markup("").join(
        (
            _tag("rect", "node", x=x, y=_TOP, width=_NODE_WIDTH, height=tall, rx=2),
            _text(title, x, _TOP - 32, "label"),
            _text(f"{count:,}", x, _TOP - 11, "number"),
        )
    )


def _dropped_band(x: float, top: float, thick: float) -> Markup:
    """A band of some thickness that runs right, turns down and ends below the flow."""
    outer, end = _TURN + thick, _TOP + _FLOW_HEIGHT + 2 * _TURN
    path = (
        f"M{x:.1f},{top:.1f} A{outer:.1f},{outer:.1f} 0 0 1 {x + outer:.1f},{top + outer:.1f} "
        f"V{end:.1f} H{x + _TURN:.1f} V{top + outer:.1f} "
        f"A{_TURN:.1f},{_TURN:.1f} 0 0 0 {x:.1f},{top + thick:.1f} Z"
    )
    return Markup('<path class="flow-lost" d="{}"/>').format(path)


def _dropped_list(step: FlowStep, x: float, thick: float) -> Markup:
    """The foot of a dropped band, cut by reason, and the reasons with their counts."""
    y = _TOP + _FLOW_HEIGHT + 2 * _TURN
    total = sum(count for _, count in step.dropped)
    shown = list(step.dropped)
    if len(shown) > _LINES_SHOWN:
        rest = shown[_LINES_SHOWN - 1 :]
        shown[_LINES_SHOWN - 1 :] = [(f"for {len(rest)} more reasons", sum(count for _, count in rest))]
    parts, right = [], x
    for place, (_, count) in enumerate(shown):
        width = thick * count / total
        parts.append(_tag("rect", f"lost-{place}", x=right, y=y, width=width, height=8))
        right += width
    parts.append(_text(f"−{total:,} in {step.stage}", x, y + 28, "number lost"))
    for place, (reason, count) in enumerate(shown):
        line = y + 47 + place * _LINE_HEIGHT
        parts.append(_tag("rect", f"lost-{place}", x=x, y=line - 8, width=8, height=8, rx=2))
        parts.append(_text(f"{count:,} {reason}", x + 13, line, "reason"))
    return Markup("").join(parts)


def histogram(
    edges: Sequence[float],
    series: Sequence[tuple[str, Sequence[int]]],
    markers: Sequence[Marker],
    axis: Sequence[tuple[float, str]],
    title: str,
) -> Markup:
    """Stacked columns; `series` are (CSS class, count per bin), `axis` the labelled places on the x axis.

    `markers` come from right to left: the first has its label on the right, the others on the left.
    """
    width, height, top = 560.0, 210.0, 12.0 + 15.0 * len(markers)
    low, high = edges[0], edges[-1]
    tallest = max([1, *(sum(counts) for counts in zip(*(c for _, c in series), strict=True))])

    def place(value: float) -> float:
        return (value - low) / (high - low) * width

    parts = [_grid_line(top + height * (1 - share), width) for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    parts.append(_text(f"{tallest:,}", width, top - 4, "tick end"))
    for index, (left, right) in enumerate(pairwise(edges)):
        base = top + height
        for name, counts in series:
            tall = counts[index] / tallest * height
            if tall:
                tall = max(tall, 0.8)
                base -= tall
                wide = max(0.5, place(right) - place(left) - 1)
                parts.append(_tag("rect", name, x=place(left) + 0.5, y=base, width=wide, height=tall))
    for line, marker in enumerate(markers):
        side = "end" if line and len(markers) > 1 else "start"
        parts.append(_marker(place(marker.place), 12.0 + 15.0 * line, top + height, marker.label, side))
    parts += [_text(text, place(value), top + height + 18, "tick middle") for value, text in axis]
    return _svg(width, top + height + 26, title, parts, "histogram", margin=22.0)


def _marker(x: float, y: float, bottom: float, label: str, side: str) -> Markup:
    text = _text(label, x - 6 if side == "end" else x + 6, y, f"marker-label {side}")
    line = Markup('<line class="marker" x1="{0:.1f}" x2="{0:.1f}" y1="{1:.1f}" y2="{2:.1f}"/>')
    return line.format(x, y - 9, bottom) + text


def heat_map(
    counts: Sequence[Sequence[int]],
    labels: Sequence[str],
    box: float,
    box_label: str,
    title: str,
) -> Markup:
    """Squares in five depths of one colour; counts[x][y], y upwards; `labels` at the bin edges ('' for none).

    `box` marks the region right of and above that many bins.
    """
    bins, left = max(1, len(counts)), 52.0
    size = 370.0 / bins
    most = max([1, *(count for column in counts for count in column)])
    parts = []
    for x, column in enumerate(counts):
        for y, count in enumerate(column):
            depth = 0 if not count else 1 + min(4, int(5 * (count / most) ** 0.5))
            at = {"x": left + x * size + 0.5, "y": (bins - 1 - y) * size + 0.5}
            parts.append(_tag("rect", f"heat-{depth}", width=size - 1, height=size - 1, rx=2, **at))
    for edge, label in enumerate(labels):
        parts.append(_text(label, left + edge * size, bins * size + 16, "tick middle"))
        parts.append(_text(label, left - 7, (bins - edge) * size + 4, "tick end"))
    if 0 <= box < bins:
        span = (bins - box) * size
        parts.append(_tag("rect", "box", x=left + box * size, y=0.5, width=span, height=span, rx=3))
        parts.append(_text(box_label, left + bins * size - 5, 15, "marker-label end"))
    parts.append(_text("width, px →", left + bins * size, bins * size + 34, "tick end"))
    parts.append(_text("↑ height, px", 0, bins * size + 34, "tick"))
    return _svg(left + bins * size + 18, bins * size + 40, title, parts, "heat", margin=2.0)


def bar(share: float, name: str) -> Markup:
    """A bar for a table cell, `share` of its width filled."""
    inside = Markup(
        '<rect class="track" width="100" height="1"/><rect class="{}" width="{:.2f}" height="1"/>'
    )
    shape = Markup(
        '<svg class="bar" viewBox="0 0 100 1" preserveAspectRatio="none" aria-hidden="true">{}</svg>'
    )
    return shape.format(inside.format(name, max(0.0, min(1.0, share)) * 100))


def _grid_line(y: float, width: float) -> Markup:
    return Markup('<line class="grid" x1="0" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>').format(width, y, y)


def _tag(tag: Literal["rect"], name: str, **numbers: float) -> Markup:
    values = Markup(" ").join(Markup('{}="{:.1f}"').format(key, value) for key, value in numbers.items())
    return Markup('<{} class="{}" {}/>').format(tag, name, values)


def _text(text: str, x: float, y: float, name: str) -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}">{}</text>').format(name, x, y, text)


def _svg(
    width: float, height: float, title: str, parts: Sequence[Markup], name: str, margin: float = 0.0
) -> Markup:
    box = f"{-margin:.0f} 0 {width + 2 * margin:.0f} {height:.0f}"
    return Markup('<svg class="chart {}" viewBox="{}" role="img" aria-label="{}">{}</svg>').format(
        name, box, escape(title), Markup("").join(parts)
    )
