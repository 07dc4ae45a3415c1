"""A preparer: a process that decodes images and tokenises texts into memory it shares with its parent.

Out, once: one byte, when it is ready.
In:  a group of samples: their number in one byte, then for each `ITEM` (row, length and format of the image,
     length of the text and which text tower it is for), image bytes, UTF-8.
Out: one byte, when the states of all their rows are set.
It imports no torch, is confined (`sandbox`), and dies with its parent.
"""

import mmap
import os
import struct
import sys
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import BinaryIO

from PIL import Image

from laion_etl.sandbox.limits import confine
from laion_etl.score.pixels import FORMATS, PixelPlan, load_pixels
from laion_etl.score.shared_tables import READY, UNREADABLE, Plans, Tables, tables
from laion_etl.score.tokens import ClipTokenizer

ITEM = struct.Struct(">IIBHB")
ENDINGS = tuple(FORMATS)
DONE = b"\x01"

Towers = Sequence[ClipTokenizer]


def serve(
    source: BinaryIO, sink: BinaryIO, shared: Tables, pixels: Sequence[PixelPlan], towers: Towers
) -> None:
    """Works on groups of samples until the input ends."""
    _say(sink)
    while count := source.read(1):
        for row, ending, image, text, tower in list(_items(source, count[0])):
            found = load_pixels(image, ending, pixels)
            for table, image_pixels in zip(shared.pixels, found or (), strict=found is not None):
                table[row] = image_pixels
            if found is not None and text:
                tokens = towers[tower](text)
                shared.tokens[row] = 0
                shared.tokens[row, : len(tokens)] = tokens
            shared.states[row] = UNREADABLE if found is None else READY
        _say(sink)


def _items(source: BinaryIO, count: int) -> Iterator[tuple[int, str, bytes, str, int]]:
    for _ in range(count):
        row, length, ending, chars, tower = ITEM.unpack(source.read(ITEM.size))
        yield row, ENDINGS[ending], source.read(length), source.read(chars).decode(), tower


def _say(sink: BinaryIO) -> None:
    sink.write(DONE)
    sink.flush()


def warm_up(plans: Plans, towers: Towers) -> None:
    """Prepares a sample of each format, because what is imported at first use can't be imported later."""
    Image.init()
    for ending, encoding in FORMATS.items():
        buffer = BytesIO()
        Image.new("RGB", (64, 48)).save(buffer, encoding)
        load_pixels(buffer.getvalue(), ending, plans.pixels)
    for tower in towers:
        tower("CafÃ© &amp; <b>图片</b>")


def main() -> None:
    """Arguments: number of the shared memory's file descriptor, memory limit in MiB, plans as JSON."""
    descriptor, memory_mb = int(sys.argv[1]), int(sys.argv[2])
    plans = Plans.from_json(sys.argv[3])
    towers = [ClipTokenizer(plan) for plan in plans.texts]
    warm_up(plans, towers)
    # Never closed: it can't be while there are tables.
    shared = tables(mmap.mmap(descriptor, os.fstat(descriptor).st_size), plans)
    confine(memory_mb)
    serve(sys.stdin.buffer, sys.stdout.buffer, shared, plans.pixels, towers)


if __name__ == "__main__":
    main()
