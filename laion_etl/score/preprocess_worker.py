"""A preparer: a process that decodes images and tokenises texts into memory it shares with its parent.

Out, once: one byte, when it is ready.
In:  a group of samples: their number in one byte, then for each `ITEM` (row, length, format and place of the
     image, length of the text and which text tower it is for), image bytes if its place is `FOLLOWS`, UTF-8.
     Other images are in the parent's other shared memory, which saves two copies by the kernel.
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
from laion_etl.score.pixels import FORMATS, PixelPlan, load_pixels, write_pixels
from laion_etl.score.shared_tables import READY, UNREADABLE, Plans, Tables, tables
from laion_etl.score.tokens import ClipTokenizer

ITEM = struct.Struct(">IIBIHB")
FOLLOWS = 0xFFFFFFFF  # instead of the place of an image
IMAGES_BYTES = 4_000_000  # of the memory for images
ENDINGS = tuple(FORMATS)
DONE = b"\x01"

Towers = Sequence[ClipTokenizer]


def serve(
    source: BinaryIO,
    sink: BinaryIO,
    images: memoryview,
    shared: Tables,
    pixels: Sequence[PixelPlan],
    towers: Towers,
) -> None:
    """Works on groups of samples until the input ends."""
    _say(sink)
    while count := source.read(1):
        for row, ending, image, text, tower in list(_items(source, images, count[0])):
            readable = write_pixels(image, ending, pixels, [table[row] for table in shared.pixels])
            if readable and text:
                tokens = towers[tower](text)
                shared.tokens[row] = 0
                shared.tokens[row, : len(tokens)] = tokens
            shared.states[row] = READY if readable else UNREADABLE
        _say(sink)


def _items(
    source: BinaryIO, images: memoryview, count: int
) -> Iterator[tuple[int, str, bytes | memoryview, str, int]]:
    for _ in range(count):
        row, length, ending, place, chars, tower = ITEM.unpack(source.read(ITEM.size))
        image = source.read(length) if place == FOLLOWS else images[place : place + length]
        yield row, ENDINGS[ending], image, source.read(chars).decode(), tower


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
    """Arguments: file descriptors of the memory for tables and of that for images, memory limit in MiB,
    plans as JSON.
    """
    descriptor, images, memory_mb = map(int, sys.argv[1:4])
    plans = Plans.from_json(sys.argv[4])
    towers = [ClipTokenizer(plan) for plan in plans.texts]
    warm_up(plans, towers)
    given = mmap.mmap(images, IMAGES_BYTES, prot=mmap.PROT_READ)
    # Never closed: it can't be while there are tables.
    shared = tables(mmap.mmap(descriptor, os.fstat(descriptor).st_size), plans)
    confine(memory_mb)
    serve(sys.stdin.buffer, sys.stdout.buffer, memoryview(given), shared, plans.pixels, towers)


if __name__ == "__main__":
    main()
