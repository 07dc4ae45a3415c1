"""Prefetching: an iterator that runs in its own thread, a few items ahead of its consumer."""

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class _End:
    """The last thing in the queue: how the iterator ended."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class _Prefetch(Generic[T]):
    def __init__(self, source: Iterator[T], depth: int) -> None:
        self._source = source
        self._queue: queue.Queue[T | _End] = queue.Queue(depth)
        self._stopped = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        end = _End()
        try:
            for item in self._source:
                self._put(item)
                if self._stopped.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 - raised again in place of the item
            end = _End(error)
        self._put(end)

    def _put(self, item: "T | _End") -> None:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue
            return

    def __iter__(self) -> Iterator[T]:
        while True:
            item = self._queue.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item

    def stop(self) -> None:
        self._stopped.set()


@contextmanager
def prefetch(source: Iterator[T], depth: int) -> Iterator[Iterator[T]]:
    """The items of `source`, produced up to `depth` ahead; an error is raised in place of the next item.

    After the block no further item is started; one that is being produced may still be finished.
    """
    running = _Prefetch(source, depth)
    running.thread.start()
    try:
        yield iter(running)
    finally:
        running.stop()
