"""Makes docs/metrics.md from the metrics and alerts that are declared: `make docs`."""

from collections.abc import Iterable
from pathlib import PurePosixPath

from laion_etl.alerts.alert import PAGES, Kind
from laion_etl.core.metrics import DOWNLOAD_METRICS, STAGE_METRICS, Metric

_HEAD = """# Metrics and alerts

*For operators who watch crawls with Prometheus, StatsD or a log collector, or handle alerts.
Made by `make docs`.*

Metrics are sent where a setting says so; alerts are always in the log of the task.
"""
_STAGES = """## Metrics of stages

Each process of a stage sends them to the StatsD server at `LAION_ETL_STATSD`, once for each unit that it
finishes; a unit that was done before is not counted again. `LAION_ETL_STATSD_TAGS` adds the tags `crawl` and
`run`, which become labels. The log has the same as one line: `stage=... crawl=... unit=... seconds=...
input=... kept=...` and the reasons. Drop reasons are in [the formats](formats.md).
"""
_DOWNLOAD = """## Metrics of download workers

A download worker sends them to the same server, and writes them to the Prometheus text file
`LAION_ETL_DOWNLOAD_METRICS_FILE` for node_exporter's textfile collector, at most every five seconds. Those
without a name in StatsD are in the file only.
"""
_ALERTS = """## Alerts

| kind | when |
|---|---|
"""
_PAGES = """
An alert about late work names [progress](how-to/progress.md). An alert of a failure, and the digest of a
run that failed, name the page that helps:

| task of | page |
|---|---|
"""
_END = """
Next: [setting up alerts](how-to/alerts.md), [Prometheus on Kubernetes](kubernetes.md#metrics).
"""


def reference() -> str:
    """Return the page."""
    pages: dict[str, list[str]] = {}
    for stage, page in PAGES.items():
        pages.setdefault(page, []).append(f"`{stage}`")
    return (
        f"{_HEAD}\n{_STAGES}\n{_table(STAGE_METRICS)}\n{_DOWNLOAD}\n{_table(DOWNLOAD_METRICS)}\n{_ALERTS}"
        + "".join(f"| {kind.value} | {kind.sentence} |\n" for kind in Kind)
        + _PAGES
        + "".join(f"| {', '.join(stages)} | {_link(page)} |\n" for page, stages in pages.items())
        + _END
    )


def _table(metrics: Iterable[Metric]) -> str:
    head = "| name in StatsD | in Prometheus | labels | type | meaning |\n|---|---|---|---|---|\n"
    return head + "".join(map(_row, metrics))


def _row(metric: Metric) -> str:
    statsd = f"`{metric.statsd}`" if metric.statsd else ""
    cells = (
        statsd,
        f"`{metric.prometheus}`",
        ", ".join(metric.labels),
        metric.type,
        metric.meaning,
    )
    return f"| {' | '.join(cells)} |\n"


def _link(page: str) -> str:
    path = PurePosixPath(page)
    return f"[{path.stem.replace('-', ' ')}]({path.relative_to('docs')})"


if __name__ == "__main__":
    print(reference(), end="")
