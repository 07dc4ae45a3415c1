"""The plot of benchmarks/crawl_size.py: what each stage takes, over the share of a crawl."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from benchmarks.crawl_size_report import Plain, alike, stages, value, whole_hours
from laion_etl.report.crawl_status import duration
from laion_etl.report.svg import line, path, svg, text

_COLOURS = ("#1f6f8b", "#c0504d", "#4f8f3a", "#8064a2", "#d08a2e", "#555555", "#2aa198", "#b5478f")
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _BOTTOM, _TOP = 760.0, 400.0, 62.0, 110.0, 46.0, 14.0
_STYLE = "text{font:12px sans-serif;fill:#333}.end{text-anchor:end}.middle{text-anchor:middle}" + (
    ".grid{stroke:#ddd}.even{stroke:#bbb;stroke-dasharray:2 4}"
)


def plot(document: Plain) -> str:
    """Seconds of each stage over the share of a crawl, both logarithmic; dashed: on paper."""
    points = {stage: _points(document, stage) for stage in stages(document)}
    points = {stage: found for stage, found in points.items() if found}
    everything = [point for found in points.values() for point in found]
    left = math.floor(math.log10(min(x for x, _ in everything)))
    low, high = (math.log10(edge(y for _, y in everything)) for edge in (min, max))
    low, high = math.floor(low), math.ceil(high)

    def at(x: float, y: float) -> tuple[float, float]:
        wide, tall = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _BOTTOM - _TOP
        return (
            _LEFT + wide * (math.log10(x) - left) / -left,
            _TOP + tall * (high - math.log10(y)) / (high - low),
        )

    shapes = [Markup(f"<style>{_STYLE}{_strokes()}</style>")]  # noqa: S704 - made of constants
    for power in range(low, high + 1):
        shapes.append(line("grid", at(10**left, 10**power), at(1, 10**power)))
        shapes.append(text(duration(10**power), _LEFT - 8, at(1, 10**power)[1] + 4, "end"))
    for power in range(left, 1):
        shapes.append(text(f"{10**power:g}", at(10**power, 1)[0], _HEIGHT - _BOTTOM + 20, "middle"))
    for start in range(low - high, high - low):  # the slope of proportional costs
        ends = [(10**left, 10.0 ** (low + start)), (1.0, 10.0 ** (low + start - left))]
        if ends[0][1] >= 10**low and ends[1][1] <= 10**high:
            shapes.append(line("even", at(*ends[0]), at(*ends[1])))
    shapes.append(text("share of a crawl", (_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 6, "middle"))
    taken: list[float] = []
    for number, (stage, found) in enumerate(points.items()):
        places = [at(*point) for point in found]
        shapes.append(path(f"s{number}", _line(places[:-1] or places)))
        shapes.append(path(f"s{number} paper", _line(places[-2:])))
        y = places[-1][1] + 4
        while any(abs(y - other) < 13 for other in taken):
            y += 13
        taken.append(y)
        shapes.append(text(f"{stage}, {duration(found[-1][1])}", places[-1][0] + 6, y, f"t{number}"))
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


def _line(places: Sequence[tuple[float, float]]) -> str:
    return "M" + " L".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _strokes() -> str:
    lines = "".join(
        f".s{number}{{stroke:{colour};stroke-width:2;fill:none}}text.t{number}{{fill:{colour}}}"
        for number, colour in enumerate(_COLOURS)
    )
    return lines + ".paper{stroke-dasharray:5 4}"
