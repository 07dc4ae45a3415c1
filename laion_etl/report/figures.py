"""The figures of the report, drawn from the statistics of a version: SVG for the page, PNG for papers."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from markupsafe import Markup

from laion_etl.blocklists.removal_requests import REASON as REMOVED
from laion_etl.core.quantities import quantity
from laion_etl.core.schemas import SUBSET_EN, SUBSET_MULTI, SUBSET_NOLANG
from laion_etl.dataset.funnel_report import FunnelRow
from laion_etl.dataset.subsets import SUBSET_HIGH_RESOLUTION
from laion_etl.dataset.variants import is_unsafe
from laion_etl.report import charts
from laion_etl.report.charts import Axis, Hexagon, Marker, Strip
from laion_etl.report.contents import ASPECT_EDGES
from laion_etl.report.publish_context import PublishContext
from laion_etl.report.sankey import Flow, Step, sankey
from laion_etl.report.statistics import (
    AESTHETIC_EDGES,
    BYTES_EDGES,
    CAPTION_EDGES,
    SHARE_EDGES,
    SIDE_LOG2,
    SIMILARITY_EDGES,
    Counts,
    Edges,
    language_name,
    similarity_quantile,
)
from laion_etl.report.templating import words

_BINS_PER_COLUMN = 4  # similarity: columns of 0.02
LANGUAGES_SHOWN = 16
_INPUT_TITLES = {
    "parse": "Image links",
    "load": "Pairs",
    "plan": "Unique pairs",
    "download": "Unique pairs",
    "score": "Images",
    "publish": "Kept samples",
}
_LAST_TITLES = {
    "parse": "Pairs",
    "load": "Unique pairs",
    "plan": "Planned pairs",
    "download": "Images",
    "score": "Published",
    "publish": "Published",
}
_PARTS = ((SUBSET_EN, "English"), (SUBSET_MULTI, "other languages"), (SUBSET_NOLANG, "no reliable language"))


def figures(context: PublishContext) -> dict[str, Markup]:
    """Return the drawings by name, without those of scores that were not computed."""
    statistics = context.statistics
    made = {"funnel": _funnel(context)}
    made |= {f"similarity-{group.lower()}": _similarity(context, group) for group in statistics.similarities}
    made["similarity-by-language"] = _by_language(context)
    made["resolution"] = _resolution(context)
    made["aspects"] = _aspects(statistics.contents.aspects)
    made["bytes"] = _logarithmic_axis(BYTES_EDGES, statistics.file_bytes, size, "file size")
    made["caption-length"] = _logarithmic_axis(
        CAPTION_EDGES, statistics.caption_chars, lambda value: f"{value:.0f}", "characters of the caption"
    )
    if statistics.aesthetic.sum():
        marker = Marker(context.settings.publish.aesthetic_min, "aesthetic subset from here")
        made["aesthetic"] = _linear_axis(AESTHETIC_EDGES, statistics.aesthetic, "aesthetic score", [marker])
    for name, title in (("punsafe", "unsafe score"), ("pwatermark", "watermark score")):
        counts: Counts = getattr(statistics, name)
        if counts.sum():
            made[name] = _linear_axis(SHARE_EDGES, counts, title, [])
    return made


def kind(reason: str) -> str:
    """Return the CSS class that colours a drop reason."""
    if reason.startswith("opted_out") or reason == REMOVED:
        return "opted-out"
    if "duplicate" in reason:
        return "duplicate"
    if is_unsafe(reason):
        return "unsafe"
    return "lost"


def size(count: float) -> str:
    """Format a number of bytes."""
    return f"{count / 2**20:.3g} MiB" if count >= 2**20 else f"{count / 2**10:.3g} KiB"


def _funnel(context: PublishContext) -> Markup:
    started = context.funnel.started_rows
    rows = [row for row in started if row.dropped or row.stage not in ("plan", "publish")]
    rows_of = context.statistics.subset_rows
    parts = [Flow(title, rows_of.get(name, 0), "flow-kept") for name, title in _PARTS]
    last = started[-1].stage if started else ""
    return sankey(
        [_step(row) for row in rows],
        _LAST_TITLES.get(last, ""),
        [part for part in parts if part.count] if last in ("score", "publish") else [],
    )


def _step(row: FunnelRow) -> Step:
    counts = {r: n for r, n in row.dropped.items() if not r.startswith("opted_out")}
    if opted_out := sum(row.dropped.values()) - sum(counts.values()):
        counts["opted_out"] = opted_out
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    dropped = [Flow(words(reason), count, kind(reason)) for reason, count in ordered]
    return Step(row.stage, _INPUT_TITLES[row.stage], row.input, row.kept, dropped)


def _similarity(context: PublishContext, group: str) -> Markup:
    found = context.statistics.similarities[group]
    kept, rejected = _columns(found.kept), _columns(found.rejected)
    axis = _similarity_axis(context)
    first = round((axis.edges[0] + 1) * 50)
    bins = slice(first, first + len(axis.edges) - 1)
    return charts.histogram(
        axis,
        [("kept", kept[bins].tolist()), ("rejected", rejected[bins].tolist())],
        [Marker(value, f"threshold {value:g}") for value in sorted(found.thresholds)],
        f"Similarity of image and text, {group} captions: kept and rejected samples",
    )


def _columns(counts: Counts) -> Counts:
    summed: Counts = counts.reshape(-1, _BINS_PER_COLUMN).sum(axis=1)
    return summed


def _similarity_axis(context: PublishContext) -> Axis:
    """Return the part of the axis with samples of any language, the same for all drawings."""
    found = context.statistics.similarities.values()
    filled = np.flatnonzero(sum(_columns(group.kept + group.rejected) for group in found))
    first, last = (int(filled[0]), int(filled[-1]) + 1) if filled.size else (50, 75)
    edges = SIMILARITY_EDGES[::_BINS_PER_COLUMN][max(0, first - 1) : last + 2]
    step = next(step for step in (0.05, 0.1, 0.2, 0.25) if edges[-1] - edges[0] <= 8 * step)
    ticks = [round(i * step, 2) for i in range(-20, 21) if edges[0] <= i * step <= edges[-1]]
    return Axis(
        edges.tolist(),
        [(tick, f"{tick:g}") for tick in ticks],
        "similarity",
        lambda index: f"{edges[index]:.2f} to {edges[index + 1]:.2f}",
    )


def _by_language(context: PublishContext) -> Markup:
    statistics, axis = context.statistics, _similarity_axis(context)
    first = round((axis.edges[0] + 1) * 50)
    rows = []
    for code, _ in statistics.languages.top(LANGUAGES_SHOWN):
        counts = statistics.language_similarities.get(code)
        if counts is not None:
            shown = _columns(counts)[first : first + len(axis.edges) - 1]
            name = "none" if language_name(code) != code else code[:14]
            rows.append(Strip(name, shown.tolist(), similarity_quantile(counts, 0.5)))
    return charts.strips(axis, rows, "Similarity of published pairs by language, with the median of each")


def _resolution(context: PublishContext) -> Markup:
    """Draw the part of the plane that has images, on logarithmic axes."""
    grid = context.statistics.sides
    found = list(grid.cells())
    places = [place for x, y, _ in found for place in (x, y)] or [8.0, 11.0]
    low = max(SIDE_LOG2[0], np.floor(min(places) - grid.width / 2))
    high = min(SIDE_LOG2[1], np.floor(max(places)) + 1)
    cells = [
        Hexagon(x, y, count, f"about {2**x:,.0f} x {2**y:,.0f} px: {quantity(count, 'image')}")
        for x, y, count in found
    ]
    return charts.hexagons(
        cells,
        grid.width,
        [(float(power), f"{2**power:g}") for power in np.arange(low, high + 0.5)],
        (
            float(np.log2(max(1, context.settings.publish.high_resolution_px))),
            f"high resolution: {context.statistics.subset_rows.get(SUBSET_HIGH_RESOLUTION, 0):,}",
        ),
        "Published images by width and height in pixels, both logarithmic",
    )


def _aspects(counts: Counts) -> Markup:
    ticks = [(float(power), f"1:{2**-power}" if power < 0 else f"{2**power}:1") for power in range(-3, 4)]
    names = [f"{2**edge:.2f}" for edge in ASPECT_EDGES]
    axis = Axis(ASPECT_EDGES.tolist(), ticks, "width : height", partial(_bin, names))
    return charts.histogram(axis, [("kept", counts.tolist())], [], "Published samples by width : height")


def _logarithmic_axis(edges: Edges, counts: Counts, name: Callable[[float], str], title: str) -> Markup:
    places = [float(place) for place in range(len(edges))]
    ticks = [(place, name(edges[int(place)])) for place in places[::4]]
    axis = Axis(places, ticks, title, partial(_bin, [name(edge) for edge in edges]))
    return charts.histogram(axis, [("kept", counts.tolist())], [], f"Published samples by {title}")


def _linear_axis(edges: Edges, counts: Counts, title: str, markers: Sequence[Marker]) -> Markup:
    ticks = [(float(edge), f"{edge:g}") for edge in np.linspace(edges[0], edges[-1], 6)]
    axis = Axis(edges.tolist(), ticks, title, partial(_bin, [f"{edge:g}" for edge in edges]))
    series = [("kept", counts.tolist())]
    return charts.histogram(axis, series, markers, f"Published samples by {title}", charts.logarithmic)


def _bin(names: Sequence[str], index: int) -> str:
    return f"{names[index]} to {names[index + 1]}"
