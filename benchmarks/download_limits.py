"""Lower limits of the cost of downloading; benchmarks.download runs it in separate processes.

    python -m benchmarks.download_limits URLS          requests on kept connections, bodies thrown away
    python -m benchmarks.download_limits PHOTO...      one decoder's work on files that are in memory

Prints one JSON object: milliseconds of processor time for one link or photo.
"""

import json
import re
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from laion_etl.download.decoder_process import answer
from laion_etl.download.images import ImageSettings
from laion_etl.settings import DownloadSettings

_LENGTH = re.compile(rb"Content-Length: (\d+)")


def main() -> None:
    names = sys.argv[1:]
    if names[0].endswith(".jpg"):
        photos = [Path(name).read_bytes() for name in names]
        settings = ImageSettings.from_settings(DownloadSettings(perceptual_hashes=False))
        spent_ms = cpu_ms(lambda photo: answer(photo, settings, opt_out=False), photos)
    else:
        links = [link.removeprefix("http://").partition("/") for link in Path(names[0]).read_text().split()]
        host, port = links[0][0].split(":")
        with socket.create_connection((host, int(port))) as sock:
            buffer = memoryview(bytearray(1 << 20))
            spent_ms = cpu_ms(lambda link: request(sock, link[2], buffer), links)
    print(json.dumps({"kept": len(names), "cpu_ms": round(spent_ms, 3)}))


def cpu_ms(work: Callable[[Any], object], items: Sequence[Any]) -> float:
    work(items[0])
    began = time.process_time()
    for item in items:
        work(item)
    return (time.process_time() - began) / len(items) * 1_000


def request(sock: socket.socket, path: str, buffer: memoryview) -> None:
    sock.sendall(f"GET /{path} HTTP/1.1\r\nHost: b\r\n\r\n".encode())
    head = sock.recv(65_536)
    found = _LENGTH.search(head)
    assert found is not None
    left = int(found[1]) - (len(head) - head.index(b"\r\n\r\n") - 4)
    while left > 0:
        left -= sock.recv_into(buffer)


if __name__ == "__main__":
    main()
