"""Near duplicates of a crawl in ranges: CPU and memory by number of hashes, realistic and adversarial.

    python -m benchmarks.near_duplicates FOLDER 100000 1000000

Hashes are random with half of their bits set, as PDQ's are; 30% belong to families of two to ten that differ
in up to eight bits. `equal`: 1% have one hash; `close`: 1% differ from one in up to five bits. FOLDER gets
the files of four ranges. Each case runs in a process of its own, whose largest memory is printed.
"""

import argparse
import multiprocessing
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from laion_etl.blocklists.near_better import near_better
from laion_etl.blocklists.near_hashes import Hashes, Ints, is_informative
from laion_etl.io.storage import LocalStore
from laion_etl.publish.band_files import IMAGE, RECORDS_AT_ONCE, Bands, BandsWriter, Records
from laion_etl.publish.near_checkpoints import ComparedSlices
from laion_etl.publish.near_compare import HashFiles, write_decided

_BITS = 10
_RANGES = 4


def main() -> None:
    """Print a row for each number of hashes and each kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("hashes", type=int, nargs="+")
    given = parser.parse_args()
    print(
        "| hashes | kind | by bands, CPU s | compare, CPU s | MiB more than at the start | one list, CPU s |"
    )
    print("|---|---|---|---|---|---|")
    for count in given.hashes:
        for kind in ("plain", "equal", "close"):
            process = multiprocessing.get_context("spawn").Process(
                target=_measure, args=(given.folder, count, kind)
            )
            process.start()
            process.join()


def _measure(folder: Path, count: int, kind: str) -> None:
    _run(LocalStore(folder), _images(2_000, kind))  # loads what is compiled
    images, before = _images(count, kind), _most_memory()
    written, compared, listed = _run(LocalStore(folder), images)
    start = time.process_time()
    near = near_better(np.ascontiguousarray(images["pdq"]), _BITS)
    alone = time.process_time() - start
    assert int(near.sum()) == len(images) - listed, "the same images are kept"
    print(
        f"| {count:,} | {kind} | {written:.1f} | {compared:.1f} | {_more(before)} | {alone:.1f} |", flush=True
    )


def _run(store: LocalStore, images: Records) -> tuple[float, float, int]:
    """Return CPU seconds of writing and of comparing, and how many images are kept."""
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
    return middle - start, end - middle, len(images) - _dropped(output.name, images, store)


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
    if kind != "plain":
        some = np.flatnonzero(rng.random(count) < 0.01)
        hashes[some] = _changed(np.repeat(hashes[:1], len(some), 0), 5 if kind == "close" else 0, rng)
    hashes = hashes[is_informative(hashes)]
    assert len(hashes) > 0.99 * count
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


def _more(before: int) -> int:
    return (_most_memory() - before) >> 10


if __name__ == "__main__":
    main()
