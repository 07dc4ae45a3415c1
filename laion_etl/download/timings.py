"""What a batch measured, and a diagnosis of it in plain sentences."""

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from laion_etl.download.loss_causes import LOSS_CAUSES, unused_proxy

_PERCENTILES = (50, 90, 99)
_NOTABLE_SHARE = 0.05  # of the links
_SLOW_LOOKUP_S = 1.0


def _seconds() -> "array[float]":
    return array("f")


@dataclass(slots=True)
class BatchTimings:
    """Durations of each step in seconds, one entry per time it was taken, and counters of a batch."""

    connect: "array[float]" = field(default_factory=_seconds)
    tls: "array[float]" = field(default_factory=_seconds)
    first_byte: "array[float]" = field(default_factory=_seconds)
    total: "array[float]" = field(default_factory=_seconds)
    connections: int = 0
    reused: int = 0
    bytes: int = 0
    retries: int = 0

    def latencies(self, resolve: list[float]) -> dict[str, dict[str, float]]:
        """Returns percentiles per step, in seconds; steps that were never taken are left out."""
        steps = {
            "resolve": resolve,
            "connect": self.connect,
            "tls": self.tls,
            "first_byte": self.first_byte,
            "total": self.total,
        }
        return {name: _percentiles(values) for name, values in steps.items() if len(values)}


def _percentiles(values: Any) -> dict[str, float]:
    found = np.percentile(np.asarray(values, dtype=np.float64), (*_PERCENTILES, 100))
    names = [*(f"p{percentile}" for percentile in _PERCENTILES), "max"]
    return {name: round(float(value), 4) for name, value in zip(names, found, strict=True)}


def diagnose(
    total: int, dropped: Mapping[str, int], latencies: Mapping[str, Mapping[str, float]]
) -> list[str]:
    """Returns a sentence per notable problem of a batch and what to do about it.

    Causes that only the links' messages tell apart are left to `laion-etl diagnose`.
    """
    sentences = []
    for cause in LOSS_CAUSES:
        share = sum(dropped.get(status.value, 0) for status in cause.statuses) / max(total, 1)
        if share >= _NOTABLE_SHARE and cause.needs_no_message:
            said = "; ".join(filter(None, (cause.sentence, cause.remedy)))
            sentences.append(f"{share:.0%} of links {said}")
    proxy = unused_proxy(total - sum(dropped.values()), dropped)
    return [*sentences, *([proxy] if proxy else []), *slow_lookups(latencies)]


def slow_lookups(latencies: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Returns a sentence if looking up names took long."""
    lookup_s = latencies.get("resolve", {}).get("p90", 0.0)
    if lookup_s <= _SLOW_LOOKUP_S:
        return []
    return [
        f"one lookup in ten took over {lookup_s:.1f} s: the resolver is slow; run a resolver nearby, or set "
        "LAION_ETL_DOWNLOAD_NAMESERVERS"
    ]
