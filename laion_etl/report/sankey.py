"""The funnel as a Sankey diagram: kept records flow right, dropped records flow down to their reason.

Band thickness is proportional to counts. The reasons of a stage are below what it keeps and left of the next
stage, so no band crosses another or a label.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from laion_etl.core.quantities import quantity
from laion_etl.report.svg import amount, path, rect, svg, text

HEIGHT = 236.0  # of the widest node, SVG units
_NODE_WIDTH = 11.0
_TOP = 52.0  # room for the labels above the nodes
_REACH = 64.0  # from a node to its reasons
_WIDTH = 234.0  # of a stage that drops something
_WIDTH_NARROW = 112.0
_LINE = 33.0  # minimum distance between two reasons: a label has two lines
_GAP = 26.0  # between what is kept and the first reason
_MAX_REASONS = 6  # reasons of a stage; the last one adds up the rest
_THINNEST = 1.0


@dataclass(frozen=True, slots=True)
class Flow:
    """A named part of what a node holds; `kind` is the class that colours it."""

    label: str
    count: int
    kind: str


@dataclass(frozen=True, slots=True)
class Step:
    """A stage: what came in, what went on, and the rest by reason (most frequent first)."""

    stage: str
    title: str
    input: int
    kept: int
    dropped: Sequence[Flow]


def sankey(steps: Sequence[Step], last: str, parts: Sequence[Flow]) -> Markup:
    """Draw the flow of records from left to right.

    `last` names the node at the right end, which has what the last step kept; it falls into `parts`.
    """
    whole = max((step.input for step in steps), default=0)
    scale = HEIGHT / max(1, whole)
    drawn: list[Markup] = []
    x, bottom = 4.0, _TOP + HEIGHT
    for step in steps:
        width = _WIDTH if step.dropped else _WIDTH_NARROW
        column = _Column(x, scale, whole)
        drawn += column.node(step.title, step.input)
        drawn.append(column.kept(step, width))
        drawn += column.fan(_summed(step.dropped), step.kept, f"of {step.input:,} in {step.stage}")
        bottom = max(bottom, column.bottom)
        x += width
    end = steps[-1].kept if steps else 0
    column = _Column(x, scale, whole)
    drawn += column.node(last, end)
    drawn += column.fan(parts, None, f"of {end:,} {last.lower()}")
    bottom = max(bottom, column.bottom)
    title = "Records left after each stage, and why the others were dropped"
    return svg((0, 0, x + 218, bottom + 8), title, drawn, "funnel")


def _summed(flows: Sequence[Flow]) -> list[Flow]:
    """Limit the reasons shown: only the smallest ones of the kind with the most reasons are summed up."""
    if len(flows) <= _MAX_REASONS:
        return list(flows)
    ((largest_kind, _),) = Counter(flow.kind for flow in flows).most_common(1)
    common = [flow for flow in flows if flow.kind == largest_kind]
    room = max(1, _MAX_REASONS - 1 - (len(flows) - len(common)))
    rest = common[room:]
    if len(rest) < 2:
        return list(flows)
    more = Flow(quantity(len(rest), "more reason"), sum(flow.count for flow in rest), largest_kind)
    return [*(flow for flow in flows if flow not in rest), more]


class _Column:
    """What is drawn at one stage; `bottom` is the lowest line used."""

    def __init__(self, x: float, scale: float, whole: int) -> None:
        self._x = x
        self._scale = scale
        self._whole = whole
        self.bottom = _TOP

    def node(self, title: str, count: int) -> Iterator[Markup]:
        yield rect("node", self._x, _TOP, _NODE_WIDTH, self._thick(count), f"{title}: {count:,}")
        yield text(title, self._x, _TOP - 29, "label")
        yield amount(count, self._whole, self._x, _TOP - 10, "number")

    def kept(self, step: Step, width: float) -> Markup:
        if not step.kept:
            return Markup("")
        tip = f"kept by {step.stage}: {step.kept:,} of {step.input:,} ({step.kept / step.input:.1%})"
        start = self._x + _NODE_WIDTH
        return rect("band flow-kept", start, _TOP, width - _NODE_WIDTH, self._thick(step.kept), tip)

    def fan(self, flows: Sequence[Flow], above: int | None, of: str) -> Iterator[Markup]:
        """Bands to the parts, below what is kept (`above`), or from the top when that is None."""
        leaves = _TOP + (self._thick(above) if above else 0.0)
        total = sum(flow.count for flow in flows)
        y = _TOP if above is None else leaves + _GAP
        for flow in flows:
            thick = self._thick(flow.count)
            place = y + max(0.0, (_LINE - thick) / 2)
            tip = f"{flow.label}: {flow.count:,} {of} ({flow.count / max(1, total):.1%} of these)"
            yield self._band(flow.kind, leaves, place, thick, tip)
            sink = self._x + _NODE_WIDTH + _REACH
            yield rect(f"sink {flow.kind}", sink, place, 7, thick, tip)
            middle = place + thick / 2
            yield amount(flow.count, self._whole, sink + 13, middle - 2, "count")
            yield text(flow.label, sink + 13, middle + 12, "reason")
            leaves += flow.count * self._scale
            y += max(thick + 8, _LINE)
        self.bottom = max(self.bottom, y)

    def _band(self, kind: str, top: float, place: float, thick: float, tip: str) -> Markup:
        left = self._x + _NODE_WIDTH
        right, turn = left + _REACH, left + _REACH * 0.55
        outline = (
            f"M{left:.1f},{top:.1f} C{turn:.1f},{top:.1f} {turn:.1f},{place:.1f} {right:.1f},{place:.1f} "
            f"V{place + thick:.1f} C{turn:.1f},{place + thick:.1f} {turn:.1f},{top + thick:.1f} "
            f"{left:.1f},{top + thick:.1f} Z"
        )
        return path(f"band {kind}", outline, tip)

    def _thick(self, count: int) -> float:
        return max(_THINNEST, count * self._scale)
