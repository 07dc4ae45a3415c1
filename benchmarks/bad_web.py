"""Servers that waste a downloader's time: slow ones, endless ones, and ports that accept no connection."""

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n"
_MAX_CONNECTION_S = 60.0  # even these hang up after that: img2dataset has no limit and would never end
_SLOW_PART, _SLOW_EVERY_S = 16, 0.4


@dataclass(frozen=True, slots=True)
class BadWeb:
    """Ports on all of 127.0.0.0/8."""

    slow: int
    endless: int
    black_hole: int
    closed: int


@contextmanager
def bad_web() -> Iterator[BadWeb]:
    with socket.socket() as hole, socket.socket() as closed:
        hole.bind(("0.0.0.0", 0))  # noqa: S104 - reached by its loopback addresses
        hole.listen(0)
        waiting = [socket.socket() for _ in range(8)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", hole.getsockname()[1]))
        closed.bind(("0.0.0.0", 0))  # noqa: S104 - bound, but not listening
        ports: list[int] = []
        ready = threading.Event()
        threading.Thread(target=lambda: asyncio.run(_serve(ports, ready)), daemon=True).start()
        ready.wait()
        yield BadWeb(ports[0], ports[1], hole.getsockname()[1], closed.getsockname()[1])
        for sock in waiting:
            sock.close()


async def _serve(ports: list[int], ready: threading.Event) -> None:
    for answer in (_slow, _endless):
        server = await asyncio.start_server(_handler(answer), "0.0.0.0", 0, backlog=4_096)  # noqa: S104
        ports.append(server.sockets[0].getsockname()[1])
    ready.set()
    await asyncio.Event().wait()


def _handler(
    answer: Callable[[asyncio.StreamWriter], Awaitable[None]],
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if b"/robots.txt" in head or b"/.well-known/" in head:
                writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            else:
                await answer(writer)
        except (OSError, asyncio.IncompleteReadError):
            writer.transport.abort()
        finally:
            writer.close()

    return handle


async def _slow(writer: asyncio.StreamWriter) -> None:
    writer.write(_HEAD + b"Content-Length: 100000\r\n\r\n\xff\xd8\xff\xe0")
    end = time.monotonic() + _MAX_CONNECTION_S
    while time.monotonic() < end:
        writer.write(bytes(_SLOW_PART))
        await writer.drain()
        await asyncio.sleep(_SLOW_EVERY_S)


async def _endless(writer: asyncio.StreamWriter) -> None:
    writer.write(_HEAD + b"\r\n\xff\xd8\xff\xe0")
    end = time.monotonic() + _MAX_CONNECTION_S
    while time.monotonic() < end:
        writer.write(bytes(4_096))
        await writer.drain()
        await asyncio.sleep(0.05)
