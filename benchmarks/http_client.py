"""HTTP clients over trio compared: processor time for one image from nginx on loopback.

    python -m benchmarks.http_client [--requests N]

asks as the downloader first used it (http_peer.py, in the environment of `make peers`, without which it is
left out), h11 on bare sockets, and our reader with connections kept and with a new one for each request.
Nothing is checked, resolved or decoded: this is the cost of the bare request.
"""

import argparse
import json
import resource
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import h11
import trio
from rich.console import Console
from rich.table import Table

from benchmarks.download import nginx
from benchmarks.photos import make_photos
from laion_etl.download.http1 import Connection
from laion_etl.download.transport import TcpStream, connect

_PEERS = Path(".venv-peers/bin/python")
_PHOTOS = 100
_CONNECTIONS = 32

Fetch = Callable[[Iterator[int], int], Awaitable[None]]


def path_of(number: int) -> str:
    return f"/{number % _PHOTOS:03d}.jpg"


async def by_h11(numbers: Iterator[int], port: int) -> None:
    sock = await connect([("127.0.0.1", port)])
    state = h11.Connection(h11.CLIENT)
    for number in numbers:
        request = h11.Request(method="GET", target=path_of(number), headers=[("Host", "127.0.0.1")])
        await sock.send((state.send(request) or b"") + (state.send(h11.EndOfMessage()) or b""))
        body = bytearray()
        while not isinstance(event := state.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                state.receive_data(await sock.recv(65_536))
            elif isinstance(event, h11.Data):
                body += event.data
        assert len(body) > 1_000
        state.start_next_cycle()
    sock.close()


class _NoLimits:
    def waiting_for_answer(self) -> None: ...
    def answering(self) -> None: ...


async def _one(connection: Connection, number: int) -> None:
    message = f"GET {path_of(number)} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    await connection.request(message, _NoLimits())
    body = bytearray()
    while part := await connection.part():
        body += part
    assert len(body) > 1_000


async def by_ours(numbers: Iterator[int], port: int) -> None:
    stream = TcpStream(await connect([("127.0.0.1", port)]))
    connection = Connection(stream, 1 << 40)
    for number in numbers:
        await _one(connection, number)
    await stream.close()


async def by_ours_anew(numbers: Iterator[int], port: int) -> None:
    for number in numbers:
        stream = TcpStream(await connect([("127.0.0.1", port)]))
        await _one(Connection(stream, 1 << 40), number)
        await stream.close()


def cpu_ms(fetch: Fetch, requests: int, port: int) -> float:
    """Processor time of this process for one request, milliseconds."""

    async def main() -> None:
        numbers = iter(range(requests))
        async with trio.open_nursery() as nursery:
            for _ in range(_CONNECTIONS):
                nursery.start_soon(fetch, numbers, port)

    before = resource.getrusage(resource.RUSAGE_SELF)
    trio.run(main)
    after = resource.getrusage(resource.RUSAGE_SELF)
    spent_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent_s / requests * 1_000


def asks_cpu_ms(requests: int, port: int) -> float:
    """The same of asks, in the peers' environment."""
    command = [str(_PEERS), "benchmarks/http_peer.py", str(port), str(requests)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout.splitlines()[-1])["cpu_ms"])


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--requests", type=int, default=5_000)
    arguments.add_argument("--port", type=int, default=8_098)
    options = arguments.parse_args()
    clients: dict[str, Fetch] = {
        "trio and h11": by_h11,
        "ours": by_ours,
        "ours, a new connection each": by_ours_anew,
    }
    with tempfile.TemporaryDirectory(prefix="laion-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        make_photos(folder / "photos", _PHOTOS)
        with nginx(folder, options.port):
            found = {
                name: min(cpu_ms(fetch, options.requests, options.port) for _ in range(2))
                for name, fetch in clients.items()
            }
            if _PEERS.exists():
                found["asks"] = min(asks_cpu_ms(options.requests, options.port) for _ in range(2))
    table = Table("client", "CPU ms a request", "of ours")
    for name, spent_ms in found.items():
        table.add_row(name, f"{spent_ms:.3f}", f"{spent_ms / found['ours']:.1f}x")
    console = Console(width=80)
    console.print(table)
    if "asks" not in found:
        console.print(f"without asks: {_PEERS} is not there (make peers)")


if __name__ == "__main__":
    main()
