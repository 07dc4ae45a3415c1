"""Which link is next: hosts take turns, and those with the most links left come first.

The links of a host follow each other, so that its connections are used again, while hundreds of hosts are
talked to side by side: no server sees a burst, and no long host is left over for the end.
"""

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count

from laion_etl.download.politeness import HostLimiter, OriginState, RequestSlot
from laion_etl.download.request_url import RequestUrl


@dataclass(slots=True)
class PendingLink:
    """A link of the batch: its row there, and how often it has been tried."""

    index: int
    target: RequestUrl
    tries: int = 0


@dataclass(slots=True, eq=False)
class OriginQueue:
    """The links of one site that are still to be tried."""

    state: OriginState
    links: deque[PendingLink] = field(default_factory=deque)
    parked: bool = False


class LinkScheduler:
    """The links of a batch that wait; `on_ready` is called when more of them can be begun.

    Not for use by several tasks at once.
    """

    def __init__(self, links: Iterable[PendingLink], hosts: HostLimiter) -> None:
        self._hosts = hosts
        self._queues: dict[tuple[str, str, int], OriginQueue] = {}
        self._order = count()
        self._ready: list[tuple[int, int, OriginQueue]] = []  # by links left, most first
        self._early: list[tuple[float, int, OriginQueue]] = []  # by when they may be asked
        self._parked: dict[int, list[OriginQueue]] = {}  # of a domain, while it or their host is full
        self.waiting = 0
        self.on_ready: Callable[[], None] = lambda: None
        for link in links:
            self._queue(link).links.append(link)
            self.waiting += 1
        for queue in self._queues.values():
            self._make_ready(queue)
        hosts.on_free = self._on_free

    def next(self, now: float) -> tuple[PendingLink, RequestSlot | None] | None:
        """The next link with the turn to ask its host; no turn when its host has been given up.

        None when nothing can be begun now: `next_at` says when to look again, or a turn has to end first.
        """
        while self._early and self._early[0][0] <= now:
            self._make_ready(heapq.heappop(self._early)[2])
        while self._ready:
            queue = heapq.heappop(self._ready)[2]
            if not queue.links:
                continue
            state = queue.state
            if state.failure is not None:
                self._make_ready(queue)
                return self._taken(queue), None
            if state.host.next_at > now:
                heapq.heappush(self._early, (state.host.next_at, next(self._order), queue))
                continue
            slot = self._hosts.try_enter(state, now)
            if slot is None:
                self._park(queue)
                continue
            link = self._taken(queue)
            self._make_ready(queue)
            return link, slot
        return None

    @property
    def next_at(self) -> float:
        """When a host that must not be asked yet may be."""
        return self._early[0][0] if self._early else math.inf

    def put_back(self, link: PendingLink) -> None:
        """A link that is to be tried again, after the others of its host."""
        queue = self._queue(link)
        queue.links.append(link)
        self.waiting += 1
        if len(queue.links) == 1 and not queue.parked:
            self._make_ready(queue)

    def _taken(self, queue: OriginQueue) -> PendingLink:
        self.waiting -= 1
        return queue.links.popleft()

    def _queue(self, link: PendingLink) -> OriginQueue:
        origin = link.target.origin
        queue = self._queues.get(origin)
        if queue is None:
            queue = self._queues[origin] = OriginQueue(self._hosts.origin_state(link.target))
        return queue

    def _make_ready(self, queue: OriginQueue) -> None:
        queue.parked = False
        if queue.links:
            heapq.heappush(self._ready, (-len(queue.links), next(self._order), queue))

    def wake(self) -> None:
        """Looks at everything again: whatever was missed, a batch ends."""
        for parked in self._parked.values():
            self._unpark(parked)

    def _park(self, queue: OriginQueue) -> None:
        """Out of the way until a turn of its domain has ended."""
        queue.parked = True
        self._parked.setdefault(id(queue.state.host.domain), []).append(queue)

    def _on_free(self, state: OriginState) -> None:
        if parked := self._parked.get(id(state.host.domain)):
            self._unpark(parked)

    def _unpark(self, parked: list[OriginQueue]) -> None:
        free = [queue for queue in parked if not queue.state.full]
        if free:
            parked[:] = [queue for queue in parked if queue.state.full]
            for queue in free:
                self._make_ready(queue)
            self.on_ready()
