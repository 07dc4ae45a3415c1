"""The figures of benchmarks/crawl_size.py as tables and a plot, and what they mean for a whole crawl."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.console import Console
from rich.table import Table

from benchmarks.crawl_rig import Cost
from laion_etl.report.crawl_status import duration
from laion_etl.report.svg import line, path, svg, text

PODS = {"load": 16, "plan": 16, "publish": 16}
SERVER_CORES = 32
DIVIDED = ("partitions", "ranges")
GROWS = 1.15  # of proportional
_LEAST = 1.0  # seconds or requests: what is less says nothing about growth
_ROOT = Path(__file__).parents[1]
_PAGE, _JSON = _ROOT / "docs" / "scaling.md", _ROOT / "benchmarks" / "crawl-size.json"
_PLOT = _ROOT / "docs" / "images" / "crawl-size.svg"
_BEGIN, _END = "<!-- crawl-size -->", "<!-- end of crawl-size -->"
_LARGEST = ("longest_s", "rss_bytes")

Plain = Mapping[str, Any]
Rows = list[list[str]]


def added(costs: Iterable[Cost | Plain]) -> dict[str, float]:
    """The cost of several parts together: sums, and the largest memory."""
    total: dict[str, float] = {}
    for cost in costs:
        for name, value in (asdict(cost) if isinstance(cost, Cost) else cost).items():
            before = total.get(name, 0)
            total[name] = max(before, value) if name in _LARGEST else before + value
    return total


def _pair(document: Plain) -> tuple[Plain | None, Plain, Plain | None]:
    """The smaller size with all rows if the others are thin; the smaller and the larger size alike."""
    runs = document["runs"]
    thin = runs[-1]["size"]["thin"]
    alike = [run for run in runs if run["size"]["thin"] == thin]
    whole = runs[0] if thin > 1 else None
    return whole, alike[0], alike[-1] if len(alike) > 1 else None


def _value(run: Plain | None, stage: str, metric: str, parts: Sequence[str] | None = None) -> float | None:
    """A metric of a stage, of some of its parts; None if it was not measured."""
    costs = run["parts"].get(stage) if run else None
    if not costs:
        return None
    chosen = [cost for name, cost in costs.items() if parts is None or name in parts]
    return float(added(chosen).get(metric, 0)) if chosen else 0.0


def full(document: Plain, stage: str, metric: str, parts: Sequence[str] | None = None) -> float | None:
    """A metric for a whole crawl: what a further share costs, and what rows cost that thin sizes lack."""
    whole, small, large = _pair(document)
    first, second = (_value(run, stage, metric, parts) for run in (small, large))
    share = small["size"]["share"]
    if first is None:
        return None
    if second is None or large is None:
        found = _value(whole, stage, metric, parts) if whole else first
        return None if found is None else found / share
    slope = max(0.0, second - first) / (large["size"]["share"] - share)
    of_rows = 0.0
    if whole is not None and (rows := _value(whole, stage, metric, parts)) is not None:
        of_rows = max(0.0, rows - first) / share
    return first + slope * (1 - share) + of_rows


def ratio(document: Plain, stage: str, metric: str) -> float | None:
    """How much a metric grew from the smaller to the larger size, per unit: 1 is proportional."""
    _, small, large = _pair(document)
    first, second = (_value(run, stage, metric) for run in (small, large))
    if large is None or not first or second is None or second < _LEAST:
        return None
    return second / first / (large["size"]["share"] / small["size"]["share"])


def stages(document: Plain) -> list[str]:
    """The stages that were measured, in their order."""
    return list(dict.fromkeys(stage for run in document["runs"] for stage in run["parts"]))


def measured_rows(document: Plain) -> Rows:
    """One row per stage, part and size."""
    rows = []
    for stage in stages(document):
        for run in document["runs"]:
            for part, cost in run["parts"].get(stage, {}).items():
                rows.append([stage, part, _size(run), *_figures(cost)])
            if stage in run["left_out"]:
                rows.append([stage, "", _size(run), "left out: no time", *[""] * 9])
    return rows


MEASURED = (
    "stage", "part", "size", "processes", "seconds", "CPU s", "MiB", "requests", "MB sent", "MB read",
    "rows written", "rows read", "log MB", "Postgres CPU s",
)  # fmt: skip


def _figures(cost: Plain) -> list[str]:
    return [
        f"{cost['processes']:,}",
        f"{cost['seconds']:,.1f}",
        f"{cost['cpu_s']:,.1f}",
        f"{cost['rss_bytes'] / 2**20:,.0f}",
        f"{cost['requests']:,}",
        f"{cost['s3_in_bytes'] / 1e6:,.1f}",
        f"{cost['s3_out_bytes'] / 1e6:,.1f}",
        f"{cost['pg_written']:,}",
        f"{cost['pg_read']:,}",
        f"{cost['pg_wal_bytes'] / 1e6:,.1f}",
        f"{cost['pg_cpu_s']:,.1f}",
    ]


def _size(run: Plain) -> str:
    thin = run["size"]["thin"]
    return f"{run['size']['share']:g}" + (f", 1/{thin} of the rows" if thin > 1 else "")


PAPER = (
    "stage", "CPU", "requests", "Postgres CPU", "seconds", "CPU hours", "pods", "alone", "divided", "hours",
    "MiB",
)  # fmt: skip


def paper_rows(document: Plain) -> Rows:
    """Growth per unit (1: proportional) of each stage, and the whole crawl on paper."""
    rows = []
    for stage in stages(document):
        growth = [ratio(document, stage, metric) for metric in ("cpu_s", "requests", "pg_cpu_s", "seconds")]
        cpu = full(document, stage, "cpu_s")
        alone, divided, hours = whole_hours(document, stage)
        memory = max(
            added(run["parts"][stage].values())["rss_bytes"]
            for run in document["runs"]
            if stage in run["parts"]
        )
        rows.append(
            [
                stage,
                *("" if one is None else f"{one:.2f}" + (" !" if one > GROWS else "") for one in growth),
                "" if cpu is None else f"{cpu / 3600:,.1f}",
                str(PODS.get(stage, 1)),
                *("" if one is None else duration(one * 3600) for one in (alone, divided, hours)),
                f"{memory / 2**20:,.0f}",
            ]
        )
    return rows


def whole_hours(document: Plain, stage: str) -> tuple[float | None, float | None, float | None]:
    """Hours of a whole crawl: of the parts that run alone, of the divided ones on all pods, and together.

    What is divided cannot be faster than the cores of the database server.
    """
    names = {part for run in document["runs"] for part in run["parts"].get(stage, {})}
    serial = full(document, stage, "seconds", [name for name in names if name not in DIVIDED])
    spread = full(document, stage, "process_s", DIVIDED)
    server = full(document, stage, "pg_cpu_s", DIVIDED)
    if serial is None or spread is None or server is None:
        return None, None, None
    divided = max(spread / PODS.get(stage, 1), server / SERVER_CORES)
    return serial / 3600, divided / 3600, (serial + divided) / 3600


CRAWLS = ("crawl", "pairs", "load s", "load CPU s", "load Postgres CPU s", "plan s", "plan CPU s", "requests")


def crawl_rows(document: Plain) -> Rows:
    """One row per crawl in the same database."""
    return [
        [
            str(row["crawl"]),
            f"{row['pairs']:,}",
            f"{row['load']['seconds']:.1f}",
            f"{row['load']['cpu_s']:.1f}",
            f"{row['load']['pg_cpu_s']:.1f}",
            f"{row['plan']['seconds']:.1f}",
            f"{row['plan']['cpu_s']:.1f}",
            f"{row['load']['requests'] + row['plan']['requests']:,}",
        ]
        for row in document.get("crawls", {}).get("rows", ())
    ]


def airflow_line(document: Plain) -> str:
    """What Airflow itself takes of a divided stage of an hour."""
    found = document["airflow"]
    each = found["seconds"] / found["tasks"]
    return (
        f"{found['tasks']} mapped tasks that do nothing take Airflow {found['seconds']:.0f} s, "
        f"{each:.2f} s each ({found['all of Airflow, CPU s a task']:.2f} CPU s): "
        f"{found['seconds'] / 3600:.2%} of a stage of an hour"
    )


def tables(document: Plain) -> Iterator[tuple[str, Sequence[str], Rows]]:
    """Title, headings and rows of each table."""
    yield "Measured", MEASURED, measured_rows(document)
    yield (
        "Cost per unit at the larger size, of the smaller one (1: proportional), and a whole crawl",
        PAPER,
        (paper_rows(document)),
    )
    if document.get("crawls"):
        share = document["crawls"]["share"]
        yield (
            f"Crawls one after the other in one database, {share:g} of a crawl each",
            CRAWLS,
            crawl_rows(document),
        )


def show(document: Plain) -> None:
    """Print the tables."""
    console = Console(width=200)
    for title, headings, rows in tables(document):
        table = Table(*headings, title=title)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    if "airflow" in document:
        console.print(airflow_line(document), highlight=False)


def record(document: Plain) -> None:
    """Write JSON, plot, and the tables of docs/scaling.md."""
    _JSON.write_text(json.dumps(document, indent=1) + "\n")
    _PLOT.write_text(plot(document))
    before, _, rest = _PAGE.read_text().partition(_BEGIN)
    _, _, after = rest.partition(_END)
    _PAGE.write_text(f"{before}{_BEGIN}\n\n{markdown(document)}\n{_END}{after}")


def markdown(document: Plain) -> str:
    """The tables of the page."""
    sizes = "; ".join(
        f"{_size(run)} ({run['pairs']:,} parsed pairs, {run['batches']:,} batches)"
        for run in document["runs"]
    )
    low, high = document["delay_ms"]
    blocks = [
        f"Measured on {document['date']}, {document['cores']} cores for everything, load "
        f"{document['load']:.1f} at the start, S3 requests of {low:g} to {high:g} ms. Sizes: {sizes}."
    ]
    for title, headings, rows in tables(document):
        text_of = [headings, [":---" if number == 0 else "---:" for number in range(len(headings))], *rows]
        blocks.append(f"{title}:")
        blocks.append("\n".join(f"| {' | '.join(row)} |" for row in text_of))
    if "airflow" in document:
        blocks.append(f"{airflow_line(document)}.")
    return "\n\n".join(blocks) + "\n"


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
    _, small, large = _pair(document)
    found = []
    for run in (small, large):
        if run is not None and (seconds := _value(run, stage, "seconds")):
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
