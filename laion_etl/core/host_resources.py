"""What this process may use of the machine it runs on."""

import os
import tempfile
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


def user_cache() -> Path:
    """The user's cache folder of this project (XDG Base Directory Specification); it may be missing."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "laion_etl"


def can_be_written(folder: Path) -> bool:
    """Whether files can be made in a folder, which is made when it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


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
