import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
from PIL import Image
from trio.testing import MockClock, wait_all_tasks_blocked

from laion_etl.blocklists.image_hashes import HashBlocklist
from laion_etl.core.errors import InputError, OutageError
from laion_etl.core.funnel import DownloadStatus as S
from laion_etl.download import decoders
from laion_etl.download.decoders import Decoded, Decoders, _Decoder
from laion_etl.download.hashes import Digests
from laion_etl.download.images import ImageSettings, StoredImage, decode
from laion_etl.minicrawl.drawn_images import BOMB_SIDE, pixel_bomb
from laion_etl.sandbox import seccomp
from laion_etl.settings import DownloadSettings
from tests.download.hostile import GOOD
from tests.download.image_files import encoded
from tests.faults.test_killed import decoders_of, servers_of

pytestmark = pytest.mark.usefixtures("real_processes")
ONE = DownloadSettings(decoders=1)


def decoders_for(settings: DownloadSettings = ONE) -> Decoders:
    return Decoders(settings, ImageSettings.from_settings(settings))


@asynccontextmanager
async def stopped_decoder(settings: DownloadSettings) -> AsyncIterator[tuple[Decoders, int]]:
    """Decoders whose only process, of this number, is idle and will not answer the next image."""
    async with decoders_for(settings) as decoders:
        assert isinstance((await decoders.decode(GOOD)).found, StoredImage)
        [pid] = decoders_of(os.getpid())
        os.kill(pid, signal.SIGSTOP)
        yield decoders, pid


def decode_all(images: list[bytes], settings: DownloadSettings) -> list[StoredImage | S]:
    found: list[StoredImage | S] = [S.SUCCESS] * len(images)

    async def one(decoders: Decoders, index: int) -> None:
        found[index] = (await decoders.decode(images[index])).found

    async def main() -> None:
        async with decoders_for(settings) as decoders, trio.open_nursery() as nursery:
            for index in range(len(images)):
                nursery.start_soon(one, decoders, index)

    trio.run(main)
    assert decoders_of(os.getpid()) == []
    return found


def test_many_images_share_few_processes_and_keep_their_order() -> None:
    images = [GOOD, b"no image" * 1000] * 20
    found = decode_all(images, DownloadSettings(decoders=2))
    assert [isinstance(one, StoredImage) for one in found] == [True, False] * 20
    assert set(found[1::2]) == {S.NOT_AN_IMAGE}
    assert len({str(one) for one in found[::2]}) == 1


def test_a_slow_image_ends_at_its_limit_and_the_next_is_decoded() -> None:
    clock, settings = MockClock(), DownloadSettings(decoders=1)  # time passes only when the test says so
    found: list[StoredImage | S] = []

    async def decode(decoders: Decoders) -> None:
        found.append((await decoders.decode(GOOD)).found)

    async def main() -> None:
        async with stopped_decoder(settings) as (decoders, pid), trio.open_nursery() as nursery:
            nursery.start_soon(decode, decoders)
            await wait_all_tasks_blocked()
            clock.jump(settings.decode_timeout_s - 0.1)
            await wait_all_tasks_blocked()
            assert found == []
            clock.jump(0.2)
            while not found:
                await trio.lowlevel.checkpoint()
            assert pid not in decoders_of(os.getpid())
            await decode(decoders)

    trio.run(main, clock=clock)
    assert found[0] is S.DECODE_TIMEOUT
    assert isinstance(found[1], StoredImage)


def test_an_image_that_needs_too_much_memory_fails_alone() -> None:
    settings = DownloadSettings(decoders=1, decode_memory_mb=400, max_pixels=BOMB_SIDE * BOMB_SIDE)
    found = decode_all([pixel_bomb(), GOOD], settings)
    assert found[0] is S.DECODE_FAILED
    assert isinstance(found[1], StoredImage)


@pytest.mark.parametrize(("kills", "expected"), [(1, StoredImage), (2, S)])
def test_an_image_on_which_two_decoders_die_is_given_up(
    kills: int, expected: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each that is to die is stopped before it gets the image: it cannot have answered."""
    started = 0
    stopping, stopped = trio.open_memory_channel[int](kills)

    async def stopped_when_ready(self: _Decoder) -> bool:
        nonlocal started
        is_ready = await ready(self)
        started += 1
        if started <= kills:
            [pid] = decoders_of(os.getpid())
            os.kill(pid, signal.SIGSTOP)
            stopping.send_nowait(pid)
        return is_ready

    async def main() -> list[StoredImage | S]:
        found: list[StoredImage | S] = []

        async def decode() -> None:
            found.append((await decoders.decode(GOOD)).found)

        async with decoders_for() as decoders:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(decode)
                for _ in range(kills):
                    pid = await stopped.receive()
                    await wait_all_tasks_blocked()  # the decoder has its image
                    os.kill(pid, signal.SIGKILL)
            await decode()
        return found

    ready = _Decoder.ready
    monkeypatch.setattr(_Decoder, "ready", stopped_when_ready)
    found = trio.run(main)
    assert isinstance(found[0], expected)
    assert found[0] is S.DECODER_CRASHED or kills == 1
    assert isinstance(found[1], StoredImage)


@pytest.mark.parametrize("whose", [decoders_of, servers_of])
def test_decoders_that_were_killed_when_idle_cost_no_image(whose: Callable[[int], list[int]]) -> None:
    def kill_all() -> None:
        for pid in whose(os.getpid()):
            os.kill(pid, signal.SIGKILL)
        while whose(os.getpid()):
            os.sched_yield()

    async def main() -> StoredImage | S:
        settings = DownloadSettings(decoders=2)
        async with decoders_for(settings) as decoders:
            async with trio.open_nursery() as nursery:
                for _ in range(2):
                    nursery.start_soon(decoders.decode, GOOD)
            kill_all()
            return (await decoders.decode(GOOD)).found

    assert isinstance(trio.run(main), StoredImage)


def test_a_cancelled_decode_leaves_no_process_and_no_half_read_answer() -> None:
    async def main() -> StoredImage | S:
        async with stopped_decoder(DownloadSettings(decoders=1)) as (decoders, pid):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(decoders.decode, GOOD)
                    await wait_all_tasks_blocked()
                    scope.cancel()
            assert pid not in decoders_of(os.getpid())
            return (await decoders.decode(GOOD)).found

    assert isinstance(trio.run(main), StoredImage)
    assert decoders_of(os.getpid()) == []


def test_a_decoder_outlives_the_threads_of_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    """PR_SET_PDEATHSIG fires when the thread that started the child ends, not when its process does."""
    monkeypatch.setattr("trio._core._thread_cache.IDLE_TIMEOUT", 0.05)

    async def main() -> list[int]:
        async with decoders_for() as decoders:
            pids = []
            for _ in range(2):
                assert isinstance((await decoders.decode(GOOD)).found, StoredImage)
                pids += decoders_of(os.getpid())
                await trio.to_thread.run_sync(os.getpid)
                await trio.sleep(0.4)
            return pids

    first, second = trio.run(main)
    assert first == second


def test_the_digests_are_those_of_the_image_also_when_it_is_refused() -> None:
    async def main() -> list[Digests | None]:
        async with decoders_for() as decoders:
            return [(await decoders.decode(data)).hashes for data in (GOOD, GOOD[:6_000])]

    assert trio.run(main) == [Digests.from_bytes(GOOD), Digests.from_bytes(GOOD[:6_000])]


def test_blocked_digests_match(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text(f"# header\n\n{'ab' * 16}  # md5\n{'CD' * 32}\n{'00' * 16}\n")
    blocklist = HashBlocklist.load(str(path))
    assert len(blocklist) == 3
    assert blocklist.matches(b"\xab" * 16, bytes(32))
    assert blocklist.matches(b"\x01" * 16, b"\xcd" * 32)
    assert blocklist.matches(bytes(16), b"\x01" * 32)
    assert not blocklist.matches(b"\xac" * 16, b"\xce" * 32)


def test_no_blocklist_blocks_nothing() -> None:
    assert not HashBlocklist.load("").matches(bytes(16), bytes(32))


@pytest.mark.parametrize("line", ["xyz", "ab" * 15, "ab" * 20, "\u00e9"])
def test_a_line_that_is_not_a_digest_is_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text(f"{'ab' * 16}\n{line}\n")
    with pytest.raises(InputError, match=r"line 2: .* is not an MD5 or SHA-256 digest in hexadecimal"):
        HashBlocklist.load(str(path))


def test_a_server_of_decoders_that_is_killed_while_it_starts_costs_no_image() -> None:
    found: list[StoredImage | S] = []

    async def decode(decoders: Decoders) -> None:
        found.append((await decoders.decode(GOOD)).found)

    async def main() -> None:
        killed = set[int]()
        async with decoders_for() as decoders, trio.open_nursery() as nursery:
            nursery.start_soon(decode, decoders)
            while len(killed) < 2:
                for pid in set(servers_of(os.getpid())) - killed:
                    os.kill(pid, signal.SIGKILL)
                    killed.add(pid)
                await trio.lowlevel.checkpoint()

    trio.run(main)
    assert isinstance(found[0], StoredImage)


def test_decoders_that_can_not_start_are_the_machines_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "PROGRAM", ("/bin/false",))

    async def main() -> None:
        async with decoders_for() as decoders:
            await decoders.decode(GOOD)

    with pytest.raises(OutageError, match="cannot start a process that decodes images"):
        trio.run(main)


HASHES = {"sha256": "a" * 64, "md5": "b" * 32}
SIZES: dict[str, object] = dict.fromkeys(("width", "height", "original_width", "original_height"), 9)
STORED = HASHES | SIZES | {"format": "jpg", "phash": None, "pdq": None, "pdq_quality": None}


@pytest.mark.parametrize(
    ("lengths", "text"),
    [
        ((3, 0), "abc"),
        ((2, 0), "[]"),
        ((2, 0), "{}"),
        ((None, 0), json.dumps(HASHES)),
        ((None, 0), json.dumps(HASHES | {"status": "nonsense"})),
        ((None, 0), json.dumps(HASHES | {"sha256": 1, "status": "not_an_image"})),
        ((None, 0), json.dumps(HASHES | {"format": "jpg", "width": "x"})),
        ((None, 0), json.dumps(HASHES | {"status": "success"})),
        ((None, 0), json.dumps(STORED | {"format": "../jpg"})),
        ((None, 0), json.dumps(STORED | {"width": 1 << 31})),
        ((None, 0), json.dumps(STORED | {"pdq": "no hash", "pdq_quality": 99})),
        ((None, 0), json.dumps(STORED | {"pdq_quality": 1 << 31})),
        ((None, 0), json.dumps(STORED | {"original_pdqs": ["ab"]})),
        ((None, 0), json.dumps(STORED | {"original_pdqs": ["a" * 64] * 9})),
        (((1 << 32) - 1, 0), ""),
        ((2, (1 << 32) - 1), "{}"),
    ],
)
def test_an_answer_that_makes_no_sense_costs_its_image_only(
    lengths: tuple[int | None, int], text: str
) -> None:
    async def main() -> None:
        async with decoders_for() as decoders:
            given = (str(len(text) if length is None else length) for length in lengths)
            decoders._server.command = [sys.executable, "-m", "tests.download.odd_decoder", *given, text]
            assert await decoders.decode(GOOD) == Decoded(S.DECODER_CRASHED)
        assert decoders_of(os.getpid()) == []

    trio.run(main)


def test_a_decoder_is_confined_and_has_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "do-not-leak")

    async def main() -> None:
        async with stopped_decoder(DownloadSettings(decoders=1)) as (_, pid):
            check(Path(f"/proc/{pid}"))

    def check(process: Path) -> None:
        assert b"do-not-leak" not in (process / "environ").read_bytes()
        if seccomp.supported():
            status = (process / "status").read_text()
            assert "NoNewPrivs:\t1" in status
            assert "Seccomp:\t2" in status

    trio.run(main)


@pytest.mark.parametrize("encoding", ["jpg", "webp", "png", "avif"])
def test_a_confined_decoder_decodes_and_encodes_as_any_other_process(encoding: str) -> None:
    """What Pillow would import, open or start at its first use must be there before."""
    settings = DownloadSettings(encode_format=encoding, decoders=1, min_bytes=1, image_size=200)
    exif = Image.Exif()
    exif[0x0112], exif[0x8825] = 6, {1: "N", 2: (1.0, 2.0, 3.0)}
    images = []
    for mode in ("RGB", "L", "RGBA", "P", "CMYK", "I;16"):
        for found in ("JPEG", "PNG", "WEBP"):
            with suppress(OSError):  # not every format has every mode
                images.append(encoded(Image.new(mode, (700, 300), 77), found, exif=exif))
    expected = [decode(image, ImageSettings.from_settings(settings)) for image in images]
    assert {type(one) for one in expected} == {StoredImage}
    assert decode_all(images, settings) == expected
