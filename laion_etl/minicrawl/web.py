"""The loopback web server of the mini crawl: its crawl files, and its images by Host header.

asyncio in its own thread: hundreds of slow, silent or endless connections cost nothing, and an image is
served in well under a millisecond once it is drawn.
"""

import asyncio
import re
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import ClassVar

from laion_etl.core.errors import DemoError
from laion_etl.minicrawl.answers import HANDLERS, Answer, Handler, response_head
from laion_etl.minicrawl.behaviours import SHOPS, SITES, Behaviour
from laion_etl.minicrawl.build import MiniCrawl
from laion_etl.minicrawl.drawn_images import DrawnImage, ImageFolder

_MAX_HEAD_BYTES = 16 * 1024
_IDLE_S = 60.0
_TLS_HANDSHAKE = b"\x16"
_START_S = 60.0  # for a hang


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    target: str
    host: str
    start: int  # of a `Range: bytes=N-` request
    keep_alive: bool


class MiniWeb:
    """`with MiniWeb(crawl) as web:` serves on 127.0.0.1 until the block ends.

    `port` 0 picks a free one. `requests` counts the requests answered. The first start of a user
    draws all images, so that drawing delays no answer.
    """

    handlers: ClassVar[Mapping[Behaviour, Handler]] = HANDLERS

    def __init__(self, crawl: MiniCrawl, port: int = 0) -> None:
        self.port = port
        self.requests = 0
        self._crawl = crawl
        self._images = ImageFolder(crawl.folder / "images")
        self._pool = ThreadPoolExecutor(2, "minicrawl-draw")
        self._thread = threading.Thread(target=self._serve, name="minicrawl-web", daemon=True)
        self._ready = threading.Event()
        self._failure: OSError | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def connect_to(self) -> tuple[str, ...]:
        """For LAION_ETL_DOWNLOAD_CONNECT_TO."""
        return self._crawl.connect_to(self.port)

    def __enter__(self) -> "MiniWeb":
        self._images.draw_all(self._crawl.world.images)
        self._thread.start()
        if not self._ready.wait(_START_S):
            raise DemoError(
                f"cannot serve the mini crawl: its web server did not start within {_START_S:g} s"
            )
        if self._failure is not None:
            raise DemoError(
                f"cannot serve the mini crawl on port {self.port}: {self._failure.strerror}; try --port 0"
            ) from self._failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_START_S)
        self._pool.shutdown(cancel_futures=True)

    def _serve(self) -> None:
        try:
            asyncio.run(self._run())
        except OSError as error:
            self._failure = error
        finally:
            self._ready.set()

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        connections: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(self._connection(reader, writer))
            connections.add(task)
            task.add_done_callback(connections.discard)

        server = await asyncio.start_server(
            accept, "127.0.0.1", self.port, limit=_MAX_HEAD_BYTES, backlog=1_024
        )
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            going = True
            while going:
                async with asyncio.timeout(_IDLE_S):
                    head = await _read_head(reader)
                going = await self._respond(head, writer)
        except asyncio.LimitOverrunError:
            writer.write(response_head(400, {"Content-Length": "0", "Connection": "close"}))
        except (asyncio.IncompleteReadError, TimeoutError, OSError):
            writer.transport.abort()  # the client went away or idled: no answer is possible
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        finally:
            writer.close()

    async def _respond(self, head: bytes, writer: asyncio.StreamWriter) -> bool:
        """Answers one request; returns whether the connection stays open."""
        request = _parse(head)
        if request is None or request.method != "GET":
            writer.write(response_head(400, {"Content-Length": "0", "Connection": "close"}))
            return False
        self.requests += 1
        if request.host.endswith((f".{SITES}", f".{SHOPS}")):
            return await self._site(request, writer) and request.keep_alive
        return await self._mirror(request, writer) and request.keep_alive

    async def _site(self, request: _Request, writer: asyncio.StreamWriter) -> bool:
        resource = self._crawl.world.resources.get((request.host, request.target))
        if resource is None:
            writer.write(response_head(404, {"Content-Length": "0"}))
            return True
        data = await self._draw(resource.image) if resource.image else b""
        return await self.handlers[resource.behaviour](Answer(writer, resource, data))

    async def _draw(self, image: DrawnImage) -> bytes:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._images.read, image)

    async def _mirror(self, request: _Request, writer: asyncio.StreamWriter) -> bool:
        path = self._crawl.source_file(request.target)
        if path is None:
            writer.write(response_head(404, {"Content-Length": "0"}))
            return True
        data = await asyncio.to_thread(_read_from, path, request.start)
        headers = {"Content-Length": str(len(data)), "Accept-Ranges": "bytes"}
        if request.start:
            last = request.start + len(data) - 1
            headers["Content-Range"] = f"bytes {request.start}-{last}/{request.start + len(data)}"
        writer.write(response_head(206 if request.start else 200, headers) + data)
        await writer.drain()
        return True


async def _read_head(reader: asyncio.StreamReader) -> bytes:
    """A request head; TLS handshakes are returned at once, since they have no head that could end."""
    first = await reader.readexactly(1)
    return first if first == _TLS_HANDSHAKE else first + await reader.readuntil(b"\r\n\r\n")


def _read_from(path: Path, start: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read()


def _parse(head: bytes) -> _Request | None:
    lines = head.decode("latin-1").split("\r\n")
    first = lines[0].split(" ")
    if len(first) != 3 or not first[2].startswith("HTTP/1."):
        return None
    headers = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    host = headers.get("host", "").lower()
    start = re.fullmatch(r"bytes=(\d+)-", headers.get("range", ""))
    return _Request(
        method=first[0],
        target=first[1],
        host=re.sub(r":\d+$", "", host),
        start=int(start[1]) if start else 0,
        keep_alive=headers.get("connection", "").lower() != "close" and first[2] == "HTTP/1.1",
    )
