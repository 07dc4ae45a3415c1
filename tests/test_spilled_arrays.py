"""Large arrays are in files that have their place on the disk from the beginning."""

import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from laion_etl.core import spilled_arrays
from laion_etl.core.spilled_arrays import spilled

_VALUES = 12_345


def test_a_large_array_has_no_holes_that_a_full_disk_could_not_fill(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing to one would end the process with SIGBUS, without a word."""
    monkeypatch.setattr(spilled_arrays, "_IN_MEMORY", 0)
    before = {found.st_ino for found in open_files()}
    array = spilled((_VALUES,), np.int64)
    assert not array.any()
    new = [found for found in open_files() if found.st_ino not in before]
    [blocks] = [found.st_blocks for found in new if found.st_size == array.nbytes]
    assert blocks * 512 >= array.nbytes


def open_files() -> list[os.stat_result]:
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # that of the listing
            found.append(link.stat())
    return found
