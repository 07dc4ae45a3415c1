"""The memory budget in bytes that all response bodies of a worker share, whatever the servers send."""

from types import TracebackType

import trio

_FREE_BYTES = 128_000  # of every body, not counted against the budget
_STEP_BYTES = 512_000
_SMALL_BYTES = 4_096


class BufferedBody:
    """The body of one link; its share of the budget is returned when the block ends, or by `release`."""

    def __init__(self, budget: "MemoryBudget") -> None:
        self.size = 0
        self.held = 0  # bytes of the budget
        self._parts: list[bytes | bytearray] = []
        self._budget = budget

    def add(self, part: bytes) -> None:
        """Keeps a part that was received. Small ones are put together: each would take memory of its own."""
        self.size += len(part)
        if len(part) >= _SMALL_BYTES:
            self._parts.append(part)
        elif self._parts and isinstance(self._parts[-1], bytearray):
            self._parts[-1] += part
        else:
            self._parts.append(bytearray(part))

    def beginning(self, size: int) -> bytes:
        """Returns the first bytes, at most `size`."""
        first = self._parts[0] if self._parts else b""
        if len(first) < min(size, self.size):
            return self.data()[:size]
        return bytes(first if len(first) <= size else memoryview(first)[:size])

    def data(self) -> bytes:
        """Returns all that was received."""
        if len(self._parts) != 1 or not isinstance(self._parts[0], bytes):
            self._parts = [b"".join(self._parts)]
        return bytes(self._parts[0])

    def clear(self) -> None:
        """Forgets what was received."""
        self._parts = []

    @property
    def needs_budget(self) -> bool:
        """Whether `acquire` must be called before more is read."""
        return self.size > _FREE_BYTES + self.held

    async def acquire(self) -> None:
        """Waits until the budget covers what was read and one more step."""
        wanted = self.size - _FREE_BYTES - self.held
        await self._budget.take(self, max(wanted, 0) + _STEP_BYTES)

    def release(self) -> None:
        self._budget.give_back(self)

    def __enter__(self) -> "BufferedBody":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class MemoryBudget:
    """`limit` bytes for all bodies together, granted in the order of requests.

    When every body that holds a share waits for more, none would ever return its share (a deadlock). Then the
    first of them may exceed the limit until it is complete, and no other body meanwhile.
    """

    def __init__(self, limit: int) -> None:
        self.used = 0
        self._limit = limit
        self._holders = 0
        self._overcommitted: BufferedBody | None = None  # the one that may exceed the limit
        self._waiting: list[tuple[BufferedBody, int, trio.Event]] = []

    async def take(self, body: BufferedBody, size: int) -> None:
        if not self._waiting and self.used + size <= self._limit:
            self._grant(body, size)
            return
        entry = (body, size, trio.Event())
        self._waiting.append(entry)
        try:
            self._grant_waiters()
            await entry[2].wait()
        except BaseException:
            if entry in self._waiting:
                self._waiting.remove(entry)
                self._grant_waiters()
            raise

    def give_back(self, body: BufferedBody) -> None:
        if body.held:
            self.used -= body.held
            self._holders -= 1
            body.held = 0
            if body is self._overcommitted:
                self._overcommitted = None
            self._grant_waiters()

    def _grant(self, body: BufferedBody, size: int) -> None:
        self._holders += not body.held
        body.held += size
        self.used += size

    def _grant_waiters(self) -> None:
        while self._waiting:
            chosen = self._waiting[0]
            if self.used + chosen[1] > self._limit:
                holding = [entry for entry in self._waiting if entry[0].held]
                if len(holding) < self._holders:
                    return
                chosen = self._first(holding) if holding else chosen
            self._waiting.remove(chosen)
            self._grant(chosen[0], chosen[1])
            chosen[2].set()

    def _first(
        self, holding: list[tuple[BufferedBody, int, trio.Event]]
    ) -> tuple[BufferedBody, int, trio.Event]:
        chosen = next((entry for entry in holding if entry[0] is self._overcommitted), holding[0])
        self._overcommitted = chosen[0]
        return chosen
