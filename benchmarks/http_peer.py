"""asks as the downloader first used it; benchmarks.http_client runs it in the peers' environment.

    python benchmarks/http_peer.py PORT REQUESTS

Its request, its reader, a session that keeps connections. Prints one JSON object: milliseconds of processor
time a request. Needs the packages of benchmarks/peers.txt, and no code of this project.
"""

import json
import resource
import sys
from collections.abc import Iterator

import asks
import trio

# asks 3.0 needs anyio 3, which needs names that trio has removed: unpatched, they do not work together.
trio.MultiError = BaseExceptionGroup  # type: ignore[attr-defined]
trio.NonBaseMultiError = ExceptionGroup  # type: ignore[attr-defined]

_PHOTOS = 100
_CONNECTIONS = 32


async def fetch(numbers: Iterator[int], port: int) -> None:
    session = asks.Session(f"http://127.0.0.1:{port}", connections=1)
    for number in numbers:
        response = await session.get(path=f"/{number % _PHOTOS:03d}.jpg")
        assert len(response.content) > 1_000


def cpu_ms(requests: int, port: int) -> float:
    """Processor time of this process for one request, milliseconds."""

    async def main() -> None:
        numbers = iter(range(requests))
        async with trio.open_nursery() as nursery:
            for _ in range(_CONNECTIONS):
                nursery.start_soon(fetch, numbers, port)

    before = resource.getrusage(resource.RUSAGE_SELF)
    trio.run(main)
    after = resource.getrusage(resource.RUSAGE_SELF)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / requests * 1_000


if __name__ == "__main__":
    print(json.dumps({"cpu_ms": cpu_ms(int(sys.argv[2]), int(sys.argv[1]))}))
