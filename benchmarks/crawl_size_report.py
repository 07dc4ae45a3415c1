"""The figures of benchmarks/crawl_size.py as tables and a plot, and what they mean for a whole crawl."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.crawl_rig import Cost
from laion_etl.report.crawl_status import duration

PODS = dict.fromkeys(("load", "plan", "publish", "locate", "removal"), 16)
SERVER_CORES = 32
DIVIDED = ("partitions", "ranges", "publish ranges")
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


def runs_of(document: Plain) -> Sequence[Plain]:
    """The measured sizes."""
    found: Sequence[Plain] = document.get("sizes", {}).get("runs", ())
    return found


def alike(document: Plain) -> tuple[Plain | None, Plain, Plain | None]:
    """The smaller size with all rows if the others are thin; the smaller and the larger size alike."""
    runs = document["sizes"]["runs"]
    thin = runs[-1]["size"]["thin"]
    same = [run for run in runs if run["size"]["thin"] == thin]
    whole = runs[0] if thin > 1 else None
    return whole, same[0], same[-1] if len(same) > 1 else None


def value(run: Plain | None, stage: str, metric: str, parts: Sequence[str] | None = None) -> float | None:
    """A metric of a stage, of some of its parts; None if it was not measured."""
    costs = run["parts"].get(stage) if run else None
    if not costs:
        return None
    chosen = [cost for name, cost in costs.items() if parts is None or name in parts]
    return float(added(chosen).get(metric, 0)) if chosen else 0.0


def full(document: Plain, stage: str, metric: str, parts: Sequence[str] | None = None) -> float | None:
    """A metric for a whole crawl: what a further share costs, and what rows cost that thin sizes lack.

    None if only one size was measured: the start of processes, multiplied, would dominate the result.
    """
    whole, small, large = alike(document)
    first, second = (value(run, stage, metric, parts) for run in (small, large))
    share = small["size"]["share"]
    if first is None or second is None or large is None:
        return None
    slope = max(0.0, second - first) / (large["size"]["share"] - share)
    of_rows = 0.0
    if whole is not None and (rows := value(whole, stage, metric, parts)) is not None:
        of_rows = max(0.0, rows - first) / share
    return float(first + slope * (1 - share) + of_rows)


def ratio(document: Plain, stage: str, metric: str) -> float | None:
    """How much a metric grew from the smaller to the larger size, per unit: 1 is proportional."""
    _, small, large = alike(document)
    first, second = (value(run, stage, metric) for run in (small, large))
    if large is None or not first or second is None or second < _LEAST:
        return None
    return float(second / first / (large["size"]["share"] / small["size"]["share"]))


def stages(document: Plain) -> list[str]:
    """The stages that were measured, in their order."""
    return list(dict.fromkeys(stage for run in runs_of(document) for stage in run["parts"]))


def measured_rows(document: Plain) -> Rows:
    """One row per stage, part and size."""
    rows = []
    for stage in stages(document):
        for run in runs_of(document):
            for part, cost in run["parts"].get(stage, {}).items():
                rows.append([stage, part, _size(run), *_figures(cost)])
            if stage in run["left_out"]:
                rows.append([stage, "", _size(run), "left out: no time", *[""] * 10])
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
            for run in runs_of(document)
            if stage in run["parts"]
        )
        rows.append(
            [
                stage,
                *("" if one is None else f"{one:.2f}" + (" !" if one > GROWS else "") for one in growth),
                "" if cpu is None else f"{cpu / 3600:,.1f}",
                str(PODS.get(stage, 1) if divided else 1),
                *("" if one is None else duration(one * 3600) for one in (alone, divided, hours)),
                f"{memory / 2**20:,.0f}",
            ]
        )
    return rows


def whole_hours(document: Plain, stage: str) -> tuple[float | None, float | None, float | None]:
    """Hours of a whole crawl: of the parts that run alone, of the divided ones on all pods, and together.

    What is divided cannot be faster than the cores of the database server.
    """
    names = {part for run in runs_of(document) for part in run["parts"].get(stage, {})}
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
    if "sizes" in document:
        yield f"Measured ({_about(document['sizes'])})", MEASURED, measured_rows(document)
        title = (
            "Cost per unit at the larger size, of that at the smaller one (1: proportional); the whole crawl"
        )
        yield title, PAPER, paper_rows(document)
    if found := document.get("crawls"):
        title = f"Crawls one after the other in one database, {found['share']:g} of a crawl each"
        yield f"{title} ({_about(found)})", CRAWLS, crawl_rows(document)


def _about(found: Plain) -> str:
    low, high = found["delay_ms"]
    cores = f"{found['cores']} cores for everything, load {found['load']:g} before"
    busy = (
        ": a busy machine, on which seconds and hours are too many" if found["load"] > found["cores"] else ""
    )
    return f"{found['date']}; {cores}{busy}; S3 answers after {low:g} to {high:g} ms"


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


def recorded() -> dict[str, Any]:
    """Return what was recorded last."""
    found: dict[str, Any] = json.loads(_JSON.read_text()) if _JSON.exists() else {}
    return found


def record(document: Plain, plot: str) -> None:
    """Write JSON, plot, and the tables of docs/scaling.md."""
    _JSON.write_text(json.dumps(document, indent=1) + "\n")
    _PLOT.write_text(plot)
    before, _, rest = _PAGE.read_text().partition(_BEGIN)
    _, _, after = rest.partition(_END)
    _PAGE.write_text(f"{before}{_BEGIN}\n\n{markdown(document)}\n{_END}{after}")


def markdown(document: Plain) -> str:
    """The tables of the page."""
    blocks = []
    if runs := runs_of(document):
        sizes = (f"{_size(run)} ({run['pairs']:,} pairs, {run['batches']:,} batches)" for run in runs)
        blocks.append(f"Sizes: {'; '.join(sizes)}.")
    for title, headings, rows in tables(document):
        text_of = [headings, [":---" if number == 0 else "---:" for number in range(len(headings))], *rows]
        blocks.append(f"{title}:")
        blocks.append("\n".join(f"| {' | '.join(row)} |" for row in text_of))
    if "airflow" in document:
        blocks.append(f"{airflow_line(document)} ({_about(document['airflow'])}).")
    return "\n\n".join(blocks) + "\n"
