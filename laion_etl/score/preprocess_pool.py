"""The pool of preparer processes: images to pixels and texts to tokens, in memory shared with this process.

Hostile images are decoded outside this process, and decoding and tokenising do not compete for its GIL.
Samples are sent in groups, because the time this process spends on each one limits how fast a GPU is fed.
A process that crashes or hangs costs only the sample it was working on.
"""

import fcntl
import mmap
import os
import queue
import socket
import subprocess
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np

from laion_etl.core.errors import ModelError
from laion_etl.core.host_resources import usable_cores
from laion_etl.core.programs import python_module
from laion_etl.sandbox.limits import confined_environment, prepare_parent
from laion_etl.score.preprocess_worker import DONE, ENDINGS, FOLLOWS, IMAGES_BYTES, ITEM
from laion_etl.score.resize import compile_loops
from laion_etl.score.shared_tables import READY, UNREADABLE, WAITING, Plans, Tables, tables
from laion_etl.score.tokens import VOCABULARY

PROGRAM: Iterable[str] = python_module("laion_etl.score.preprocess_worker")
# No new mapping can write: a process that an image has taken over cannot change those that follow.
_SEALED = 0x10 | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW  # F_SEAL_FUTURE_WRITE of linux/fcntl.h
_MEMORY_MB = 2_048  # in addition to the shared memory
_TIME_LIMIT_S = 20.0  # for one sample
_START_LIMIT_S = 120.0
_MAX_GROUP = 16  # eight cost this process 35 us of CPU a sample, sixteen 20
_GROUP_BYTES = IMAGES_BYTES  # with its last image a group may be larger

ImageFile = tuple[str, bytes]  # ending and bytes


@dataclass(frozen=True, slots=True)
class PreprocessInput:
    """Image and text of one sample. Without an image it counts as unreadable; an empty text has no tokens."""

    image: ImageFile | None
    text: str = ""
    tower: int = 0  # which of the plans' text towers the text is for

    @property
    def size(self) -> int:
        return len(self.image[1]) if self.image else 0


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


_Group = list[tuple[int, PreprocessInput]]  # rows of a buffer


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
        self._groups: queue.SimpleQueue[tuple[PreprocessResult, _Group] | None] = queue.SimpleQueue()
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
                    preparer = preparer or _started(self._plans)
                    if not preparer.ask(group, prepared.tables):
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
    size = max(1, min(size, _MAX_GROUP))
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
    """The items left after a process died; the first, assumed to have killed it, is marked unreadable."""
    undone = [(row, sample) for row, sample in group if found.states[row] == WAITING]
    for row, _ in undone[:1]:
        found.states[row] = UNREADABLE
    return undone[1:]


def _started(plans: Plans) -> "_Preparer":
    """Return a new preparer. Raises ModelError."""
    try:
        return _Preparer(plans)
    except OSError as error:
        raise ModelError(
            f"cannot start a process that decodes images: {error}; free memory, or raise the limits of "
            "processes and open files"
        ) from error


class _Preparer:
    """One worker process. The kernel ends it with the thread that started it (PR_SET_PDEATHSIG).

    It shares the tables of one group only, which are copied when the process says that it is done with them:
    one that was taken over by an image changes no sample of another group. A copy costs 15 us a sample.
    """

    def __init__(self, plans: Plans) -> None:
        self._socket, other = socket.socketpair()
        self._socket.settimeout(_START_LIMIT_S)
        size = _MAX_GROUP * plans.bytes
        memory_mb = _MEMORY_MB + ((size + IMAGES_BYTES) >> 20)
        samples = os.memfd_create("laion-etl-samples")
        os.ftruncate(samples, size)
        self._shared = tables(mmap.mmap(samples, size), plans)
        images = os.memfd_create("laion-etl-images", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(images, IMAGES_BYTES)
        self._images = mmap.mmap(images, IMAGES_BYTES)
        with suppress(OSError):  # a kernel before 5.1
            fcntl.fcntl(images, fcntl.F_ADD_SEALS, _SEALED)
        try:
            with other, os.fdopen(images), os.fdopen(samples):  # they stay open in the process only
                self._process = subprocess.Popen(
                    [*PROGRAM, str(samples), str(images), str(memory_mb), plans.to_json()],
                    stdin=other.fileno(),
                    stdout=other.fileno(),
                    pass_fds=[samples, images],
                    env=confined_environment(),
                    process_group=0,  # as in sandbox/processes.py
                )
        except OSError:
            self._close()
            raise
        if self._answer() != DONE:
            self.end()
            raise ModelError(
                "cannot start a process that decodes images: it exited early; see its output above"
            )
        self._socket.settimeout(_TIME_LIMIT_S)

    def ask(self, group: _Group, found: Tables) -> bool:
        """Whether the process finished a group; the rows that it finished are copied to `found`.

        False when it died or exceeded the time limit for a sample.
        """
        states = self._shared.states
        states[: len(group)] = WAITING
        try:
            return self._finished(group)
        finally:
            for place, (row, _) in enumerate(group):
                _copy_row(self._shared, place, found, row)
            states[:] = UNREADABLE

    def _finished(self, group: _Group) -> bool:
        try:
            self._socket.sendall(bytes([len(group)]) + b"".join(self._packed(group)))
        except OSError:
            return False
        before = len(group) + 1
        while (left := int((self._shared.states[: len(group)] == WAITING).sum())) < before:
            before = left
            if answer := self._answer():
                return answer == DONE
        return False

    def _answer(self) -> bytes | None:
        """The reply of the process: empty when it has ended, None on a timeout."""
        try:
            return self._socket.recv(1)
        except TimeoutError:
            return None
        except OSError:
            return b""

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._close()

    def _close(self) -> None:
        self._socket.close()
        self._images.close()

    def _packed(self, group: _Group) -> Iterator[bytes]:
        """What is sent of a group. Images go into the shared memory as far as there is room."""
        used = 0
        for place_in_group, (_, sample) in enumerate(group):
            if sample.image is None:
                continue
            ending, data = sample.image
            text = sample.text.encode()
            fits = used + len(data) <= IMAGES_BYTES
            place = used if fits else FOLLOWS
            yield ITEM.pack(place_in_group, len(data), ENDINGS.index(ending), place, len(text), sample.tower)
            if fits:
                self._images[used : used + len(data)] = data
                used += len(data)
            else:
                yield data
            yield text


def _copy_row(source: Tables, place: int, target: Tables, row: int) -> None:
    """Copy a finished row. Its state is read once, and no token is larger than its model's table."""
    state = int(source.states[place])
    if state == READY:
        np.clip(source.tokens[place], 0, VOCABULARY - 1, out=target.tokens[row])
        for theirs, ours in zip(source.pixels, target.pixels, strict=True):
            ours[row] = theirs[place]
    if state in (READY, UNREADABLE):
        target.states[row] = state
