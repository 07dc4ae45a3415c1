"""Threads for computing on a CPU whose number, like the environment, changes no bit of the result.

A sum of floats depends on the order of its terms. In a matrix product that order depends on its shape and on
the number of threads that share it (OMP_NUM_THREADS, MKL_NUM_THREADS, the cores of the machine). Here every
thread computes parts of a fixed size on its own, and several parts run in parallel: more threads are faster
and give the same bits. It also costs less: on two cores ViT-B/32 takes 0.112 CPU s an
image in parts of 16, and 0.140 when torch's own two threads share a batch of 64 and wait for each other.
"""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import cache
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from laion_etl.core.host_resources import usable_cores
from laion_etl.score.device_transfer import Floats

if TYPE_CHECKING:
    import torch

PART = 16  # rows that a thread computes at a time; fewer use the vector units less, more wait longer


class PinnedThreads:
    """Threads for which torch and its libraries use one thread each. They end with the process."""

    def __init__(self, count: int) -> None:
        self._work: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        started = [threading.Event() for _ in range(count)]
        for event in started:
            threading.Thread(target=self._run, args=(event,), daemon=True).start()
        for event in started:
            event.wait()
        _leave_other_threads_as_they_were()

    def submit(self, work: "Callable[[], torch.Tensor]") -> "Future[torch.Tensor]":
        """Computes when a thread is free."""
        future: Future[torch.Tensor] = Future()
        self._work.put((future, work))
        return future

    def _run(self, started: threading.Event) -> None:
        import torch

        torch.get_num_threads()  # torch sets its thread count on first use: force that now
        torch.set_num_threads(1)
        started.set()
        while True:
            future, work = self._work.get()
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001 - raised again where the result is asked for
                future.set_exception(error)


def _leave_other_threads_as_they_were() -> None:
    """Restore the default of threads that have not used torch yet: `torch.set_num_threads` changes it."""
    import torch

    torch.set_num_threads(torch.get_num_threads())


@cache
def _of_this_process(count: int) -> PinnedThreads:
    return PinnedThreads(count)


os.register_at_fork(after_in_child=_of_this_process.cache_clear)  # threads do not survive a fork


def pinned_threads(count: int = 0) -> PinnedThreads:
    """`count` threads, the same ones each time; 0 means one per usable core."""
    return _of_this_process(count or usable_cores())


class FromThreads:
    """The rows of all parts in order of the parts, or at the `places` given for them, one after the other."""

    def __init__(
        self, parts: "Sequence[Future[torch.Tensor]]", places: NDArray[np.intp] | None = None
    ) -> None:
        self._parts = parts
        self._places = places

    def get(self) -> Floats:
        """Waits for all of them; raises what one of them raised."""
        found: Floats = np.concatenate([part.result().numpy() for part in self._parts])
        if self._places is None:
            return found
        ordered = np.empty_like(found)
        ordered[self._places] = found
        return ordered


def parts(rows: NDArray[Any]) -> list[NDArray[Any]]:
    """Rows split into parts of PART each; an empty array gives one empty part."""
    return [rows[start : start + PART] for start in range(0, max(1, len(rows)), PART)]
