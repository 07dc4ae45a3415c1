"""Near duplicates of a crawl published in ranges: those that one process finds, whatever the ranges."""

import random
import shutil
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

import numpy as np
import pytest

from laion_etl.blocklists import near_rest, near_runs
from laion_etl.blocklists.near_better import near_better
from laion_etl.blocklists.near_hashes import Hashes
from laion_etl.core import spilled_arrays
from laion_etl.core.errors import DamagedFileError, InputError, StoreOutageError
from laion_etl.io.storage import Guard, LocalStore, NewFile, Store
from laion_etl.publish import band_files, near_decisions, near_groups, near_slices, spools
from laion_etl.publish.band_files import IMAGE, KNOWN, Bands, BandsFile, BandsWriter, Records, key_numbers
from laion_etl.publish.compared_ranges import compare_ranges
from laion_etl.publish.near_checkpoints import Compared, ComparedSlices
from laion_etl.publish.near_compare import HashFiles, write_decided
from laion_etl.publish.near_groups import DROPPED, Groups
from laion_etl.publish.near_groups import KNOWN as OF_EARLIER
from laion_etl.publish.near_slices import Slice
from laion_etl.publish.ranges import hash_range, publish_range
from laion_etl.publish.stage import finish_variants, prepare_variants, publish_variants
from laion_etl.publish.verify import verify_version
from tests.publish.test_image_dedupe import with_hashes
from tests.publish.test_ranges import documents_of, rows_of, settings_of
from tests.publish.world import CRAWL, World, build_world, write_world

ONE = ("research",)
EARLIER = "CC-MAIN-2026-38"
FOLDER = f"dataset/laion/{CRAWL}"
NEAR = {"variants": ONE, "duplicates": "near", "duplicates_of_earlier": True}
REASONS = {
    "duplicate_image",
    "near_duplicate_image",
    "duplicate_image_of_earlier_crawl",
    "near_duplicate_image_of_earlier_crawl",
}


@pytest.fixture(scope="module")
def worlds() -> tuple[World, World]:
    """An earlier crawl and a later one, with families of near images in all batches of both."""
    rng = random.Random(5)
    shared = [rng.getrandbits(256) for _ in range(12)]
    worlds = build_world(batches=2, samples=20, first_batch=20), build_world(batches=6, samples=30)
    for world, families in ((worlds[0], shared[:3]), (worlds[1], shared)):
        for row in world.rows:
            pdq = rng.choice(families)
            for bit in rng.sample(range(256), rng.choice((0, 0, 3, 6, 9, 14))):
                pdq ^= 1 << bit
            row["pdq"] = rng.choice((*[f"{pdq:064x}"] * 9, "0" * 64, None))
            row["pdq_quality"] = rng.choice((None, 50, 100, 100, 20))
            if rng.random() < 0.3:
                row["sha256"] = f"{rng.randrange(20):064x}"  # of images with other hashes, too
            row["similarity"] = rng.choice((0.3, 0.31, row["similarity"]))
    return worlds


@pytest.fixture(scope="module")
def at_once(worlds: tuple[World, World], tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    store = LocalStore(tmp_path_factory.mktemp("at_once"))
    write_world(worlds[0], store, crawl=EARLIER)
    write_world(worlds[1], store)
    publish_variants(EARLIER, settings_of(100, **NEAR), store)
    shutil.copytree(store.root, store.root.with_name("before"))
    [stats] = publish_variants(CRAWL, settings_of(100, **NEAR), store)
    assert stats.dropped.keys() >= REASONS
    return store


@pytest.mark.parametrize("batches_per_range", [1, 2, 3])
def test_rows_and_numbers_do_not_depend_on_the_ranges(
    at_once: LocalStore, tmp_path: Path, batches_per_range: int
) -> None:
    store, settings = LocalStore(tmp_path / "store"), settings_of(batches_per_range, **NEAR)
    shutil.copytree(at_once.root.with_name("before"), store.root)
    count = prepare_variants(CRAWL, settings, store)
    assert count == 6 // batches_per_range
    for number in range(count, 0, -1):
        hash_range(CRAWL, number, count, settings, store, ONE)
    compare_ranges(CRAWL, settings, store, ONE)
    for number in range(count, 0, -1):
        publish_range(CRAWL, number, count, settings, store, ONE)
    finish_variants(CRAWL, settings, store)
    assert rows_of(store, FOLDER) == rows_of(at_once, FOLDER)
    assert documents_of(store, FOLDER) == documents_of(at_once, FOLDER)
    assert verify_version("laion", "", store).problems == []
    assert not [name for name in store.list("publish") if name.endswith(".bands")]
    assert isinstance(prepare_variants(CRAWL, settings, store), list), "nothing has changed"


def test_near_duplicates_are_not_decided_without_comparing_all_ranges(tmp_path: Path) -> None:
    store, settings = LocalStore(tmp_path), settings_of(2, variants=ONE, duplicates="near")
    write_world(with_hashes(3), store)
    assert prepare_variants(CRAWL, settings, store) == 2
    hash_range(CRAWL, 1, 2, settings, store, ONE)
    with pytest.raises(InputError, match=r"the digests of range 2/2 are not there .* --hashes 2/2`"):
        compare_ranges(CRAWL, settings, store, ONE)
    hash_range(CRAWL, 2, 2, settings, store, ONE)
    with pytest.raises(InputError, match=r"its ranges are not compared, .*; run `laion-etl .* --compare`"):
        publish_range(CRAWL, 1, 2, settings, store, ONE)
    done = compare_ranges(CRAWL, settings, store, ONE)
    bands = f"publish/laion/{CRAWL}/hashes-00002.bands"
    store.delete(bands)
    assert compare_ranges(CRAWL, settings, store, ONE) == done, "it is not compared again"
    assert prepare_variants(CRAWL, settings, store) == 2
    publish_range(CRAWL, 1, 2, settings, store, ONE)
    store.delete(f"publish/laion/{CRAWL}/compared.json")
    with pytest.raises(InputError, match=r"hashes-00002.bands is gone; run .* --hashes I/N` for all ranges"):
        compare_ranges(CRAWL, settings, store, ONE)
    hash_range(CRAWL, 2, 2, settings, store, ONE)
    assert [one.outputs for one in compare_ranges(CRAWL, settings, store, ONE)] == [done[0].outputs]
    damaged = bytearray(store.read(bands))
    damaged[100] ^= 1
    store.write(bands, bytes(damaged))
    store.delete(f"publish/laion/{CRAWL}/compared.json")
    with pytest.raises(DamagedFileError, match=r"hashes-00002.bands: it is not the file of its stats"):
        compare_ranges(CRAWL, settings, store, ONE)


class LittleRoom(LocalStore):
    """Has room for so many checkpoints."""

    def __init__(self, root: Path, room: int) -> None:
        super().__init__(root)
        self.room = room
        self.written: list[str] = []
        self._lock = Lock()

    @contextmanager
    def create(self, name: str, guard: Guard | None = None) -> Iterator[NewFile]:
        with self._lock:
            if name.endswith(".slice"):
                if len(self.written) == self.room:
                    raise StoreOutageError(f"cannot write {name}: there is no room")
                self.written.append(name)
        with super().create(name, guard) as file:
            yield file


def test_a_comparison_that_was_interrupted_goes_on_where_it_was(
    worlds: tuple[World, World], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(band_files, "_RECORDS_PER_SLICE", 6_000)
    store, settings = LocalStore(tmp_path), settings_of(3, variants=ONE, duplicates="near")
    write_world(worlds[1], store)
    assert prepare_variants(CRAWL, settings, store) == 2
    for number in (1, 2):
        hash_range(CRAWL, number, 2, settings, store, ONE)
    calm = LittleRoom(tmp_path, 1_000)
    [expected] = compare_ranges(CRAWL, settings, calm, ONE)
    assert len(calm.written) == 11 * 3, "bands and slices of each"
    folder = f"publish/laion/{CRAWL}"
    assert not store.list(f"{folder}/compared")
    store.delete(f"{folder}/compared.json")
    store.write(f"{folder}/compared/of-other-files-00-00000.slice", b"")
    with pytest.raises(StoreOutageError):
        compare_ranges(CRAWL, settings, LittleRoom(tmp_path, 20), ONE)
    assert prepare_variants(CRAWL, settings, store) == 2  # as the same command does, run again
    begun = [name for name in store.list(f"{folder}/compared") if name in calm.written]
    assert len(begun) == 20
    with_pairs = next(name for name in begun if len(store.read(name)) > 100)
    store.write(with_pairs, store.read(with_pairs)[:50] + b"damage" + store.read(with_pairs)[56:])
    store.write(next(name for name in begun if name != with_pairs), b"short")
    left = LittleRoom(tmp_path, 1_000)
    assert compare_ranges(CRAWL, settings, left, ONE) == [expected]
    assert len(left.written) == 33 - 20 + 2, "what is there and whole is not compared again"
    assert not store.list(f"{folder}/compared")


def near_family(count: int, bits: int, rng: np.random.Generator) -> Hashes:
    """Hashes that differ from one in up to so many bits, most of which are near to each other."""
    masks = np.zeros((count, 256), np.uint8)
    for mask in masks:
        mask[rng.choice(256, int(rng.integers(0, bits + 1)), replace=False)] = 1
    return rng.integers(0, 256, 32, dtype=np.uint8) ^ np.packbits(masks, axis=1)


@pytest.mark.parametrize("bits", [0, 4, 10, 15])
@pytest.mark.parametrize(
    ("spread", "leaders", "at_once"),
    [(3, 2_048, 999), (8, 2_048, 999), (14, 2_048, 999), (8, 1, 40), (14, 3, 20), (14, 2_048, 7)],
)
def test_slices_and_groups_decide_as_one_list_of_all(
    tmp_path: Path, bits: int, spread: int, leaders: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where slices, and groups, have more images than are taken at once."""
    few_at_once(at_once, monkeypatch)
    monkeypatch.setattr(near_runs, "_MOST_LEADERS", leaders)
    monkeypatch.setattr(near_groups, "_IMAGES_PER_PART", 50)
    monkeypatch.setattr(near_groups, "_STEP", 64)
    rng = np.random.default_rng(bits * 100 + spread)
    hashes = np.concatenate([near_family(80, spread, rng) for _ in range(5)])
    hashes = hashes[rng.permutation(len(hashes))]
    best = np.zeros(len(hashes), IMAGE)
    best["pdq"], best["key"] = hashes, np.arange(len(hashes))
    best["similarity"] = -np.arange(len(hashes))
    known = np.ascontiguousarray(hashes[:3] ^ np.uint8(0)).view(KNOWN)[:, 0]
    store, bands = LocalStore(tmp_path), Bands(bits, 3)
    own_file = written(store, "own", bands, best[rng.permutation(len(best))])
    known_file = written(store, "known", bands, known)
    decided: dict[bytes, int] = {}
    with Groups(bits) as groups:
        for band in range(bits + 1):
            for number in range(3):
                one = Slice([own_file], [known_file], bands, band, number)
                for found in one.in_parts():
                    groups.add(*found)
        for found in groups.decided():
            for pdq, kept in zip(found.hashes, found.kept.tolist(), strict=True):
                decided[pdq.tobytes()] = max(kept, decided.get(pdq.tobytes(), -9))
    distances = np.bitwise_count(hashes[:, None] ^ hashes[None, :3]).sum(axis=2, dtype=np.int64)
    of_earlier = (distances <= bits).any(axis=1)
    rest = np.flatnonzero(~of_earlier)
    near = near_better(hashes[rest], bits)
    expected = dict.fromkeys((one.tobytes() for one in hashes[of_earlier]), OF_EARLIER)
    expected |= dict.fromkeys((one.tobytes() for one in hashes[rest[near]]), DROPPED)
    expected |= {hashes[row].tobytes(): row for row in rest[~near].tolist()}
    alone = expected.keys() - decided.keys()
    assert all(expected[one] >= 0 for one in alone), "only what is alone is not listed"
    assert decided == {one: kept for one, kept in expected.items() if one not in alone}
    assert set(decided.values()) >= {OF_EARLIER, DROPPED} or bits == 0


def few_at_once(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let so many images be too many for memory."""
    monkeypatch.setattr(near_slices, "_MOST_IN_MEMORY", count)
    monkeypatch.setattr(near_slices, "STEP", count)
    monkeypatch.setattr(spools, "STEP", count)
    monkeypatch.setattr(near_rest, "_AT_ONCE", count)
    monkeypatch.setattr(near_decisions, "IMAGES_AT_ONCE", count)
    monkeypatch.setattr(spilled_arrays, "_IN_MEMORY", 0)


@pytest.mark.parametrize("kind", ["one group", "one value of a band"])
def test_memory_hardly_grows_with_images_of_one_group_or_one_value(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both take 300 bytes an image or more where all images are in memory."""
    few_at_once(1_000, monkeypatch)
    monkeypatch.setattr(near_groups, "_IMAGES_PER_PART", 1_000)
    monkeypatch.setattr(near_groups, "_STEP", 1_000)
    few, many = (peak_of_comparing(LocalStore(tmp_path / str(n)), kind, n) for n in (5_000, 25_000))
    assert (many - few) / 20_000 < 80, "bytes an image"


def peak_of_comparing(store: Store, kind: str, count: int) -> int:
    """Compare images that are all alike, the second time with the memory it takes."""
    rng = np.random.default_rng(3)
    images = np.zeros(count, IMAGE)
    if kind == "one group":
        images["pdq"] = near_family(1, 0, rng)
        rows, bits = np.arange(count), rng.integers(0, 256, (3, count))
        for places in bits:  # up to six bits apart
            images["pdq"][rows, places // 8] ^= (1 << places % 8).astype(np.uint8)
    else:
        images["pdq"] = rng.integers(0, 256, (count, 32))
        images["pdq"][:, :3] = 7
    images["key"], images["similarity"] = np.arange(count), rng.random(count)
    bands = Bands(10, 1)
    files = HashFiles(bands, (written(store, "own.bands", bands, images).output,), ())
    tracemalloc.start()
    try:
        write_decided(files, "compared.parquet", ComparedSlices("compared", "x", store), store)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_parts_of_a_slice_are_compared_once(tmp_path: Path) -> None:
    def compare() -> Iterator[Compared]:
        for number in range(3):
            begun.append(number)
            yield images[number : number + 1], images[3:number]

    images, none = np.zeros(5, IMAGE), np.empty(0, IMAGE)
    images["key"] = range(5)
    begun: list[int] = []
    done = ComparedSlices("compared", "made-from", LocalStore(tmp_path))
    stopped = done.parts(4, 7, compare)
    assert next(stopped)[0]["key"].tolist() == [0]  # and killed
    for number, compared in enumerate([[0, 1, 2], [], [0, 1, 2], []]):
        begun.clear()
        found = list(done.parts(4, 7, compare))
        assert begun == compared
        assert [key for pairs, _ in found for key in pairs["key"].tolist()] == [0, 1, 2], "each once"
        if number == 1:
            name = next(one for one in done.store.list("compared") if one.endswith("-000001.slice"))
            done.store.write(name, b"damaged")
    assert len(list(done.parts(4, 8, lambda: iter([(none, none)])))) == 1
    assert list(done.parts(4, 8, compare)) == [], "it has nothing, which is known"


def written(store: Store, name: str, bands: Bands, records: Records) -> BandsFile:
    with store.create(name) as file, BandsWriter(file, bands, records.dtype) as writer:
        writer.add(records[: len(records) // 3])
        writer.add(records[len(records) // 3 :])
    return BandsFile.open(file.output, bands, records.dtype, store)


def test_each_record_is_in_one_slice_of_each_band(tmp_path: Path) -> None:
    records = np.zeros(300, IMAGE)
    records["key"] = np.arange(300)
    records["pdq"] = np.random.default_rng(4).integers(0, 256, (300, 32))
    bands = Bands(bits=2, slices=4)
    file = written(LocalStore(tmp_path), "x.bands", bands, records)
    for band in range(bands.count):
        found = [key for number in range(bands.slices) for key in file.read(band, number)["key"].tolist()]
        assert sorted(found) == list(range(300))


def test_numbers_of_keys_are_in_the_order_of_the_keys() -> None:
    keys = [
        b"00000001200003",
        b"00000001200004",
        b"20264300000100000",
        b"20264300000100001",
        b"20264300000100",
    ]
    assert [keys[row] for row in np.argsort(key_numbers(np.asarray(keys)))] == sorted(keys)
