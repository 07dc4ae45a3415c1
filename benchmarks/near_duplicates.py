"""Near duplicates of a crawl in ranges: CPU and memory by number of hashes, realistic and adversarial.

    python -m benchmarks.near_duplicates FOLDER 100000 1000000

Hashes are random with half of their bits set, as PDQ's are; 30% belong to families of two to ten that differ
in up to eight bits. `equal`: 1% have one hash; `close`: 1% differ from one in up to five bits; `one group`:
all differ from one in up to eight bits; `one value`: all agree in the 23 bits of a band, with their families.
FOLDER gets the files of four ranges. Each case runs in a process of its own, whose largest memory is printed:
all, and without pages of files, which the system takes back whenever others need memory.
"""

import argparse
import multiprocessing
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import numpy as np

from benchmarks.anonymous_memory import anonymous_bytes
from laion_etl.blocklists.near_better import near_better
from laion_etl.blocklists.near_hashes import Hashes, Ints, is_informative
from laion_etl.io.storage import LocalStore
from laion_etl.publish.band_files import IMAGE, RECORDS_AT_ONCE, Bands, BandsWriter, Records
from laion_etl.publish.near_checkpoints import ComparedSlices
from laion_etl.publish.near_compare import HashFiles, write_decided

_BITS = 10
_RANGES = 4
_LISTED = 2_000_000  # compared in one list, too, which takes 700 bytes for each
KINDS = ("plain", "equal", "close", "one group", "one value")


def main() -> None:
    """Print a row for each number of hashes and each kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("hashes", type=int, nargs="+")
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    given = parser.parse_args()
    print(
        "| hashes | kind | by bands, CPU s | compare, CPU s | MiB more than at the start "
        "| without files, MiB | one list, CPU s |"
    )
    print("|---|---|---|---|---|---|---|")
    for count in given.hashes:
        for kind in given.kinds:
            process = multiprocessing.get_context("spawn").Process(
                target=_measure, args=(given.folder, count, kind)
            )
            process.start()
            process.join()


def _measure(folder: Path, count: int, kind: str) -> None:
    _run(LocalStore(folder), _images(2_000, kind))  # loads what is compiled
    images, before = _images(count, kind), _most_memory()
    with LargestAnonymous() as anonymous:
        written, compared, decided = _run(LocalStore(folder), images)
        more = (_most_memory() - before) >> 10
    alone = f"{_in_one_list(images, LocalStore(folder), decided):.1f}" if count <= _LISTED else ""
    memory = f"{more:,} | {anonymous.more >> 20:,}"
    print(f"| {count:,} | {kind} | {written:.1f} | {compared:.1f} | {memory} | {alone} |", flush=True)


def _in_one_list(images: Records, store: LocalStore, decided: str) -> float:
    start = time.process_time()
    near = near_better(np.ascontiguousarray(images["pdq"]), _BITS)
    took = time.process_time() - start
    assert int(near.sum()) == _dropped(decided, images, store), "the same images are kept"
    return took


class LargestAnonymous:
    """How much more memory that is no page of a file the process has, at most, while this is open."""

    def __enter__(self) -> "LargestAnonymous":
        self._ended = Event()
        self._before = self._most = anonymous_bytes(os.getpid())
        self._thread = Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self.more = self._most - self._before

    def _watch(self) -> None:
        while not self._ended.wait(0.1):
            self._most = max(self._most, anonymous_bytes(os.getpid()))


def _run(store: LocalStore, images: Records) -> tuple[float, float, str]:
    """Return CPU seconds of writing and of comparing, and the name of what is decided."""
    start = time.process_time()
    bands = Bands.for_records(_BITS, len(images))
    outputs = []
    for number in range(_RANGES):
        with store.create(f"hashes-{number}.bands") as file, BandsWriter(file, bands, IMAGE) as writer:
            for part in _parts(images[number::_RANGES]):
                writer.add(part)
        outputs.append(file.output)
    middle = time.process_time()
    files = HashFiles(bands, tuple(outputs), ())
    done = ComparedSlices("compared", "made-up", store)
    done.delete()  # those of an earlier run
    output, _ = write_decided(files, "compared.parquet", done, store)
    end = time.process_time()
    return middle - start, end - middle, output.name


def _dropped(name: str, images: Records, store: LocalStore) -> int:
    import pyarrow.parquet as pq

    decided = pq.read_table(store.open(name))
    kept = decided["kept"].to_numpy()
    hashes = np.asarray(decided["pdq"].to_pylist(), "S32")
    order = np.lexsort((-kept, hashes))  # one that is kept first
    hashes, kept = hashes[order], kept[order]
    own = np.ascontiguousarray(images["pdq"]).view("S32")[:, 0]
    places = np.minimum(np.searchsorted(hashes, own), len(hashes) - 1)
    return int(((hashes[places] == own) & (kept[places] != images["key"])).sum())


def _parts(images: Records) -> Iterator[Records]:
    for start in range(0, len(images), RECORDS_AT_ONCE):
        yield images[start : start + RECORDS_AT_ONCE]


def _images(count: int, kind: str) -> Records:
    """Return images from best to worst."""
    rng = np.random.default_rng(7)
    hashes = rng.integers(0, 256, (count, 32), dtype=np.uint8)
    family = np.flatnonzero(rng.random(count) < 0.3)
    hashes[family] = _changed(hashes[family // 6 * 6 % count], 8, rng)
    if kind == "one group":
        hashes = _changed(np.repeat(hashes[:1], count, 0), 8, rng)
    elif kind == "one value":
        hashes[:, :3] = hashes[0, :3]
    elif kind != "plain":
        some = np.flatnonzero(rng.random(count) < 0.01)
        hashes[some] = _changed(np.repeat(hashes[:1], len(some), 0), 5 if kind == "close" else 0, rng)
    hashes = hashes[is_informative(hashes)]
    assert len(hashes) > 0.98 * count
    images = np.zeros(len(hashes), IMAGE)
    images["pdq"], images["key"] = hashes, np.arange(len(hashes))
    images["similarity"] = -np.arange(len(hashes), dtype=np.float64)
    return images


def _changed(hashes: Hashes, most: int, rng: np.random.Generator) -> Hashes:
    """Return hashes with up to so many bits changed."""
    changed = hashes.copy()
    rows: Ints = np.arange(len(hashes))
    for _ in range(most):
        bits = rng.integers(0, 256, len(hashes))
        flips = (rng.random(len(hashes)) < 0.5) * (1 << (bits % 8))
        changed[rows, bits // 8] ^= flips.astype(np.uint8)
    return changed


def _most_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
