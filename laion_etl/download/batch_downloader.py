"""Downloads the links of one batch: starts links as the limits allow and retries failures that may pass."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import trio

from laion_etl.blocklists.image_hashes import HashBlocklist, PdqBlocklist
from laion_etl.blocklists.removed_images import NO_IMAGES, BlockedImages
from laion_etl.core.errors import OutageError
from laion_etl.core.funnel import DownloadStatus, Outcomes
from laion_etl.core.quantities import quantity
from laion_etl.download.client import Client
from laion_etl.download.concurrency import AdaptiveConcurrency, LoadSample
from laion_etl.download.content_opt_out import opted_out_by_metadata
from laion_etl.download.custom_rules import (
    RuleFailedError,
    check_failed_share,
    load_image_rules,
    refused_by,
)
from laion_etl.download.decoders import Decoded, Decoders
from laion_etl.download.hashes import Digests
from laion_etl.download.host_facts import HostKnowledge
from laion_etl.download.images import ImageSettings, StoredImage, undecoded
from laion_etl.download.link_failed import LinkFailed
from laion_etl.download.link_scheduler import LinkScheduler, PendingLink
from laion_etl.download.loss_causes import proxy_advice
from laion_etl.download.metrics import Metrics
from laion_etl.download.politeness import RequestSlot
from laion_etl.download.request_url import DEFAULT_PORTS, parse_request_url
from laion_etl.download.retries import is_crowding, is_worth_retrying
from laion_etl.download.shards import ShardWriter
from laion_etl.download.timings import BatchTimings
from laion_etl.settings import DownloadSettings

_TICK_S = 0.5
# While more images than this wait for each decoder, only links of origins that have delivered none start:
# slow and dead ones among them take long, and need no decoder. While more than the second wait, none start.
_BACKLOG_PER_DECODER, _MOST_PER_DECODER = 8, 128
_MAX_RESOLVER_FAILURE_SHARE = 0.2  # of the links; beyond it the batch goes back to the queue
_FEW_LOOKUPS = 30  # failed ones; as long as others are answered, these may be the fault of their hosts


@dataclass(slots=True)
class Hooks:
    """Callbacks of the caller of a batch.

    `progress` receives the links done and the total; `check` is called at least twice a second and ends the
    batch by raising. `hosts` supplies what other workers know before the batch, and receives what this one
    found out.
    """

    progress: Callable[[int, int], None] | None = None
    check: Callable[[], None] | None = None
    metrics: Metrics | None = None
    hosts: HostKnowledge | None = None


class BatchDownloader:
    """Call `await run()` once; afterwards the counters are final."""

    def __init__(
        self,
        settings: DownloadSettings,
        pairs: list[dict[str, Any]],
        shard: ShardWriter,
        hooks: Hooks,
        removed: BlockedImages = NO_IMAGES,
    ) -> None:
        self.outcomes = Outcomes[DownloadStatus]()
        self.timings = BatchTimings()
        self.resolver_times_s: list[float] = []
        self.hosts = 0
        self.known_hosts = 0  # origins about which other workers had shared facts
        self.policy_requests = 0
        self._settings = settings
        self._pairs = pairs
        self._shard = shard
        self._hooks = hooks
        self._blocklist = HashBlocklist.load(settings.hash_blocklist)
        self._pdq_blocklist = PdqBlocklist.load(settings.pdq_blocklist, settings.pdq_distance)
        self._rules = load_image_rules(settings)
        self._rule_error = ""  # the last exception of a rule
        self._removed = removed
        listed = len(self._pdq_blocklist) + len(removed.near) > 0
        self._image_settings = replace(ImageSettings.from_settings(settings), listed_hashes=listed)
        self._concurrency = AdaptiveConcurrency(settings.connections)
        self._in_flight = 0
        self._wanted_more = False
        self._since_tick: Counter[str] = Counter()
        self._changed = trio.Event()
        self._client: Client
        self._decoders: Decoders
        self._scheduler: LinkScheduler

    @property
    def max_in_flight(self) -> int:
        return self._concurrency.peak

    async def run(self) -> None:
        """Downloads every link.

        Raises OutageError if name resolution failed for too many links, InternalError if custom rules did.
        """
        self._client = Client(self._settings, self.timings)
        links = self._links()
        self._recall(links)
        self._scheduler = LinkScheduler(links, self._client.hosts, self._client.policy.known_refusal)
        self._scheduler.on_ready = self._wake
        async with (
            Decoders(self._settings, self._image_settings) as self._decoders,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(self._tick)
            await self._dispatch(nursery)
            nursery.cancel_scope.cancel()
        await self._client.pool.close_idle(0)
        self.resolver_times_s = self._client.resolver.times_s
        self.hosts = len(self._client.hosts)
        self.policy_requests = self._client.policy.requests
        self._share()
        lost = self.outcomes.dropped.get(DownloadStatus.RESOLVER_FAILED.value, 0)
        are_few = self.resolver_times_s and self._client.resolver.troubles <= _FEW_LOOKUPS
        if lost > _MAX_RESOLVER_FAILURE_SHARE * len(self._pairs) and not are_few:
            cause = "the resolver is saturated or unreachable; "
            advice = proxy_advice() or "run a resolver nearby, or set LAION_ETL_DOWNLOAD_NAMESERVERS"
            raise OutageError(
                f"cannot resolve the hosts of {lost} of {quantity(len(self._pairs), 'link')}: {cause}{advice}"
            )
        check_failed_share(self.outcomes, self._rule_error)

    def _links(self) -> list[PendingLink]:
        """Returns the links that can be requested; the others are counted as failed right away."""
        links = []
        for index, pair in enumerate(self._pairs):
            try:
                target = parse_request_url(pair["url"])
                self._client.pool.check_port(target)
            except LinkFailed as failure:
                self._fail(index, failure)
            else:
                links.append(PendingLink(index, target))
        return links

    def _recall(self, links: Sequence[PendingLink]) -> None:
        """Takes over what other workers know of the hosts of the batch."""
        if self._hooks.hosts is None:
            return
        hosts = {link.target.host for link in links}
        # The other scheme of each host, too: most redirects lead there.
        usual = {(scheme, host, port) for host in hosts for scheme, port in DEFAULT_PORTS.items()}
        facts = self._hooks.hosts.read(usual | {link.target.origin for link in links})
        self.known_hosts = len(facts)
        self._client.know(facts)
        self._client.hosts.begin(self._hooks.hosts.workers, trio.current_time())

    def _share(self) -> None:
        if self._hooks.hosts is not None:
            self._hooks.hosts.write(self._client.learned())

    async def _dispatch(self, nursery: trio.Nursery) -> None:
        while self._scheduler.waiting or self._in_flight:
            self._changed = trio.Event()
            while (found := self._next()) is not None:
                link, slot = found
                if isinstance(slot, LinkFailed):
                    self._fail(link.index, slot)
                    await trio.lowlevel.checkpoint()  # there may be thousands of them
                else:
                    self._in_flight += 1
                    nursery.start_soon(self._link, link, slot)
            now = trio.current_time()
            # At the limit, only a link that ends can change anything.
            due = self._scheduler.next_at if self._can_start() else now + _TICK_S
            with trio.move_on_at(min(due, now + _TICK_S)) as waited:
                await self._changed.wait()
            if waited.cancelled_caught and not self._in_flight:
                self._scheduler.wake()

    def _wake(self) -> None:
        self._changed.set()

    def _next(self) -> tuple[PendingLink, RequestSlot | LinkFailed] | None:
        """Returns a link that can start, with its slot, or one that is not requested; None: wait."""
        is_busy = self._decoders.backlog > _BACKLOG_PER_DECODER * self._decoders.processes
        if self._can_start():
            now = trio.current_time()
            return self._scheduler.next_without_image(now) if is_busy else self._scheduler.next(now)
        if self._in_flight >= self._concurrency.limit and (not is_busy or self._scheduler.has_others):
            self._wanted_more = True
        return None

    def _can_start(self) -> bool:
        if self._decoders.backlog > _MOST_PER_DECODER * self._decoders.processes:
            return False
        return self._in_flight < self._concurrency.limit

    async def _tick(self) -> None:
        """Twice a second, or more often: adapts the limit, closes idle connections and calls `check`."""
        while True:
            due = trio.current_time() + self._concurrency.sample_s
            await trio.sleep_until(due)
            late_s = trio.current_time() - due
            counted = self._since_tick
            self._concurrency.update(
                LoadSample(late_s, self._wanted_more, counted["answered"], counted["timeouts"])
            )
            self._since_tick, self._wanted_more = Counter(), False
            await self._client.pool.close_idle()
            if self._hooks.check is not None:
                self._hooks.check()
            if self._hooks.hosts is not None:
                self._client.hosts.divide(self._hooks.hosts.workers)
            if self._hooks.metrics is not None:
                self._hooks.metrics.in_flight = self._in_flight
                await trio.to_thread.run_sync(self._hooks.metrics.flush)

    async def _link(self, link: PendingLink, slot: RequestSlot) -> None:
        hashes: list[Digests] = []
        try:
            await self._fetch(link, slot, hashes)
        except LinkFailed as failure:
            self._since_tick["timeouts" if is_crowding(failure, slot.state) else "answered"] += 1
            if is_worth_retrying(failure, slot.state, link, self._settings.retries):
                self.timings.retries += 1
                self._scheduler.put_back(link)
            else:
                self._fail(link.index, failure, hashes[0] if hashes else None)
        finally:
            self._in_flight -= 1
            self._wake()

    async def _fetch(self, link: PendingLink, slot: RequestSlot, hashes: list[Digests]) -> None:
        """Downloads and decodes one image. Its digests go into `hashes`, also if it is refused afterwards."""
        with await self._client.fetch(link.target, slot) as body:
            slot.state.delivers = True
            decoded = await self._decode(body.data())
        if decoded.hashes is not None:
            hashes.append(decoded.hashes)
        image = self._accepted(decoded)
        self._since_tick["answered"] += 1
        self.outcomes.keep()
        self._shard.add_image(link.index, image, hashes[0])
        if self._hooks.metrics is not None:
            self._hooks.metrics.kept(body.size, self.timings.total[-1])
        self._progress()

    async def _decode(self, data: bytes) -> Decoded:
        """Decodes in a decoder process, or reads only the header where that is enough."""
        image = undecoded(data, self._image_settings)
        if image is None:
            return await self._decoders.decode(data)
        if self._settings.opt_out and opted_out_by_metadata(data):
            return Decoded(DownloadStatus.OPTED_OUT_METADATA, Digests.from_bytes(data))
        return Decoded(image, Digests.from_bytes(data))

    def _accepted(self, decoded: Decoded) -> StoredImage:
        """Returns the image. Raises LinkFailed if it is refused or blocked, so that it is never stored."""
        hashes, found = decoded.hashes, decoded.found
        digests = (bytes.fromhex(hashes.md5), bytes.fromhex(hashes.sha256)) if hashes else None
        if digests and (self._blocklist.matches(*digests) or self._removed.hashes.matches(*digests)):
            raise LinkFailed(DownloadStatus.BLOCKED_HASH)
        if not isinstance(found, StoredImage):
            raise LinkFailed(found)
        for pdq in found.compared_hashes:
            if self._pdq_blocklist.matches(pdq) or self._removed.near.matches(pdq):
                raise LinkFailed(DownloadStatus.BLOCKED_HASH, "PDQ")
        try:
            reason = refused_by(self._rules, found)
        except RuleFailedError as error:
            self._rule_error = str(error)
            raise LinkFailed(DownloadStatus.INTERNAL_ERROR, str(error)) from error
        if reason is not None:
            raise LinkFailed(DownloadStatus.REFUSED_BY_RULE, reason)
        return found

    def _fail(self, index: int, failure: LinkFailed, hashes: Digests | None = None) -> None:
        self.outcomes.drop(failure.status)
        self._shard.add_failure(index, failure.status, failure.message, hashes)
        if self._hooks.metrics is not None:
            self._hooks.metrics.dropped(failure.status)
        self._progress()

    def _progress(self) -> None:
        if self._hooks.progress is not None:
            self._hooks.progress(self.outcomes.input, len(self._pairs))
