"""The pool of preparer processes: images to pixels and texts to tokens, in memory shared with this process.

Hostile images are decoded outside this process, and decoding and tokenising do not compete for its GIL.
Samples are sent in groups, because the time this process spends on each one limits how fast a GPU is fed.
A process that crashes or hangs costs only the sample it was working on.
"""

import mmap
import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np

from laion_etl.core.errors import ModelError
from laion_etl.core.host_resources import usable_cores
from laion_etl.sandbox.limits import prepare_parent
from laion_etl.score.preparer import MAX_GROUP, Group, PreprocessInput, started_preparer
from laion_etl.score.preprocess_worker import IMAGES_BYTES
from laion_etl.score.resize import compile_loops
from laion_etl.score.shared_tables import READY, UNREADABLE, WAITING, Plans, Tables, tables

_GROUP_BYTES = IMAGES_BYTES  # with its last image a group may be larger


@dataclass
class PreprocessResult:
    """Tables of samples that are being prepared. Rows of unreadable samples are undefined."""

    buffer: int
    tables: Tables
    _left: int
    _failure: Exception | None = None
    _done: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def readable(self) -> list[bool]:
        """Whether each sample could be read; valid after `wait`."""
        found: list[bool] = (self.tables.states == READY).tolist()
        return found

    @property
    def places(self) -> list[int]:
        """Indices of the readable samples; valid after `wait`."""
        found: list[int] = np.flatnonzero(self.tables.states == READY).tolist()
        return found

    def finished(self, count: int, failure: Exception | None = None) -> None:
        with self._lock:
            self._left -= count
            self._failure = failure or self._failure
            if not self._left:
                self._done.set()

    def wait(self) -> None:
        """Waits until every sample is prepared or known to be unreadable.

        Raises ModelError when no process could be started to work on them.
        """
        if self._left:
            self._done.wait()
        if self._failure is not None:
            raise self._failure


class Preparers:
    """A context manager; within it call `prepare` and `release` in turn.

    `buffers` shared buffers of up to `batch_size` samples each; `processes`, 0 for one per core.
    """

    def __init__(self, plans: Plans, batch_size: int, buffers: int, processes: int) -> None:
        prepare_parent()
        self._plans = plans
        self._batch_size = batch_size
        self._closed = False
        self.memory = mmap.mmap(-1, buffers * batch_size * plans.bytes)
        self._tables = tables(self.memory, plans)
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for buffer in range(buffers):
            self._free.put(buffer)
        self._groups: queue.SimpleQueue[tuple[PreprocessResult, Group] | None] = queue.SimpleQueue()
        count = processes or usable_cores()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(count)]

    def __enter__(self) -> "Preparers":
        compile_loops()  # otherwise every process would do it
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        with suppress(queue.Empty):
            while (waiting := self._groups.get_nowait()) is not None:
                waiting[0].finished(len(waiting[1]))
        for _ in self._threads:
            self._groups.put(None)
        for thread in self._threads:
            thread.join()

    def prepare(self, samples: Sequence[PreprocessInput]) -> PreprocessResult:
        """Starts work on up to `batch_size` samples; waits while no buffer is free.

        A sample without an image counts as unreadable. Raises RuntimeError if the pool is closed meanwhile.
        """
        buffer = self._free_buffer()
        found = self._tables.part(buffer * self._batch_size, len(samples))
        found.states[:] = [UNREADABLE if sample.image is None else WAITING for sample in samples]
        wanted = [(row, sample) for row, sample in enumerate(samples) if sample.image is not None]
        prepared = PreprocessResult(buffer, found, len(wanted))
        for group in _grouped(wanted, len(wanted) // (2 * len(self._threads))):
            self._groups.put((prepared, group))
        return prepared

    def _free_buffer(self) -> int:
        while not self._closed:
            with suppress(queue.Empty):
                return self._free.get(timeout=0.1)
        raise RuntimeError("cannot prepare samples: the pool of preparers is closed")

    def release(self, prepared: PreprocessResult) -> None:
        """Returns the buffer to the pool; the caller must not read it afterwards."""
        self._free.put(prepared.buffer)

    def _work(self) -> None:
        preparer = None
        while (given := self._groups.get()) is not None:
            prepared, group = given
            count, failure = len(group), None
            try:
                while group:
                    preparer = preparer or started_preparer(self._plans)
                    if not preparer.ask(group, prepared.tables):
                        preparer.end()
                        preparer = None
                    group = _after_loss(group, prepared.tables)
            except ModelError as error:
                failure = error
            prepared.finished(count, failure)
        if preparer is not None:
            preparer.end()


def _grouped(wanted: Group, size: int) -> Iterator[Group]:
    """Groups of up to `size` samples, fewer when they are large."""
    size = max(1, min(size, MAX_GROUP))
    group: Group = []
    held = 0
    for row, sample in wanted:
        group.append((row, sample))
        held += sample.size
        if len(group) == size or held >= _GROUP_BYTES:
            yield group
            group, held = [], 0
    if group:
        yield group


def _after_loss(group: Group, found: Tables) -> Group:
    """The items left after a process died; the first, assumed to have killed it, is marked unreadable."""
    undone = [(row, sample) for row, sample in group if found.states[row] == WAITING]
    for row, _ in undone[:1]:
        found.states[row] = UNREADABLE
    return undone[1:]
