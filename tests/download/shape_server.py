"""Serves response shapes on loopback, and asks for each of them: by curl, and by our client."""

import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from urllib.parse import unquote_to_bytes

import trio

from laion_etl.download.client import Client
from laion_etl.download.link_failed import LinkFailed
from laion_etl.download.request_url import parse_request_url
from laion_etl.settings import DownloadSettings
from tests.download.response_shapes import BODY, SHAPES, Shape, sized

_TARGETS = frozenset(
    b"/to/" + path
    for path in (b"gr\xf6\xdfe", b"gr\xf6\xdfe?\xe9", "\u56fe".encode("gbk"), "\u56fe".encode())
)
_LONGEST_S = 120.0  # for a hang


@contextmanager
def shape_server(shapes: Sequence[Shape]) -> Iterator[int]:
    """Serves each shape at its number, `/7`, and an image where redirects lead to. Yields the port."""

    class Answers(StreamRequestHandler):
        timeout = _LONGEST_S

        def handle(self) -> None:
            path = self.rfile.readline().split()[1]
            lines = list(iter(self.rfile.readline, b"\r\n"))
            number = path.partition(b"?")[0].strip(b"/")
            with suppress(OSError):  # the client has seen enough
                if not number.isdigit():
                    found = b"200 OK" if unquote_to_bytes(path) in _TARGETS else b"404 No"
                    self.wfile.write(sized(first=b"HTTP/1.1 " + found))
                    return
                shape = shapes[int(number)]
                self.wfile.write(shape.raw)
                if shape.held and not (shape.waits and _is_curl(lines)):
                    self.rfile.read(1)  # until the client closes

    with served(Answers) as port:
        yield port


@contextmanager
def served(answers: type[StreamRequestHandler]) -> Iterator[int]:
    """Answers on a free port of loopback, which it yields; many clients may come at once."""

    class Server(ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False
        request_queue_size = 256

    with Server(("127.0.0.1", 0), answers) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def _is_curl(lines: list[bytes]) -> bool:
    return any(line.startswith(b"User-Agent: curl/") for line in lines)


def _urls(shapes: Sequence[Shape]) -> list[str]:
    """One host for each, because a host that fails is given up."""
    return [f"http://s{number}.shapes.example/{number}" for number in range(len(shapes))]


def by_curl(shapes: Sequence[Shape], port: int, folder: Path) -> list[str]:
    """Returns the outcomes of one run of curl."""
    blocks = [
        "\n".join(
            [
                f'url = "{url}"',
                f'output = "{folder / str(number)}"',
                f'connect-to = "::127.0.0.1:{port}"',
                'write-out = "%{exitcode} %{http_code}\\n"',
                'noproxy = "*"',
                "silent\nlocation\nhttp1.1\nmax-redirs = 5\nmax-time = 120",
                *(["compressed"] if shape.compressed else []),
            ]
        )
        for number, (url, shape) in enumerate(zip(_urls(shapes), shapes, strict=True))
    ]
    codes: list[list[str]] = []
    while len(codes) < len(blocks):  # some errors end all transfers that are left
        codes += _transfers(blocks[len(codes) :])
    return [_by_curl(code, status, folder / str(number)) for number, (code, status) in enumerate(codes)]


def _transfers(blocks: Sequence[str]) -> list[list[str]]:
    """Returns exit code and status of each transfer."""
    command = [str(shutil.which("curl")), "-q", "--config", "-"]
    done = subprocess.run(
        command, input="\nnext\n".join(blocks), capture_output=True, text=True, check=False, timeout=240
    )
    found = [line.split() for line in done.stdout.splitlines()]
    if not found:
        raise RuntimeError(done.stderr)
    return found


def _by_curl(code: str, status: str, output: Path) -> str:
    if code != "0":
        return f"exit {code}"
    if not status.startswith("2") or status == "204":
        return status
    return "image" if output.exists() and output.read_bytes() == BODY else "other bytes"


def by_ours(shapes: Sequence[Shape], port: int) -> list[str]:
    """Returns the outcomes of our client."""
    settings = DownloadSettings(
        connect_to=(f"*.shapes.example=127.0.0.1:{port}",),
        robots_txt=False,
        tdmrep=False,
        min_bytes=1,
        max_redirects=5,
        timeout_s=_LONGEST_S,
        first_byte_timeout_s=_LONGEST_S,
        idle_timeout_s=_LONGEST_S,
    )
    outcomes = [""] * len(shapes)

    async def one(client: Client, number: int, url: str) -> None:
        try:
            with await client.fetch(parse_request_url(url)) as body:
                outcomes[number] = "image" if body.data() == BODY else "other bytes"
        except LinkFailed as failure:
            is_status = failure.status.value == "http_error"
            outcomes[number] = failure.message if is_status else failure.status.value

    async def main() -> None:
        client = Client(settings)
        async with trio.open_nursery() as nursery:
            for number, url in enumerate(_urls(shapes)):
                nursery.start_soon(one, client, number, url)

    trio.run(main)
    return outcomes


def main() -> None:
    shapes = list(SHAPES.values())
    with shape_server(shapes) as port, tempfile.TemporaryDirectory() as folder:
        found = by_curl(shapes, port, Path(folder))
    for (name, shape), curl in zip(SHAPES.items(), found, strict=True):
        note = shape.why if curl == shape.curl else f"the curl that is installed: {curl}"
        print(f"{name:60} {shape.curl:12} {shape.ours:22} {note}")


if __name__ == "__main__":
    main()
