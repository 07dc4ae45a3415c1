"""The resources of the machine that this process may use."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def usable_cores(cgroup: Path = _CGROUP) -> int:
    """Returns the cores this process may use, at least 1, by CPU affinity and its container's CPU quota.

    A pod with `limits.cpu: 2` sees all cores of its node and may use two (Linux cgroups: cpu.max of version
    2, cpu.cfs_quota_us of version 1); fractions are rounded up.
    """
    cores = len(os.sched_getaffinity(0))
    quota = _quota(cgroup)
    return cores if quota is None else max(1, min(cores, -int(-quota // 1)))


def machine_memory_bytes() -> int:
    """Returns the memory of the machine, not of the container."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def usable_memory_bytes(cgroup: Path = _CGROUP) -> int:
    """Returns the memory this process may use: the machine's, or the limit of its container."""
    found = [machine_memory_bytes()]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError):
            if (limit := (cgroup / name).read_text().strip()).isdecimal():
                found.append(int(limit))
    return min(found)


def user_cache() -> Path:
    """Returns the user's cache folder of this project (XDG Base Directory Specification); may be missing."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "laion_etl"


def can_be_written(folder: Path) -> bool:
    """Whether files can be created in a folder; creates it when it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _quota(cgroup: Path) -> float | None:
    """Returns the CPU seconds per second that the container may use; None for no limit."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except OSError:
        try:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text()
        except OSError:
            return None
    return None if quota == "max" or int(quota) < 0 else int(quota) / int(period)
