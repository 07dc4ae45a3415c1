"""Assigns pairs to batches of even size, none of which sends too many requests to one host.

The pairs are sorted by host and assigned in turn: the n-th goes to batch n modulo the number of batches. So
every host is spread as evenly as possible, and the sizes of batches differ by at most one: there is no small
remainder. If the share of a host would exceed its limit per batch, there are more batches.
"""

import numpy as np
import numpy.typing as npt

from laion_etl.database.kernels import Hashes, Longs

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: spreads hashes that are close


def assign_batches(hosts: Hashes, batch_size: int, max_per_host: int) -> list[Longs]:
    """Returns the rows of each batch, in order, from the host hash of each row.

    A batch has at most `batch_size` rows and at most `max_per_host` of one host, spread evenly over the
    batch. The result depends only on the arguments.
    """
    if not len(hosts):
        return []
    order = np.argsort(hosts, kind="stable")
    _, counts = np.unique(hosts, return_counts=True)
    batches = max(_ceil(len(hosts), batch_size), _ceil(int(counts.max()), max_per_host))
    return [_interleaved(order[first::batches], hosts) for first in range(min(batches, len(hosts)))]


def assign_batches_by_language(
    hosts: Hashes, languages: npt.NDArray[np.object_], batch_size: int, max_per_host: int
) -> list[Longs]:
    """Like `assign_batches`, each language for itself; those with less than a full batch go together."""
    names, counts = np.unique(languages, return_counts=True)
    large = names[counts >= batch_size]
    groups = [np.flatnonzero(languages == name) for name in large]
    groups.append(np.flatnonzero(~np.isin(languages, large)))
    return [
        group[rows] for group in groups for rows in assign_batches(hosts[group], batch_size, max_per_host)
    ]


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
