"""The plot of benchmarks/crawl_size.py: what each stage takes, over the share of a crawl."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from benchmarks.crawl_size_report import Plain, alike, stages, value, whole_hours
from laion_etl.report.crawl_status import duration
from laion_etl.report.svg import line, path, svg, text

_COLOURS = ("#1f6f8b", "#c0504d", "#4f8f3a", "#8064a2", "#d08a2e", "#555555", "#2aa198", "#b5478f", "#7a5c2e")
_TICKS_S = (1, 10, 60, 600, 3_600, 36_000, 345_600, 3_456_000, 34_560_000)
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _BOTTOM, _TOP = 840.0, 400.0, 74.0, 170.0, 46.0, 14.0
_STYLE = "text{font:12px sans-serif;fill:#333}.end{text-anchor:end}.middle{text-anchor:middle}" + (
    ".grid{stroke:#ddd}.even{stroke:#bbb;stroke-dasharray:2 4}"
)


def plot(document: Plain) -> str:
    """Seconds of each stage over the share of a crawl, both logarithmic; dashed: on paper."""
    points = {stage: _points(document, stage) for stage in stages(document)}
    points = {stage: found for stage, found in points.items() if found}
    if not points:
        return str(svg((0, 0, _WIDTH, _HEIGHT), "No sizes are measured yet", (), "size"))
    everything = [point for found in points.values() for point in found]
    left = math.floor(math.log10(min(x for x, _ in everything)))
    shortest, longest = (edge(y for _, y in everything) for edge in (min, max))
    ticks = [tick for tick in _TICKS_S if shortest / 10 < tick < longest * 10]
    low, high = math.log10(ticks[0]), math.log10(ticks[-1])

    def at(x: float, y: float) -> tuple[float, float]:
        wide, tall = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _BOTTOM - _TOP
        return (
            _LEFT + wide * (math.log10(x) - left) / -left,
            _TOP + tall * (high - math.log10(y)) / (high - low),
        )

    shapes = [Markup(f"<style>{_STYLE}{_strokes()}</style>")]  # noqa: S704 - made of constants
    for tick in ticks:
        shapes.append(line("grid", at(10**left, tick), at(1, tick)))
        shapes.append(text(_short(tick), _LEFT - 8, at(1, tick)[1] + 4, "end"))
    for power in range(left, 1):
        shapes.append(text(f"{10**power:g}", at(10**power, 1)[0], _HEIGHT - _BOTTOM + 20, "middle"))
    for tick in ticks:  # the slope of proportional costs
        if tick * 10.0**-left <= ticks[-1]:
            shapes.append(line("even", at(10**left, tick), at(1, tick * 10.0**-left)))
    shapes.append(text("share of a crawl", (_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 6, "middle"))
    last_y = 0.0
    for number, (stage, found) in sorted(enumerate(points.items()), key=lambda one: -one[1][1][-1][1]):
        places = [at(*point) for point in found]
        shapes.append(path(f"s{number}", _line(places[:-1])))
        shapes.append(path(f"s{number} paper", _line(places[-2:])))
        last_y = max(places[-1][1] + 4, last_y + 14)  # labels do not overlap
        shapes.append(text(f"{stage}, {duration(found[-1][1])}", places[-1][0] + 6, last_y, f"t{number}"))
    return str(
        svg((0, 0, _WIDTH, _HEIGHT), "Seconds of each stage over the share of a crawl", shapes, "size")
    )


def _points(document: Plain, stage: str) -> list[tuple[float, float]]:
    """Share and seconds as measured, then of the whole crawl on the pods."""
    _, small, large = alike(document)
    found = []
    for run in (small, large):
        if run is not None and (seconds := value(run, stage, "seconds")):
            found.append((run["size"]["share"], seconds))
    hours = whole_hours(document, stage)[2]
    return [*found, (1.0, max(1.0, hours * 3600))] if hours and found else []


def _short(seconds: float) -> str:
    """Return a duration in one unit."""
    units = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
    size, unit = next(one for one in units if seconds >= one[0])
    return f"{seconds / size:g} {unit}"


def _line(places: Sequence[tuple[float, float]]) -> str:
    return "M" + " L".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _strokes() -> str:
    lines = "".join(
        f".s{number}{{stroke:{colour};stroke-width:2;fill:none}}text.t{number}{{fill:{colour}}}"
        for number, colour in enumerate(_COLOURS)
    )
    return lines + ".paper{stroke-dasharray:5 4}"
