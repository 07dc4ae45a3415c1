"""Settings of prices, by which used resources become money."""

from dataclasses import dataclass
from typing import ClassVar

from laion_etl.settings.fields import Group, setting


@dataclass(frozen=True, slots=True)
class PricesSettings(Group):
    """US dollars, for `status`, `estimate`, the dashboard and (if wanted) the card.

    The defaults are list prices of AWS in us-east-1 of June 2026, without discounts (aws.amazon.com: EC2
    on-demand, S3 and VPC pricing); spot instances cost about a third of on-demand. Set your own.
    """

    GROUP: ClassVar[str] = "prices"

    core_hour: float = setting(
        0.0425,
        "A core with 2 GB of memory (c6i on demand), where LAION_ETL_KUBERNETES_PRICE_HOUR is not set.",
        changes=None,
        unit="USD/h",
        minimum=0,
    )
    gpu_hour: float = setting(
        1.006,
        "A GPU with its share of the cores (g5.xlarge on demand: an A10G and 4 cores), where "
        "LAION_ETL_KUBERNETES_GPU_PRICE_HOUR is not set.",
        changes=None,
        unit="USD/h",
        minimum=0,
    )
    store_writes: float = setting(
        0.005,
        "1,000 requests that write to the bucket or list it (S3 Standard).",
        changes=None,
        unit="USD",
        minimum=0,
    )
    store_reads: float = setting(
        0.0004,
        "1,000 requests that read from the bucket.",
        changes=None,
        unit="USD",
        minimum=0,
    )
    store_gb_month: float = setting(
        0.023,
        "A gigabyte in the bucket for a month.",
        changes=None,
        unit="USD",
        minimum=0,
    )
    nat_gb: float = setting(
        0.045,
        "A gigabyte through a NAT gateway, which all downloads of a private subnet pass through. 0: workers "
        "have public addresses, or other egress that is not charged by volume.",
        changes=None,
        unit="USD",
        minimum=0,
    )
    egress_gb: float = setting(
        0.09,
        "A gigabyte sent from the cloud to the internet, for the cost of copying a dataset elsewhere.",
        changes=None,
        unit="USD",
        minimum=0,
    )
