"""Assigns pairs to batches of even size, none of which sends too many requests to one host.

The pairs are sorted by host and assigned in turn: the n-th goes to batch n modulo the number of batches. So
every host is spread as evenly as possible, and the sizes of batches differ by at most one: there is no small
remainder. If the share of a host would exceed its limit per batch, there are more batches, but no more than
there are numbers for them: some four times as many as the pairs fill batches. Where one host has nearly
everything, more pairs of it are then in each batch. It still gets no more requests, as downloaders limit
these (download/politeness.py): its batches take longer. Refused: batches of that host alone, which take
longest of all, and numbers for as many batches as a host might need, which leave none to the next round.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from laion_etl.database.kernels import Hashes, Longs

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: spreads hashes that are close


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How many pairs a batch may have, and `per_host` of one host, as long as there are at most `batches`."""

    pairs: int
    per_host: int
    batches: int


def assign_batches(hosts: Hashes, limits: BatchLimits) -> list[Longs]:
    """Returns the rows of each batch, in order, from the host hash of each row.

    Pairs of one host are spread evenly over a batch. The result depends only on the arguments.
    """
    if not len(hosts):
        return []
    order = np.argsort(hosts, kind="stable")
    batches = max(_least(hosts, limits), min(_wanted(hosts, limits), limits.batches))
    return [_interleaved(order[first::batches], hosts) for first in range(min(batches, len(hosts)))]


def assign_batches_by_language(
    hosts: Hashes, languages: npt.NDArray[np.object_], limits: BatchLimits
) -> list[Longs]:
    """Like `assign_batches`, each language for itself; those with less than a full batch go together.

    The first languages may have more batches than they need at least, if not all may.
    """
    names, counts = np.unique(languages, return_counts=True)
    large = names[counts >= limits.pairs]
    groups = [np.flatnonzero(languages == name) for name in large]
    groups.append(np.flatnonzero(~np.isin(languages, large)))
    left = limits.batches - sum(_least(hosts[group], limits) for group in groups)
    batches: list[Longs] = []
    for group in groups:
        least = _least(hosts[group], limits)
        found = assign_batches(hosts[group], replace(limits, batches=least + max(0, left)))
        left -= len(found) - least
        batches += [group[rows] for rows in found]
    return batches


def _least(hosts: Hashes, limits: BatchLimits) -> int:
    """Return how many batches rows fill."""
    return _ceil(len(hosts), limits.pairs)


def _wanted(hosts: Hashes, limits: BatchLimits) -> int:
    """Return how many batches no host has too large a share of."""
    return _ceil(int(np.unique(hosts, return_counts=True)[1].max()), limits.per_host)


def _interleaved(rows: Longs, hosts: Hashes) -> Longs:
    """Rows sorted by host, so ordered that each host's rows lie evenly spread among the others."""
    own = hosts[rows]
    starts = np.flatnonzero(np.concatenate(([True], own[1:] != own[:-1])))
    counts = np.diff(np.append(starts, len(rows)))
    turn = np.arange(len(rows)) - np.repeat(starts, counts)
    phase = (own * _GOLDEN) / 2.0**64
    order = np.argsort((turn + phase) / np.repeat(counts, counts), kind="stable")
    return rows[order]


def _ceil(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)
