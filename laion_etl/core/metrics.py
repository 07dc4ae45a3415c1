"""Every metric that stages and download workers report, declared once.

The code that reports them and docs/metrics.md are made from these declarations; a test compares them with the
mappings of the StatsD exporter in docker/, which gives the metrics their names in Prometheus.
"""

from dataclasses import dataclass
from enum import StrEnum


class MetricType(StrEnum):
    """What a value means: added up, a time, or the present state."""

    COUNTER = "counter"
    TIMER = "timer"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric. `statsd`: its name, with the labels in braces; '' for one that is only in the text file."""

    statsd: str
    prometheus: str
    type: MetricType
    meaning: str
    labels: tuple[str, ...] = ()


STAGE_UNITS = Metric(
    "laion_etl.stage.{stage}.units",
    "laion_etl_stage_units_total",
    MetricType.COUNTER,
    "Units (partitions, batches, shards, datasets) that were finished.",
    ("stage",),
)
STAGE_INPUT = Metric(
    "laion_etl.stage.{stage}.input",
    "laion_etl_stage_input_total",
    MetricType.COUNTER,
    "Records that the finished units read.",
    ("stage",),
)
STAGE_KEPT = Metric(
    "laion_etl.stage.{stage}.kept",
    "laion_etl_stage_kept_total",
    MetricType.COUNTER,
    "Records that the finished units kept.",
    ("stage",),
)
STAGE_DURATION = Metric(
    "laion_etl.stage.{stage}.duration",
    "laion_etl_stage_duration_seconds",
    MetricType.TIMER,
    "Time from the beginning to the end of a unit; milliseconds in StatsD, a histogram in Prometheus.",
    ("stage",),
)
STAGE_DROPPED = Metric(
    "laion_etl.stage.{stage}.dropped.{reason}",
    "laion_etl_stage_dropped_total",
    MetricType.COUNTER,
    "Records that the finished units dropped, by reason.",
    ("stage", "reason"),
)
STAGE_METRICS = (STAGE_UNITS, STAGE_INPUT, STAGE_KEPT, STAGE_DURATION, STAGE_DROPPED)

DOWNLOAD_LINKS = Metric(
    "laion_etl_download.links.{status}",
    "laion_etl_download_links_total",
    MetricType.COUNTER,
    "Links that are done, by status: success or a drop reason.",
    ("status",),
)
DOWNLOAD_BYTES = Metric(
    "laion_etl_download.bytes",
    "laion_etl_download_bytes_total",
    MetricType.COUNTER,
    "Bytes of images kept.",
)
DOWNLOAD_IN_FLIGHT = Metric(
    "laion_etl_download.in_flight",
    "laion_etl_download_in_flight",
    MetricType.GAUGE,
    "Links in flight.",
)
DOWNLOAD_SECONDS = Metric(
    "",
    "laion_etl_download_seconds",
    MetricType.HISTOGRAM,
    "Time on the network of images kept, seconds.",
)
DOWNLOAD_METRICS = (DOWNLOAD_LINKS, DOWNLOAD_BYTES, DOWNLOAD_IN_FLIGHT, DOWNLOAD_SECONDS)
