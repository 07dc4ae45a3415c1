"""The pool of preparer processes: image bytes to pixels, in memory shared with this process.

Hostile images are decoded out of this process, and Python's lock does not hold decoding back. A process that
crashes or hangs costs the image it worked on.
"""

import json
import mmap
import os
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from types import TracebackType

from laion_etl.confined import ENVIRONMENT
from laion_etl.score.pixels import PixelPlan, Pixels
from laion_etl.score.preparer_process import DONE, ENDINGS, REQUEST, tables

_MEMORY_MB = 2_048
_TIME_LIMIT_S = 20.0  # for one image

Picture = tuple[str, bytes]  # ending and bytes


@dataclass
class Prepared:
    """Pixels of some images that are on their way: by plan (n, side, side, 3).

    Rows of unreadable images mean nothing.
    """

    block: int
    pixels: list[Pixels]
    readable: list[bool]
    _left: int
    _done: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def places(self) -> list[int]:
        """The readable images, after `wait`."""
        return [place for place, readable in enumerate(self.readable) if readable]

    def finished(self, index: int, *, readable: bool) -> None:
        with self._lock:
            self.readable[index] = readable
            self._left -= 1
            if not self._left:
                self._done.set()

    def wait(self) -> None:
        """Until every image is in place or known to be unreadable."""
        if self._left:
            self._done.wait()


class Preparers:
    """`with Preparers(plans, most, blocks) as preparers:` then `prepare` and `release` in turn.

    `most` images at a time, `blocks` times.
    """

    def __init__(self, plans: Sequence[PixelPlan], most: int, blocks: int, processes: int) -> None:
        self.plans = plans
        self._most = most
        self._closed = False
        self._descriptor = os.memfd_create("laion-etl-pixels")
        size = blocks * most * sum(plan.bytes for plan in plans)
        os.ftruncate(self._descriptor, size)
        self._tables = tables(mmap.mmap(self._descriptor, size), plans)
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for block in range(blocks):
            self._free.put(block)
        self._jobs: queue.SimpleQueue[tuple[Prepared, int, Picture] | None] = queue.SimpleQueue()
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
            while (job := self._jobs.get_nowait()) is not None:
                job[0].finished(job[1], readable=False)
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        os.close(self._descriptor)

    def prepare(self, pictures: Sequence[Picture | None]) -> Prepared:
        """Starts work on up to `most` images; waits while no block is free. None counts as unreadable.

        Raises RuntimeError when the pool is closed meanwhile.
        """
        block = self._free_block()
        wanted = [(i, picture) for i, picture in enumerate(pictures) if picture is not None]
        start = block * self._most
        pixels = [table[start : start + len(pictures)] for table in self._tables]
        prepared = Prepared(block, pixels, [False] * len(pictures), len(wanted))
        for index, picture in wanted:
            self._jobs.put((prepared, index, picture))
        return prepared

    def _free_block(self) -> int:
        while not self._closed:
            with suppress(queue.Empty):
                return self._free.get(timeout=0.1)
        raise RuntimeError("the preparers are closed")

    def release(self, prepared: Prepared) -> None:
        """The block may be used again; nobody looks at its pixels any more."""
        self._free.put(prepared.block)

    def _work(self) -> None:
        preparer = None
        while (job := self._jobs.get()) is not None:
            prepared, index, picture = job
            preparer = preparer or _Preparer(self._descriptor, self.plans)
            answer = preparer.ask(prepared.block * self._most + index, picture)
            if not answer:
                preparer.end()
                preparer = None
            prepared.finished(index, readable=answer == DONE)
        if preparer is not None:
            preparer.end()


class _Preparer:
    """One process. It lives no longer than the thread that made it: the kernel sees to that."""

    def __init__(self, descriptor: int, plans: Sequence[PixelPlan]) -> None:
        self._socket, other = socket.socketpair()
        self._socket.settimeout(_TIME_LIMIT_S)
        arguments = [str(descriptor), str(_MEMORY_MB), json.dumps([asdict(plan) for plan in plans])]
        with other:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "laion_etl.score.preparer_process", *arguments],
                stdin=other.fileno(),
                stdout=other.fileno(),
                pass_fds=[descriptor],
                env={**os.environ, **ENVIRONMENT},
            )

    def ask(self, place: int, picture: Picture) -> bytes:
        """The process's answer; empty when it died of the image or takes too long."""
        ending, data = picture
        try:
            self._socket.sendall(REQUEST.pack(place, len(data), ENDINGS.index(ending)) + data)
            return self._socket.recv(1)
        except OSError:
            return b""

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._socket.close()
