"""Divides the batch numbers that follow among the windows of a round, so that each is numbered for itself.

How many batches a window makes is known only when its pairs are read: at least its pairs by the batch size,
and more if a few hosts have most of them, as far as there are numbers (batching.py). So its slot is larger
than that, up to four times, but all slots together take at most half of the numbers that the round can spare.
Refused: dividing all numbers, which leaves none to the next round (a partition that was repaired, say); and
numbering windows one after the other, which makes them wait.
"""

from laion_etl.plan.batch_numbers import NUMBERS_PER_FILE, Slot

_EXTRA = 16  # for windows of a few batches


def slots(following: int, end: int, windows: int, batches: int) -> list[Slot]:
    """Return the slots of windows that have some `batches` each, ascending, from numbers up to `end`.

    A single window has all of them. There may be fewer numbers than batches, for those whose pairs had a
    number before need none.
    """
    if windows == 1:
        return [Slot(following, end)]
    available = max(0, end + 1 - following)
    spare = max(0, available - windows * batches)
    size = min(available // windows, batches + min(3 * batches + _EXTRA, spare // (2 * windows)))
    first = following
    if size >= NUMBERS_PER_FILE:  # planners of neighbouring windows then share no file of the record
        size -= size % NUMBERS_PER_FILE
        aligned = -(-following // NUMBERS_PER_FILE) * NUMBERS_PER_FILE
        first = aligned if aligned + windows * size <= end + 1 else first
    return [Slot(first + window * size, first + (window + 1) * size - 1) for window in range(windows)]
