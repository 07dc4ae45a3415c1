"""What a process of a stage uses: time, processor time with all child processes, GPUs, bytes and requests."""

import math
import os
import resource
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
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
        """Read plain JSON values. Raises KeyError, TypeError, ValueError or OverflowError if they are not."""
        numbers: dict[str, Any] = {
            name: (float if name.endswith("_s") else int)(amount(plain[name])) for name in _NAMES
        }
        return cls(**numbers)


_NAMES = tuple(one.name for one in fields(Usage))


def amount(value: Any) -> float:
    """Return a number of JSON, which may be Infinity or NaN. Raises like `Usage.from_plain`."""
    number = float(value)
    if not 0 <= number < math.inf:
        raise ValueError(f"{value!r} is not an amount")
    return number


@dataclass(slots=True)
class ApartProcess:
    """A child that writes a record of its own, in which it also has the machine for as long as it runs."""

    pid: int
    began: float = field(default_factory=time.monotonic)
    ended: float | None = None

    def ran_s(self, since: float, until: float) -> float:
        """Return for how long it ran between two moments of the monotonic clock."""
        ended = until if self.ended is None else min(until, self.ended)
        return max(0.0, ended - max(since, self.began))


_apart: list[ApartProcess] = []


@contextmanager
def recorded_apart(process: ApartProcess) -> Iterator[None]:
    """Leave a child out of what this process uses. Wait for its end after records that begin in the block:
    the system adds the times of a child that was waited for to those of this process."""
    _apart.append(process)
    try:
        yield
    finally:
        _apart.remove(process)


def machine_seconds(since: float) -> float:
    """Return the time since a moment of the monotonic clock in which this process had the machine."""
    now = time.monotonic()
    return max(0.0, now - since - sum(process.ran_s(since, now) for process in _apart))


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
            with suppress(OSError, LookupError):  # it has ended meanwhile
                # The name of a program may contain spaces and brackets.
                values = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
                times[int(folder.name)] = sum(map(int, values[_FIRST_TIME : _FIRST_TIME + _TIMES]))
                children.setdefault(int(values[_PARENT]), []).append(int(folder.name))
    apart = {process.pid for process in _apart}
    ticks, left = 0, [pid for pid in children.get(os.getpid(), ()) if pid not in apart]
    while left:
        pid = left.pop()
        ticks += times[pid]
        left += children.get(pid, ())
    return ticks / os.sysconf("SC_CLK_TCK")
