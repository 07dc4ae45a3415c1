"""Pixels for the model: those of open_clip's own transform, from processes that may die."""

import io
import mmap
import os
import random
import signal
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from laion_etl.core.errors import ModelError
from laion_etl.minicrawl.held_out import photo
from laion_etl.minicrawl.scenes import random_scene
from laion_etl.score import jpeg, preparer
from laion_etl.score.model import ClipModel, pixel_plan
from laion_etl.score.openclip import open_clip
from laion_etl.score.pixels import PixelPlan, Pixels
from laion_etl.score.pixels import load_pixels as load_all_pixels
from laion_etl.score.prefetch import prefetch
from laion_etl.score.preparer import PreprocessInput
from laion_etl.score.preprocess_pool import Preparers
from laion_etl.score.preprocess_worker import IMAGES_BYTES
from laion_etl.score.shared_tables import READY, WAITING, Plans, tables
from laion_etl.score.tokens import VOCABULARY, TextPlan
from tests.faults.test_killed import children_of

pytestmark = pytest.mark.usefixtures("real_processes")
SIZES = [(256, 256), (341, 256), (256, 400), (224, 224), (225, 640), (300, 224), (64, 64), (1000, 100)]


def noisy(size: tuple[int, int], mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Blurred noise: every filter and every shift shows."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (max(2, size[1] // 4), max(2, size[0] // 4), 3), np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).convert(mode)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(image: Image.Image) -> PreprocessInput:
    return PreprocessInput(("png", encoded(image)))


def load_pixels(data: bytes, ending: str, plan: PixelPlan) -> Pixels | None:
    found = load_all_pixels(data, ending, [plan])
    return found[0] if found else None


def by_open_clip(image: Image.Image, plan: PixelPlan) -> np.ndarray:
    """Pixels (side, side, 3) from 0 to 255 as open_clip's transform makes them."""
    open_clip()
    from open_clip.transform import PreprocessCfg, image_transform_v2

    config = PreprocessCfg(
        size=plan.side,
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        interpolation="bilinear" if plan.bilinear else "bicubic",
        resize_mode="squash" if plan.squash else "shortest",
    )
    return image_transform_v2(config, is_train=False)(image).permute(1, 2, 0).numpy() * 255


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    "plan", [PixelPlan(224), PixelPlan(224, squash=True), PixelPlan(64, bilinear=True), PixelPlan(9)], ids=str
)
def test_pixels_are_those_of_open_clip(size: tuple[int, int], mode: str, plan: PixelPlan) -> None:
    image = noisy(size, mode)
    found = load_pixels(encoded(image), "png", plan)
    assert found is not None
    assert found.shape == (plan.side, plan.side, 3)
    assert (found == by_open_clip(image, plan).round()).all()


LARGE_SIZES = [(257, 259), (225, 640), (1500, 1400), (700, 60)]


@pytest.mark.parametrize("colours", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_jpegs_have_the_same_pixels_with_and_without_pillow(
    monkeypatch: pytest.MonkeyPatch, colours: str, progressive: bool, subsampling: int
) -> None:
    for size in LARGE_SIZES:
        options = {"quality": 85, "progressive": progressive, "subsampling": subsampling}
        check_both_decoders(encoded(noisy(size, colours), "JPEG", **options), monkeypatch)


def test_damaged_jpegs_are_judged_by_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = encoded(noisy((300, 256)), "JPEG", quality=85)
    rng = random.Random(1)
    read = 0
    for number in range(60):
        data = bytearray(whole)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        cut = rng.randrange(len(data)) if number % 3 == 0 else len(data)
        read += check_both_decoders(bytes(data[:cut]), monkeypatch) is not None
    assert 0 < read < 60


def check_both_decoders(data: bytes, monkeypatch: pytest.MonkeyPatch) -> Pixels | None:
    """The pixels, after a check that Pillow alone gives the same."""
    assert jpeg.simplejpeg is not None, "run `make setup`"
    found = load_pixels(data, "jpg", PixelPlan(224))
    with monkeypatch.context() as patch:
        patch.setattr(jpeg, "simplejpeg", None)
        expected = load_pixels(data, "jpg", PixelPlan(224))
    assert (found is None) == (expected is None)
    assert found is None or (found == expected).all()
    return found


def test_palettes_become_rgb_before_they_are_resized() -> None:
    """Unlike open_clip, which takes the nearest pixel of a palette."""
    image = noisy((300, 260)).convert("P")
    found = load_pixels(encoded(image), "png", PixelPlan(224))
    assert found is not None
    assert (found == by_open_clip(image.convert("RGB"), PixelPlan(224)).round()).all()
    assert (found != by_open_clip(image, PixelPlan(224)).round()).any()


def test_grey_of_16_bits_has_its_high_bytes() -> None:
    """Pillow, and so open_clip, make every value above 255 white."""
    grey = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * np.uint16(16)
    found = load_pixels(encoded(Image.fromarray(grey)), "png", PixelPlan(64))
    assert found is not None
    assert (found == (grey >> 8)[:, :, None]).all()


@pytest.mark.parametrize("size", [(2, 2_100_000), (2_100_000, 2)])
def test_an_image_that_would_fill_the_memory_resized_as_a_whole_has_pixels(size: tuple[int, int]) -> None:
    data = encoded(Image.new("RGB", size, (200, 30, 40)), compress_level=1)
    found = load_pixels(data, "png", PixelPlan(224))
    assert found is not None
    assert (found == (200, 30, 40)).all()


def test_what_cannot_be_read_has_no_pixels() -> None:
    plan = PixelPlan(64)
    whole = encoded(noisy((200, 200)), "JPEG")
    assert load_pixels(whole, "jpg", plan) is not None
    assert load_pixels(whole[: len(whole) // 2], "jpg", plan) is None
    assert load_pixels(whole, "png", plan) is None
    assert load_pixels(whole, "jpg", PixelPlan(64, max_pixels=100)) is None
    assert load_pixels(b"", "webp", plan) is None


def test_scaling_while_decoding_hardly_moves_embeddings(tiny_model: ClipModel) -> None:
    rng = random.Random(5)
    exact, fast = [], []
    for _ in range(24):
        image = photo(random_scene(rng), rng).resize((900, 700), Image.Resampling.BICUBIC)
        data = encoded(image, "JPEG", quality=90)
        pixels = load_pixels(data, "jpg", tiny_model.pixel_plan)
        assert pixels is not None
        fast.append(pixels)
        with Image.open(io.BytesIO(data)) as image:
            exact.append(tiny_model.preprocess(image))
    cosines = (tiny_model.embed_images(exact) * tiny_model.embed_pixels(np.stack(fast))).sum(axis=1)
    assert abs(1 - cosines).mean() < 0.002


def test_normalised_pixels_are_the_tensors_of_open_clip(tiny_model: ClipModel) -> None:
    images = [noisy((70, 90), seed=seed) for seed in range(4)]
    pixels = [load_pixels(encoded(image), "png", tiny_model.pixel_plan) for image in images]
    found = tiny_model.embed_pixels(np.stack([one for one in pixels if one is not None]))
    expected = tiny_model.embed_images([tiny_model.preprocess(image) for image in images])
    assert np.allclose(found, expected, atol=2e-3)


def test_a_preparation_nobody_wrote_is_named() -> None:
    with pytest.raises(Exception, match="X takes images prepared in a way that is not supported"):
        pixel_plan({"size": (224, 224), "resize_mode": "longest"}, "X")


def test_preparers_fill_blocks_in_place() -> None:
    plan = PixelPlan(32)
    images = [noisy((50 + n, 60), seed=n) for n in range(20)]
    with Preparers(Plans((plan,)), batch_size=20, buffers=2, processes=3) as preparers:
        for _ in range(3):
            prepared = preparers.prepare([png(image) for image in images])
            prepared.wait()
            assert prepared.readable == [True] * 20
            expected = [load_pixels(encoded(image), "png", plan) for image in images]
            assert (prepared.tables.pixels[0] == np.stack([one for one in expected if one is not None])).all()
            preparers.release(prepared)


def test_an_image_is_decoded_once_for_several_models() -> None:
    plans = PixelPlan(32), PixelPlan(48, squash=True, bilinear=True)
    images = [noisy((50 + n, 60), seed=n) for n in range(5)]
    with Preparers(Plans(plans), batch_size=5, buffers=2, processes=2) as preparers:
        for _ in range(2):
            prepared = preparers.prepare([png(image) for image in images])
            prepared.wait()
            for plan, pixels in zip(plans, prepared.tables.pixels, strict=True):
                expected = [load_pixels(encoded(image), "png", plan) for image in images]
                assert (pixels == np.stack([one for one in expected if one is not None])).all()
            preparers.release(prepared)


def test_missing_and_broken_images_are_unreadable() -> None:
    with Preparers(Plans((PixelPlan(32),)), batch_size=8, buffers=1, processes=2) as preparers:
        good = png(noisy((40, 40)))
        prepared = preparers.prepare([good, PreprocessInput(None), PreprocessInput(("jpg", b"no")), good])
        prepared.wait()
        assert prepared.readable == [True, False, False, True]
        preparers.release(prepared)
        prepared = preparers.prepare([PreprocessInput(None), PreprocessInput(None)])
        prepared.wait()
        assert prepared.readable == [False, False]


def test_images_that_are_larger_than_the_memory_for_images_are_sent() -> None:
    small, large = noisy((60, 50)), noisy((1_200, 1_200))
    data = encoded(large, compress_level=0)
    assert len(data) > IMAGES_BYTES
    plan = PixelPlan(32)
    with Preparers(Plans((plan,)), batch_size=6, buffers=1, processes=1) as preparers:
        prepared = preparers.prepare([png(small), PreprocessInput(("png", data)), png(small)] * 2)
        prepared.wait()
        assert prepared.readable == [True] * 6
        expected = [load_pixels(one, "png", plan) for one in (encoded(small), data, encoded(small))] * 2
        assert (prepared.tables.pixels[0] == np.stack([one for one in expected if one is not None])).all()


def test_a_killed_preparer_costs_one_image() -> None:
    """It works on a group of samples: those before and after are not lost."""
    others, plans = preparer_processes(), Plans((PixelPlan(32),))
    with Preparers(plans, batch_size=16, buffers=1, processes=1) as preparers:
        good, large = png(noisy((40, 40))), png(Image.new("RGB", (9_000, 9_000)))
        first = preparers.prepare([good])  # starts the process: it is known before the large image
        first.wait()
        preparers.release(first)
        [pid] = preparer_processes() - others
        slow = preparers.prepare([good, large, *[good] * 14])
        states = _states_in(pid, plans)
        while states[:2].tolist() != [READY, WAITING]:
            assert slow.tables.states[1] == WAITING, "the large image was ready before it was looked at"
            time.sleep(0.001)
        os.kill(pid, signal.SIGKILL)
        slow.wait()
        assert slow.readable == [True, False, *[True] * 14]
    assert preparer_processes() == others


def _states_in(pid: int, plans: Plans) -> np.ndarray:
    """The states of the samples that a preparer works on."""
    memory, *_ = [fd for fd in Path(f"/proc/{pid}/fd").iterdir() if "laion-etl-samples" in _target(fd)]
    with memory.open("r+b") as file:
        return tables(mmap.mmap(file.fileno(), 0), plans).states


def preparer_processes() -> set[int]:
    return set(children_of(os.getpid(), "preprocess_worker"))


def test_pools_larger_than_the_memory_of_a_decoder_work() -> None:
    with Preparers(Plans((PixelPlan(224),)), batch_size=16_384, buffers=1, processes=1) as preparers:
        assert len(preparers.memory) > 2_048 << 20
        prepared = preparers.prepare([png(noisy((250, 250)))])
        prepared.wait()
        assert prepared.readable == [True]


def test_a_process_that_was_taken_over_cannot_change_images_that_follow() -> None:
    """What it has open is the memory that images come in, and it may still map memory."""
    before = _open_images()
    with Preparers(Plans((PixelPlan(32),)), batch_size=4, buffers=1, processes=1) as preparers:
        preparers.prepare([png(noisy((40, 40)))]).wait()
        [images] = [link for inode, link in _open_images().items() if inode not in before]
        with images.open("rb") as file:
            mmap.mmap(file.fileno(), 4_096, prot=mmap.PROT_READ).close()
        with images.open("r+b", buffering=0) as file:
            with pytest.raises(PermissionError):
                mmap.mmap(file.fileno(), 4_096, prot=mmap.PROT_READ | mmap.PROT_WRITE)
            with pytest.raises(PermissionError):
                file.write(b"x")


def test_a_process_that_was_taken_over_changes_samples_of_its_own_group_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = (sys.executable, str(Path(__file__).with_name("taken_over.py")))
    monkeypatch.setattr(preparer, "PROGRAM", program)
    plans = Plans((PixelPlan(32),), (TextPlan("vocabulary.gz", 77),))
    samples = [replace(png(noisy((40, 40))), text="a text"), PreprocessInput(None)]
    with Preparers(plans, batch_size=2, buffers=2, processes=1) as preparers:
        both = [preparers.prepare(samples) for _ in range(2)]
        for prepared in both:
            prepared.wait()
            assert prepared.readable == [True, False]
            assert (prepared.tables.tokens < VOCABULARY).all()
        for number, prepared in enumerate(both, start=1):
            assert (prepared.tables.pixels[0][0] == number).all()


def _open_images() -> dict[int, Path]:
    """Those that are open, by inode: an earlier test may have left some, whose numbers are given again."""
    links = [link for link in Path("/proc/self/fd").iterdir() if "laion-etl-images" in _target(link)]
    return {link.stat().st_ino: link for link in links}


def _target(link: Path) -> str:
    with suppress(FileNotFoundError):  # that of the listing itself
        return str(link.readlink())
    return ""


def test_processes_that_do_not_start_are_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    plans = Plans((PixelPlan(32),), (TextPlan("/nowhere/vocabulary.gz", 77),))
    with Preparers(plans, batch_size=4, buffers=1, processes=1) as preparers:
        prepared = preparers.prepare([png(noisy((40, 40)))] * 4)
        with pytest.raises(ModelError, match="cannot start a process that decodes images"):
            prepared.wait()
    assert "/nowhere/vocabulary.gz" in capfd.readouterr().err


def test_processes_that_the_system_refuses_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparer, "PROGRAM", ("/nowhere/python",))
    before = _open_images()
    with Preparers(Plans((PixelPlan(32),)), batch_size=4, buffers=1, processes=1) as preparers:
        prepared = preparers.prepare([png(noisy((40, 40)))] * 4)
        with pytest.raises(ModelError, match=r"cannot start a process that decodes images: .*nowhere"):
            prepared.wait()
    assert _open_images() == before


def test_closing_the_pool_ends_those_who_wait() -> None:
    with Preparers(Plans((PixelPlan(32),)), batch_size=4, buffers=1, processes=1) as preparers:
        prepared = preparers.prepare([png(Image.new("RGB", (4_000, 4_000)))] * 4)
    prepared.wait()
    with pytest.raises(RuntimeError, match="closed"):
        preparers.prepare([])


def test_items_come_in_order_and_errors_where_they_happen() -> None:
    def source() -> "object":
        yield from range(5)
        raise ValueError("the sixth")

    seen = []
    with pytest.raises(ValueError, match="the sixth"), prefetch(source(), 2) as items:  # type: ignore[arg-type]
        for item in items:
            seen.append(item)
    assert seen == list(range(5))


def test_no_more_is_made_than_asked_for() -> None:
    made = []

    def source() -> "object":
        for number in range(100):
            made.append(number)
            yield number

    with prefetch(source(), 2) as items:  # type: ignore[arg-type]
        next(items)
        time.sleep(0.3)
    time.sleep(0.3)
    assert len(made) <= 5
