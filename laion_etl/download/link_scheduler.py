"""Decides which link is next: origins take turns, and those with the most links left come first.

Links of an origin are requested one after another, which reuses its connections, while hundreds of origins
are served in parallel: no server sees a burst, and no long queue remains at the end of the batch. A link that
is not requested, because its origin has been given up or its owner does not want it, does not wait its turn.
"""

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count

from laion_etl.download.link_failed import LinkFailed
from laion_etl.download.politeness import HostLimiter, OriginState, RequestSlot
from laion_etl.download.request_url import RequestUrl


@dataclass(slots=True)
class PendingLink:
    """A link of the batch: its row there, and how often it has been retried."""

    index: int
    target: RequestUrl
    tries: int = 0


@dataclass(slots=True, eq=False)
class OriginQueue:
    """The links of one origin that are still to be requested."""

    state: OriginState
    links: deque[PendingLink] = field(default_factory=deque)
    ready: bool = False
    early: bool = False
    parked: bool = False


_Entry = tuple[int, int, OriginQueue]


class LinkScheduler:
    """The waiting links of a batch; `on_ready` is called when more of them can start.

    `known_refusal` returns why a link is not requested, if that is known. Must be used by one task at a time.
    """

    def __init__(
        self,
        links: Iterable[PendingLink],
        hosts: HostLimiter,
        known_refusal: Callable[[RequestUrl], LinkFailed | None] = lambda _: None,
    ) -> None:
        self._hosts = hosts
        self._known_refusal = known_refusal
        self._queues: dict[tuple[str, str, int], OriginQueue] = {}
        self._order = count()
        # Those that can start, by links left, most first: of origins that deliver images, and of others.
        self._delivering: list[_Entry] = []
        self._others: list[_Entry] = []
        self._early: list[tuple[float, int, OriginQueue]] = []  # by when their next request may start
        self._parked: dict[int, list[OriginQueue]] = {}  # by id of the domain; it or the host is full
        self.waiting = 0
        self.on_ready: Callable[[], None] = lambda: None
        for link in links:
            self._queue(link).links.append(link)
            self.waiting += 1
        for queue in self._queues.values():
            self._make_ready(queue)
        hosts.on_free = self._on_free

    def next(self, now: float) -> tuple[PendingLink, RequestSlot | LinkFailed] | None:
        """Returns the next link and its slot, or why it is not requested.

        Returns None if no link can start now: try again at `next_at`, or when a slot is released.
        """
        return self._next_of(now, self._delivering, self._others)

    def next_without_image(self, now: float) -> tuple[PendingLink, RequestSlot | LinkFailed] | None:
        """As `next`, but only of origins that have delivered no image so far: they keep no decoder busy."""
        return self._next_of(now, self._others)

    @property
    def has_others(self) -> bool:
        """Whether links of origins that have delivered no image so far can start."""
        return bool(self._others)

    def _next_of(
        self, now: float, *heaps: list[_Entry]
    ) -> tuple[PendingLink, RequestSlot | LinkFailed] | None:
        while self._early and self._early[0][0] <= now:
            queue = heapq.heappop(self._early)[2]
            queue.early = False
            self._make_ready(queue)
        while any(heaps):
            queue = heapq.heappop(min(filter(None, heaps)))[2]  # their first entries decide
            queue.ready = False
            if not queue.links:
                continue
            if all(self._heap_of(queue) is not heap for heap in heaps):  # it has delivered since
                self._make_ready(queue)
                continue
            state = queue.state
            found = state.failure or self._hosts.try_enter(state, now)
            # Asked only of a link that has to wait: of others the client finds it out.
            found = found or self._known_refusal(queue.links[0].target)
            if found is not None:
                link = self._taken(queue)
                self._make_ready(queue)
                return link, found
            if state.host.next_at > now:
                self._set_aside(queue)
            else:
                self._park(queue)
        return None

    @property
    def next_at(self) -> float:
        """When the next rate limit or back-off ends (trio time)."""
        return self._early[0][0] if self._early else math.inf

    def put_back(self, link: PendingLink) -> None:
        """Queues a link for another attempt, behind the other links of its origin."""
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

    def _heap_of(self, queue: OriginQueue) -> list[_Entry]:
        return self._delivering if queue.state.delivers else self._others

    def _make_ready(self, queue: OriginQueue) -> None:
        if queue.links and not queue.ready:
            queue.ready = True
            heapq.heappush(self._heap_of(queue), (-len(queue.links), next(self._order), queue))

    def wake(self) -> None:
        """Checks every parked queue again, so that a missed wake-up cannot stall the batch."""
        for parked in self._parked.values():
            self._unpark(parked)

    def _set_aside(self, queue: OriginQueue) -> None:
        """Sets a queue aside until its host may be asked again."""
        if not queue.early:
            queue.early = True
            heapq.heappush(self._early, (queue.state.host.next_at, next(self._order), queue))

    def _park(self, queue: OriginQueue) -> None:
        """Sets a queue aside until a slot of its domain is released."""
        if not queue.parked:
            queue.parked = True
            self._parked.setdefault(id(queue.state.host.domain), []).append(queue)

    def _on_free(self, state: OriginState) -> None:
        own = self._queues.get(state.origin)
        if own is not None and own.links and (state.failure or self._known_refusal(own.links[0].target)):
            self._make_ready(own)  # what was found out meanwhile ends its links
            self.on_ready()
        if parked := self._parked.get(id(state.host.domain)):
            self._unpark(parked)

    def _unpark(self, parked: list[OriginQueue]) -> None:
        free = [queue for queue in parked if not queue.state.full]
        if free:
            parked[:] = [queue for queue in parked if queue.state.full]
            for queue in free:
                queue.parked = False
                self._make_ready(queue)
            self.on_ready()
