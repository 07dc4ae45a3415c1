"""A preparer that an image has taken over: it writes into all the memory that it shares with its parent."""

import mmap
import os
import sys

from laion_etl.score.preprocess_worker import DONE, IMAGES_BYTES, _items
from laion_etl.score.shared_tables import READY, Plans, tables


def main() -> None:
    """Fill the memory with 1 for the first group, with 2 for the second, and so on."""
    samples, images = map(int, sys.argv[1:3])
    memory = mmap.mmap(samples, os.fstat(samples).st_size)
    shared = tables(memory, Plans.from_json(sys.argv[4]))
    given = memoryview(mmap.mmap(images, IMAGES_BYTES, prot=mmap.PROT_READ))
    os.write(1, DONE)
    groups = 0
    while count := sys.stdin.buffer.read(1):
        rows = [row for row, *_ in _items(sys.stdin.buffer, given, count[0])]
        groups += 1
        memory[:] = bytes([groups]) * len(memory)
        shared.states[rows] = READY
        os.write(1, DONE)


if __name__ == "__main__":
    main()
