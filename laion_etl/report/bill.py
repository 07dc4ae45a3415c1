"""What a crawl has cost so far, by stage: the usage records of its processes at the prices of the settings.

It includes what grows with a crawl: pods, requests of the bucket, and gigabytes through a NAT gateway. It
does not include what costs money whether or not a crawl runs (the database server, Airflow, the cluster
itself), nor monthly storage: docs/scaling.md.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from laion_etl.core.usage import Usage
from laion_etl.io.storage import Store
from laion_etl.io.usage_records import UsageReader, UsageRecord
from laion_etl.settings import Settings

_STAGES = ("parse", "load", "plan", "download", "score", "publish")
_GB = 1e9
_WHOLE_FROM = 100  # amounts in the table for the terminal have no decimals from here on


@dataclass(frozen=True, slots=True)
class Cost:
    """US dollars: of pods, of requests of the bucket, and of a NAT gateway."""

    pods: float = 0.0
    requests: float = 0.0
    nat: float = 0.0

    @property
    def total(self) -> float:
        return self.pods + self.requests + self.nat

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.pods + other.pods, self.requests + other.requests, self.nat + other.nat)

    def to_plain(self) -> dict[str, float]:
        """Return plain JSON values."""
        return {name: round(value, 4) for name, value in asdict(self).items()} | {
            "total": round(self.total, 4)
        }


@dataclass(frozen=True, slots=True)
class StageBill:
    """What a stage used and cost. `running`: processes at work; `per_hour`: what they cost in an hour."""

    stage: str
    processes: int
    running: int
    usage: Usage
    cost: Cost
    per_hour: float

    def to_plain(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "stage": self.stage,
            "processes": self.processes,
            "running": self.running,
            "per_hour": round(self.per_hour, 4),
            "usage": self.usage.to_plain(),
            "cost": self.cost.to_plain(),
        }


@dataclass(frozen=True, slots=True)
class Bill:
    """What a crawl used and cost."""

    crawl: str
    stages: tuple[StageBill, ...]

    @property
    def cost(self) -> Cost:
        return sum((one.cost for one in self.stages), Cost())

    @property
    def per_hour(self) -> float:
        return sum(one.per_hour for one in self.stages)

    def to_plain(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "currency": "USD",
            "stages": [one.to_plain() for one in self.stages],
            "cost": self.cost.to_plain(),
            "per_hour": round(self.per_hour, 4),
        }

    def as_table(self) -> Table:
        """Return a table with a line for each stage, of less than 80 characters for a whole crawl."""
        title = f"Cost so far: {self.cost.total:,.2f} USD, now {self.per_hour:,.2f} USD/h"
        table = Table(title=title, box=SIMPLE_HEAD, show_edge=False, padding=0)
        table.add_column("stage", no_wrap=True)
        headings = ("pods", "pod h", "CPU h", "GPU h", "web GB", "store GB", "requests", "USD", "USD/h")
        for heading in headings:
            table.add_column(heading, justify="right", overflow="fold")
        for one in self.stages:
            used = one.usage
            stored = used.store_bytes_sent + used.store_bytes_received
            hours = (_short(seconds / 3_600) for seconds in (used.pod_s, used.cpu_s, used.gpu_s))
            sizes = (_short(size / _GB) for size in (used.web_bytes, stored))
            requests = f"{used.store_writes + used.store_reads:,}"
            money = (_short(amount) for amount in (one.cost.total, one.per_hour))
            table.add_row(one.stage, f"{one.processes:,}", *hours, *sizes, requests, *money)
        return table


def _short(amount: float) -> str:
    """Format an amount: hundreds and more without decimals, for ten columns have to fit."""
    return f"{amount:,.2f}" if amount < _WHOLE_FROM else f"{amount:,.0f}"


def read_bill(crawl: str, settings: Settings, store: Store) -> Bill:
    """Return the bill of a crawl from its usage records. Raises StorageError."""
    return make_bill(crawl, UsageReader(crawl).records(store), settings)


def make_bill(crawl: str, records: Sequence[UsageRecord], settings: Settings) -> Bill:
    """Return the bill of records."""
    found = {record.stage for record in records}
    stages = [stage for stage in _STAGES if stage in found] + sorted(found.difference(_STAGES))
    bills = (_stage(stage, [one for one in records if one.stage == stage], settings) for stage in stages)
    return Bill(crawl, tuple(bills))


def cost_of(usage: Usage, settings: Settings) -> Cost:
    """Return what usage costs: a pod with GPUs by the GPU, others by the core, unless a pod has a price."""
    prices, pods = settings.prices, settings.kubernetes
    if usage.gpu_s:
        machines = usage.pod_s * pods.gpu_price_hour or usage.gpu_s * prices.gpu_hour
    else:
        machines = usage.pod_s * pods.price_hour or usage.core_s * prices.core_hour
    requests = usage.store_writes * prices.store_writes + usage.store_reads * prices.store_reads
    return Cost(machines / 3_600, requests / 1_000, usage.web_bytes / _GB * prices.nat_gb)


def _stage(stage: str, records: Sequence[UsageRecord], settings: Settings) -> StageBill:
    running = [one for one in records if one.running]
    return StageBill(
        stage,
        len(records),
        len(running),
        sum((one.usage for one in records), Usage()),
        sum((cost_of(one.usage, settings) for one in records), Cost()),
        sum(_per_hour(running, settings)),
    )


def _per_hour(records: Iterable[UsageRecord], settings: Settings) -> Iterable[float]:
    """Yield what each process costs in an hour, as it has worked since it began."""
    for one in records:
        if one.ran_s:
            yield cost_of(one.usage, settings).total * 3_600 / one.ran_s
