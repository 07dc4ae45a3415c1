"""What this process may use of the machine it runs on."""

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def usable_cores(cgroup: Path = _CGROUP) -> int:
    """Cores this process may keep busy, at least 1: its CPU affinity and the CPU quota of its container.

    A pod with `limits.cpu: 2` sees all cores of its node and may use two (Linux cgroups: cpu.max of version
    2, cpu.cfs_quota_us of version 1); a part of a core counts as one.
    """
    cores = len(os.sched_getaffinity(0))
    quota = _quota(cgroup)
    return cores if quota is None else max(1, min(cores, -int(-quota // 1)))


def machine_memory_bytes() -> int:
    """Memory of the machine, not of the container."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _quota(cgroup: Path) -> float | None:
    """CPU seconds per second that the container may use; None where there is no limit."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except OSError:
        try:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text()
        except OSError:
            return None
    return None if quota == "max" or int(quota) < 0 else int(quota) / int(period)
