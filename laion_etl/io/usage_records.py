"""Records of what the processes of a crawl used: `usage/<crawl>/<stage>/<unit>-<id>.json`, one per process.

A process writes its record at its end, and every minute while it runs: one that is killed loses what it used
since. The number of records follows from the number of processes, not from that of batches, and nothing
is written for a claim, a batch or a heartbeat. Each attempt has a record of its own, because each costs
money. Records differ from run to run; no stage reads them, and they are in no fingerprint.

Refused: the stats files of units (they are the same for the same input), and Postgres (parse, score and
publish have no connection to it).
"""

import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from laion_etl.core.errors import (
    InputError,
    NotLoadedError,
    SettingsError,
    StoreOutageError,
    StoreRefusedError,
)
from laion_etl.core.formats import check_format
from laion_etl.core.host_resources import usable_cores
from laion_etl.core.plain_json import NOT_AS_EXPECTED, parse_json
from laion_etl.core.usage import Usage, amount, cpu_seconds, machine_seconds
from laion_etl.core.usage_counters import FOLDER, NO_FOLDER, Counter, counted
from laion_etl.io.abandoned_folders import locked_folder
from laion_etl.io.storage import Store

FORMAT = 1
_FIRST_S, _EVERY_S = 10.0, 60.0  # of 300 pods: 2 dollars a day for requests of the bucket
_SHORT_S = 1.0  # failing earlier costs next to nothing
_REFUSALS = (InputError, SettingsError, NotLoadedError)
_READERS = 32  # small files: reading them is mostly waiting
_log = logging.getLogger(__name__)
_DAMAGED = (InputError, *NOT_AS_EXPECTED)


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """What one process has used up to a moment, `written_at` by its own clock. `running`: it had not ended
    then. `ran_s`: its age then; for some of that time the machine may be in the record of another process."""

    crawl: str
    stage: str
    unit: str
    cores: int
    gpus: int
    written_at: float
    running: bool
    usage: Usage
    ran_s: float

    def to_json(self) -> bytes:
        """Return the content of its file."""
        plain = {
            "format": FORMAT,
            "crawl": self.crawl,
            "stage": self.stage,
            "unit": self.unit,
            "cores": self.cores,
            "gpus": self.gpus,
            "written_at": round(self.written_at, 3),
            "running": self.running,
            "ran_s": round(self.ran_s, 3),
            "usage": self.usage.to_plain(),
        }
        return json.dumps(plain, indent=1).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes, uri: str) -> "UsageRecord":
        """Read a file. Raises InputError if a newer laion-etl wrote it, ValueError etc. if it is not one."""
        plain = parse_json(data)
        check_format(uri, plain.get("format"), FORMAT)
        return cls(
            str(plain["crawl"]), str(plain["stage"]), str(plain["unit"]), int(plain["cores"]),
            int(plain["gpus"]), amount(plain["written_at"]), bool(plain["running"]),
            Usage.from_plain(plain["usage"]), amount(plain["ran_s"]),
        )  # fmt: skip


@contextmanager
def usage_recorded(
    crawl: str, stage: str, unit: str, store: Store, gpus: Callable[[], int] = lambda: 0
) -> Iterator[None]:
    """Record what the block uses, in this process and its children.

    In a child of a process that records, the parent's record has it all, and this does nothing. A record that
    cannot be written is logged; the work goes on.
    """
    if FOLDER in os.environ:
        yield
        return
    with _folder() as name:
        meter = _Meter(crawl, stage, unit, store, name, gpus)
        os.environ[FOLDER] = name
        try:
            with meter.running():
                yield
        finally:
            del os.environ[FOLDER]


@contextmanager
def _folder() -> Iterator[str]:
    """Make the folder of the counters; without one requests and bytes are not counted."""
    with ExitStack() as stack:
        try:
            name = stack.enter_context(locked_folder("laion-etl-usage-"))
        except OSError as error:
            _log.warning("cannot count requests and bytes: %s", error)
            name = NO_FOLDER
        yield name


class _Meter:
    """Measures one process and writes its record."""

    def __init__(
        self, crawl: str, stage: str, unit: str, store: Store, folder: str, gpus: Callable[[], int]
    ) -> None:
        self._record = UsageRecord(crawl, stage, unit, 1, 0, 0.0, running=True, usage=Usage(), ran_s=0.0)
        safe = unit.replace("/", "-of-")
        self._name = f"usage/{crawl}/{stage}/{safe}-{secrets.token_hex(4)}.json"
        self._store, self._folder, self._gpus = store, folder, gpus
        self._began, self._began_cpu_s = time.monotonic(), 0.0
        with self._logged():
            self._record = replace(self._record, cores=usable_cores())
            self._began_cpu_s = cpu_seconds()
        self._counted: dict[Counter, int] = {}
        self._stop = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self._write_now_and_then, daemon=True, name="usage")
        try:
            with self._logged():
                thread.start()  # Ctrl-C here leaves it running
            yield
        except (StoreOutageError, StoreRefusedError):
            raise  # the record would only wait for the store again
        except BaseException as error:
            # What is refused within seconds did no work, though starting the database may take some of them.
            least_s = _FIRST_S if isinstance(error, _REFUSALS) else _SHORT_S
            if time.monotonic() - self._began >= least_s:
                self._write_last(thread)
            raise
        else:
            self._write_last(thread)
        finally:
            self._stop.set()

    def _write_now_and_then(self) -> None:
        wait_s = _FIRST_S
        while not self._stop.wait(wait_s):
            self._write(running=True)
            wait_s = _EVERY_S

    def _write_last(self, thread: threading.Thread) -> None:
        self._stop.set()
        if thread.ident is not None:
            thread.join()  # or its older record could replace the last one
        self._write(running=False)

    def _write(self, *, running: bool) -> None:
        with self._logged():
            record = replace(self._record, gpus=self._gpus(), written_at=time.time(), running=running)
            record = replace(record, usage=self._used(record), ran_s=time.monotonic() - self._began)
            self._store.write(self._name, record.to_json())

    @contextmanager
    def _logged(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the work must not fail because it cannot be measured
            _log.warning("what %s %s uses is not recorded: %s", self._record.stage, self._record.unit, error)

    def _used(self, record: UsageRecord) -> Usage:
        machine_s = machine_seconds(self._began)
        counts = {what.name.lower(): number for what, number in self._counts().items()}
        spent_s = max(0.0, cpu_seconds() - self._began_cpu_s)
        return Usage(machine_s, machine_s * record.cores, machine_s * record.gpus, spent_s, **counts)

    def _counts(self) -> dict[Counter, int]:
        if self._folder != NO_FOLDER:
            try:
                self._counted = counted(Path(self._folder))
            except OSError as error:  # systems delete what has been in /tmp for days
                _log.warning("cannot count more requests and bytes: %s", error)
        return self._counted


@dataclass(frozen=True, slots=True)
class _ReadRecord:
    """A record as it was read; `written_at`: when it was written, by the monotonic clock of this process."""

    record: UsageRecord
    written_at: float

    def now(self) -> UsageRecord:
        """Return the record as it is now: one that was killed stops writing, and no longer runs."""
        writes = time.monotonic() - self.written_at < 5 * _EVERY_S
        return replace(self.record, running=self.record.running and writes)


@dataclass(slots=True)
class UsageReader:
    """Reads the records of a crawl repeatedly; unchanged ones are not read twice. For one thread only."""

    crawl: str
    _kept: dict[str, tuple[str, _ReadRecord | None]] = field(default_factory=dict)

    def records(self, store: Store) -> list[UsageRecord]:
        """Return all records; a damaged one is left out. `running`: of those whose process still writes.

        Raises StorageError.
        """
        etags = store.etags(f"usage/{self.crawl}", ".json")
        wanted = [name for name, etag in etags.items() if self._kept.get(name, ("",))[0] != etag]
        with ThreadPoolExecutor(_READERS) as pool:
            for name, found in zip(wanted, pool.map(lambda one: _read(one, store), wanted), strict=True):
                self._kept[name] = (etags[name], found)
        for name in self._kept.keys() - etags.keys():
            del self._kept[name]
        return [found.now() for _, (_, found) in sorted(self._kept.items()) if found is not None]


def _read(name: str, store: Store) -> _ReadRecord | None:
    try:
        data, age_s = store.read_with_age(name)
        return _ReadRecord(UsageRecord.from_json(data, store.uri(name)), time.monotonic() - age_s)
    except _DAMAGED as error:
        _log.warning("the bill leaves out %s: %s", store.uri(name), error)
        return None
