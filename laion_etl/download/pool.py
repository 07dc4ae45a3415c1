"""The connections of a batch: opened to checked addresses, reused while the server keeps them open."""

from collections import defaultdict

import trio

from laion_etl.core.funnel import DownloadStatus
from laion_etl.download.deadlines import RequestDeadline
from laion_etl.download.http1 import MAX_HEAD_BYTES, Connection
from laion_etl.download.link_failed import LinkFailed
from laion_etl.download.request_url import Origin, RequestUrl
from laion_etl.download.resolver import Resolver
from laion_etl.download.timings import BatchTimings
from laion_etl.download.transport import TcpStream, Tls, TlsStream, connect
from laion_etl.settings import DownloadSettings

_MAX_IDLE_S = 4.0  # servers commonly close idle connections after five
_FRAMING_BYTES = 200_000  # chunk framing and trailers on top of head and body


class PooledConnection(Connection):
    """A connection whose stream can be checked and closed."""

    stream: TcpStream | TlsStream
    idle_since: float = 0.0


class Pool:
    """Hands out connections; give back each one that was taken."""

    def __init__(self, settings: DownloadSettings, resolver: Resolver, timings: BatchTimings) -> None:
        self._settings = settings
        self._resolver = resolver
        self._timings = timings
        self._idle: defaultdict[Origin, list[PooledConnection]] = defaultdict(list)
        self._tls = Tls(verify=settings.verify_tls)
        self._budget = settings.max_bytes + MAX_HEAD_BYTES + _FRAMING_BYTES

    def check_port(self, target: RequestUrl) -> None:
        """Raises LinkFailed if the settings do not allow the port."""
        if target.port not in self._settings.ports:
            raise LinkFailed(DownloadStatus.PORT_REFUSED)

    async def take(self, target: RequestUrl, deadline: RequestDeadline) -> PooledConnection:
        """Returns an idle or new connection to the target's origin. Raises LinkFailed."""
        idle = self._idle.get(target.origin, [])
        while idle:
            connection = idle.pop()
            if connection.stream.silent:
                self._timings.reused += 1
                return connection
            await connection.stream.close()
        return await self._open(target, deadline)

    async def give_back(self, origin: Origin, connection: PooledConnection) -> None:
        """Keeps the connection for later if it is reusable, else closes it."""
        if connection.reusable:
            connection.idle_since = trio.current_time()
            self._idle[origin].append(connection)
        else:
            await connection.stream.close()

    async def close_idle(self, max_idle_s: float = _MAX_IDLE_S) -> None:
        """Closes connections that have been idle for longer than this."""
        oldest = trio.current_time() - max_idle_s
        for origin in list(self._idle):
            connections = self._idle[origin]
            for connection in [one for one in connections if one.idle_since <= oldest]:
                connections.remove(connection)
                await connection.stream.close()
            if not connections:
                del self._idle[origin]

    async def _open(self, target: RequestUrl, deadline: RequestDeadline) -> PooledConnection:
        settings, endpoint = self._settings, self._resolver.override(target.host)
        self.check_port(target)
        if endpoint is not None:
            endpoints = [endpoint]
        else:
            with deadline.paused():  # lookups have their own limit, and queue behind each other
                addresses = await self._resolver.resolve(target.host)
            endpoints = [(address, target.port) for address in addresses]
        started = trio.current_time()
        with deadline.step(DownloadStatus.CONNECT_TIMEOUT, "", settings.connect_timeout_s):
            sock = await connect(endpoints)
        self._timings.connections += 1
        self._timings.connect.append(trio.current_time() - started)
        if target.scheme == "http":
            return PooledConnection(TcpStream(sock), self._budget)
        try:
            with deadline.step(DownloadStatus.TLS_FAILED, "timeout", settings.tls_timeout_s):
                return PooledConnection(await self._tls.encrypt(sock, target.host), self._budget)
        finally:
            self._timings.tls.append(trio.current_time() - started)
