"""A decoder: a process that turns image bytes into stored pictures, one at a time, until its input ends.

It runs under a memory limit and is killed when it takes too long or when its parent dies. It imports as
little as possible, and what it answers is parsed as JSON and bytes, never unpickled.

In:  4 bytes length, image bytes.    Out: 4 bytes length of JSON, 4 bytes length of data, JSON, data.
The JSON is {"status": reason} or the fields of a Picture; no data means "the bytes as they came".
"""

import ctypes
import json
import resource
import signal
import struct
import sys
from typing import BinaryIO

from laion_etl.download.images import ImageLimits, Picture, decode

REQUEST = struct.Struct(">I")
ANSWER = struct.Struct(">II")
_PR_SET_PDEATHSIG = 1


def answer(data: bytes, limits: ImageLimits) -> bytes:
    """The framed answer for one image."""
    found = decode(data, limits)
    header: dict[str, str | int]
    if not isinstance(found, Picture):
        header, body = {"status": found.value}, b""
    else:
        header = {
            "format": found.format,
            "width": found.width,
            "height": found.height,
            "original_width": found.original_width,
            "original_height": found.original_height,
            "phash": found.phash,
        }
        body = b"" if found.data is data else found.data
    text = json.dumps(header).encode()
    return ANSWER.pack(len(text), len(body)) + text + body


def serve(source: BinaryIO, sink: BinaryIO, limits: ImageLimits) -> None:
    while header := source.read(REQUEST.size):
        (length,) = REQUEST.unpack(header)
        sink.write(answer(source.read(length), limits))
        sink.flush()


def main() -> None:
    """Arguments: memory limit in MiB, image limits as JSON."""
    memory_mb, limits = int(sys.argv[1]), ImageLimits(**json.loads(sys.argv[2]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
    serve(sys.stdin.buffer, sys.stdout.buffer, limits)


if __name__ == "__main__":
    main()
