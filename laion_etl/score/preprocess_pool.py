"""The pool of preparer processes: images to pixels and texts to tokens, in memory shared with this process.

Hostile images are decoded out of this process, and Python's lock holds neither decoding nor tokenising back.
Samples go to the processes in groups: what this process does for a sample is what is left to limit a GPU. A
process that crashes or hangs costs the sample it worked on.
"""

import mmap
import os
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np

from laion_etl.core.errors import ModelError
from laion_etl.sandbox.limits import ENVIRONMENT
from laion_etl.score.preprocess_worker import DONE, ENDINGS, ITEM
from laion_etl.score.shared_tables import READY, UNREADABLE, WAITING, Plans, Tables, tables

_MEMORY_MB = 2_048  # beside the shared memory
_TIME_LIMIT_S = 20.0  # for one sample
_START_LIMIT_S = 120.0
_MOST_IN_GROUP = 8
_GROUP_BYTES = 4_000_000

Picture = tuple[str, bytes]  # ending and bytes


@dataclass(frozen=True, slots=True)
class Material:
    """What is known of a sample. Without a text, and without a picture, nothing is made of it."""

    picture: Picture | None
    text: str = ""
    tower: int = 0  # which of the plans' text towers the text is for

    @property
    def size(self) -> int:
        return len(self.picture[1]) if self.picture else 0


@dataclass
class Prepared:
    """Tables of some samples that are on their way. Rows of unreadable ones mean nothing."""

    block: int
    tables: Tables
    _left: int
    _failure: Exception | None = None
    _done: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def readable(self) -> list[bool]:
        """Of each sample, after `wait`."""
        found: list[bool] = (self.tables.states == READY).tolist()
        return found

    @property
    def places(self) -> list[int]:
        """The readable samples, after `wait`."""
        found: list[int] = np.flatnonzero(self.tables.states == READY).tolist()
        return found

    def finished(self, count: int, failure: Exception | None = None) -> None:
        with self._lock:
            self._left -= count
            self._failure = failure or self._failure
            if not self._left:
                self._done.set()

    def wait(self) -> None:
        """Until every sample is in place or known to be unreadable.

        Raises ModelError when no process could be started to work on them.
        """
        if self._left:
            self._done.wait()
        if self._failure is not None:
            raise self._failure


_Group = list[tuple[int, Material]]  # rows of a block


class Preparers:
    """`with Preparers(plans, most, blocks, processes) as preparers:` then `prepare` and `release` in turn.

    `most` samples at a time, `blocks` times.
    """

    def __init__(self, plans: Plans, most: int, blocks: int, processes: int) -> None:
        self._plans = plans
        self._most = most
        self._closed = False
        self._descriptor = os.memfd_create("laion-etl-samples")
        size = blocks * most * plans.bytes
        os.ftruncate(self._descriptor, size)
        self.memory = mmap.mmap(self._descriptor, size)
        self._tables = tables(self.memory, plans)
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for block in range(blocks):
            self._free.put(block)
        self._groups: queue.SimpleQueue[tuple[Prepared, _Group] | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(processes)]

    def __enter__(self) -> "Preparers":
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
        os.close(self._descriptor)

    def prepare(self, samples: Sequence[Material]) -> Prepared:
        """Starts work on up to `most` samples; waits while no block is free. No picture counts as unreadable.

        Raises RuntimeError when the pool is closed meanwhile.
        """
        block = self._free_block()
        found = self._tables.part(block * self._most, len(samples))
        found.states[:] = [UNREADABLE if sample.picture is None else WAITING for sample in samples]
        wanted = [(row, sample) for row, sample in enumerate(samples) if sample.picture is not None]
        prepared = Prepared(block, found, len(wanted))
        for group in _grouped(wanted, len(wanted) // (2 * len(self._threads))):
            self._groups.put((prepared, group))
        return prepared

    def _free_block(self) -> int:
        while not self._closed:
            with suppress(queue.Empty):
                return self._free.get(timeout=0.1)
        raise RuntimeError("the preparers are closed")

    def release(self, prepared: Prepared) -> None:
        """The block may be used again; nobody looks at its tables any more."""
        self._free.put(prepared.block)

    def _work(self) -> None:
        preparer = None
        while (given := self._groups.get()) is not None:
            prepared, group = given
            first, count = prepared.block * self._most, len(group)
            failure = None
            try:
                while group:
                    preparer = preparer or _Preparer(self._descriptor, self._plans)
                    if not preparer.ask(first, group, prepared.tables):
                        preparer.end()
                        preparer = None
                    group = _after_loss(group, prepared.tables)
            except ModelError as error:
                failure = error
            prepared.finished(count, failure)
        if preparer is not None:
            preparer.end()


def _grouped(wanted: _Group, size: int) -> Iterator[_Group]:
    """Groups of up to `size` samples, fewer when they are large."""
    size = max(1, min(size, _MOST_IN_GROUP))
    group: _Group = []
    held = 0
    for row, sample in wanted:
        group.append((row, sample))
        held += sample.size
        if len(group) == size or held >= _GROUP_BYTES:
            yield group
            group, held = [], 0
    if group:
        yield group


def _after_loss(group: _Group, found: Tables) -> _Group:
    """What a process left undone; the first of it, which it died of, counts as unreadable."""
    undone = [(row, sample) for row, sample in group if found.states[row] == WAITING]
    for row, _ in undone[:1]:
        found.states[row] = UNREADABLE
    return undone[1:]


class _Preparer:
    """One process. It lives no longer than the thread that made it: the kernel sees to that."""

    def __init__(self, descriptor: int, plans: Plans) -> None:
        self._socket, other = socket.socketpair()
        self._socket.settimeout(_START_LIMIT_S)
        memory_mb = _MEMORY_MB + (os.fstat(descriptor).st_size >> 20)
        with other:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "laion_etl.score.preprocess_worker"),
                    *(str(descriptor), str(memory_mb), plans.to_json()),
                ],
                stdin=other.fileno(),
                stdout=other.fileno(),
                pass_fds=[descriptor],
                env={**os.environ, **ENVIRONMENT},
            )
        if self._answer() != DONE:
            self.end()
            raise ModelError(
                "a process that decodes images for the model did not start; what was printed above says why"
            )
        self._socket.settimeout(_TIME_LIMIT_S)

    def ask(self, first: int, group: _Group, found: Tables) -> bool:
        """Whether the process is done with a group of the block that begins at row `first`.

        False when it died or takes too long over a sample.
        """
        try:
            self._socket.sendall(bytes([len(group)]) + b"".join(_packed(first, group)))
        except OSError:
            return False
        rows = [row for row, _ in group]
        before = len(rows) + 1
        while (left := int((found.states[rows] == WAITING).sum())) < before:
            before = left
            if answer := self._answer():
                return answer == DONE
        return False

    def _answer(self) -> bytes | None:
        """What the process says: nothing when it ended, None when it needs longer."""
        try:
            return self._socket.recv(1)
        except TimeoutError:
            return None
        except OSError:
            return b""

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._socket.close()


def _packed(first: int, group: _Group) -> Iterator[bytes]:
    for row, sample in group:
        if sample.picture is not None:
            ending, image = sample.picture
            text = sample.text.encode()
            yield ITEM.pack(first + row, len(image), ENDINGS.index(ending), len(text), sample.tower)
            yield image
            yield text
