"""A preparer: a process that decodes images into memory it shares with its parent, until its input ends.

In:  8 bytes (place in the shared memory, length and format), image bytes.
Out: one byte, 1 when the pixels are in place and 0 when the image can't be read.
It imports no torch, runs under a memory limit, and dies with its parent.
"""

import json
import mmap
import os
import struct
import sys
from typing import BinaryIO

import numpy as np

from laion_etl.confined import confine
from laion_etl.score.pixels import FORMATS, PixelPlan, load_pixels

REQUEST = struct.Struct(">IIB")
ENDINGS = tuple(FORMATS)
DONE, FAILED = b"\x01", b"\x00"


def serve(source: BinaryIO, sink: BinaryIO, memory: mmap.mmap, plan: PixelPlan) -> None:
    pixels = np.frombuffer(memory, np.uint8).reshape(-1, plan.side, plan.side, 3)
    while header := source.read(REQUEST.size):
        place, length, ending = REQUEST.unpack(header)
        found = load_pixels(source.read(length), ENDINGS[ending], plan)
        if found is not None:
            pixels[place] = found
        sink.write(FAILED if found is None else DONE)
        sink.flush()


def main() -> None:
    """Arguments: number of the shared memory's file descriptor, memory limit in MiB, plan as JSON."""
    descriptor, memory_mb, plan = int(sys.argv[1]), int(sys.argv[2]), PixelPlan(**json.loads(sys.argv[3]))
    confine(memory_mb)
    with mmap.mmap(descriptor, os.fstat(descriptor).st_size) as memory:
        serve(sys.stdin.buffer, sys.stdout.buffer, memory, plan)


if __name__ == "__main__":
    main()
