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
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np

from laion_etl.confined import confine
from laion_etl.score.pixels import FORMATS, PixelPlan, Pixels, load_pixels

REQUEST = struct.Struct(">IIB")
ENDINGS = tuple(FORMATS)
DONE, FAILED = b"\x01", b"\x00"


def tables(memory: mmap.mmap, plans: Sequence[PixelPlan]) -> list[Pixels]:
    """The shared memory as one table (places, side, side, 3) for each plan, one after the other."""
    everything = np.frombuffer(memory, np.uint8)
    places = len(everything) // sum(plan.bytes for plan in plans)
    ends = np.cumsum([places * plan.bytes for plan in plans])[:-1]
    return [
        part.reshape(places, plan.side, plan.side, 3)
        for part, plan in zip(np.split(everything, ends), plans, strict=True)
    ]


def serve(source: BinaryIO, sink: BinaryIO, memory: mmap.mmap, plans: Sequence[PixelPlan]) -> None:
    shared = tables(memory, plans)
    while header := source.read(REQUEST.size):
        place, length, ending = REQUEST.unpack(header)
        found = load_pixels(source.read(length), ENDINGS[ending], plans)
        for table, pixels in zip(shared, found or (), strict=found is not None):
            table[place] = pixels
        sink.write(FAILED if found is None else DONE)
        sink.flush()


def main() -> None:
    """Arguments: number of the shared memory's file descriptor, memory limit in MiB, plans as JSON."""
    descriptor, memory_mb = int(sys.argv[1]), int(sys.argv[2])
    plans = [PixelPlan(**plan) for plan in json.loads(sys.argv[3])]
    confine(memory_mb)
    with mmap.mmap(descriptor, os.fstat(descriptor).st_size) as memory:
        serve(sys.stdin.buffer, sys.stdout.buffer, memory, plans)


if __name__ == "__main__":
    main()
