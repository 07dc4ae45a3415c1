"""What a process of a stage uses: time, processor time with all child processes, GPUs, bytes and requests."""

import os
import resource
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

_PROC = Path("/proc")
_PARENT, _FIRST_TIME, _TIMES = 1, 11, 4  # fields of /proc/PID/stat after the name: see proc(5)


@dataclass(frozen=True, slots=True)
class Usage:
    """`pod_s` is how long a process or pod ran; `core_s` and `gpu_s` are that time multiplied by its cores
    and GPUs."""

    pod_s: float = 0.0
    core_s: float = 0.0
    gpu_s: float = 0.0
    cpu_s: float = 0.0
    web_requests: int = 0
    web_bytes: int = 0
    store_writes: int = 0
    store_reads: int = 0
    store_bytes_sent: int = 0
    store_bytes_received: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(**{name: getattr(self, name) + getattr(other, name) for name in _NAMES})

    def scaled(self, factor: float) -> "Usage":
        """Return the usage multiplied by a factor."""
        times = {name: getattr(self, name) * factor for name in _NAMES}
        return Usage(
            **{name: value if name.endswith("_s") else round(value) for name, value in times.items()}
        )

    def to_plain(self) -> dict[str, float]:
        """Return plain JSON values."""
        return {name: round(value, 3) for name, value in asdict(self).items()}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Usage":
        """Read plain JSON values. Raises KeyError, TypeError or ValueError if they are not."""
        numbers: dict[str, Any] = {
            name: (float if name.endswith("_s") else int)(plain[name]) for name in _NAMES
        }
        return cls(**numbers)


_NAMES = tuple(one.name for one in fields(Usage))


def cpu_seconds() -> float:
    """Return the processor time of this process and all its children, those that still run included."""
    spent = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        spent += usage.ru_utime + usage.ru_stime
    return spent + _running_children_s()


def _running_children_s() -> float:
    """Return the processor time of children that run, and of theirs (Linux; elsewhere 0)."""
    if not _PROC.is_dir():
        return 0.0
    times: dict[int, int] = {}
    children: dict[int, list[int]] = {}
    for folder in _PROC.iterdir():
        if folder.name.isdigit():
            with suppress(OSError):  # it has ended meanwhile
                # The name of a program may contain spaces and brackets.
                values = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
                times[int(folder.name)] = sum(map(int, values[_FIRST_TIME : _FIRST_TIME + _TIMES]))
                children.setdefault(int(values[_PARENT]), []).append(int(folder.name))
    ticks, left = 0, list(children.get(os.getpid(), ()))
    while left:
        pid = left.pop()
        ticks += times[pid]
        left += children.get(pid, ())
    return ticks / os.sysconf("SC_CLK_TCK")
