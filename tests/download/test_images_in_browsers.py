"""Odd images, decided as Chromium shows them: profiles, orientations, restarts, unusual frames."""

import itertools
import re
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from laion_etl.core.funnel import DownloadStatus as S
from laion_etl.download.images import StoredImage
from laion_etl.download.jpeg_structure import lacks_bytes, lacks_scans
from tests.download.image_files import (
    SCENE,
    SRGB,
    before_the_scan,
    chunk,
    encoded,
    exchanged,
    flat,
    judged,
    pixels,
    segment,
)

RED = Image.new("RGB", (64, 48), (200, 40, 90))
PLAIN, EXCHANGED = (200, 40, 90), (40, 200, 90)
JFIF_BYTES = 20
PROFILE = exchanged()
HALVES = (PROFILE[:300], PROFILE[300:])
RESTART = re.compile(rb"\xff[\xd0-\xd7]")


def parts(*given: tuple[int, int, bytes]) -> bytes:
    """Segments with numbers, counts and contents of a profile."""
    return b"".join(
        segment(0xE2, b"ICC_PROFILE\0" + bytes([number, count]) + body) for number, count, body in given
    )


def red_with(extra: bytes, place: int = JFIF_BYTES) -> bytes:
    data = encoded(RED, quality=95, subsampling=0)
    return data[:place] + extra + data[place:]


def behind_the_frame(extra: bytes) -> bytes:
    data = encoded(RED, quality=95, subsampling=0)
    return red_with(extra, data.index(b"\xff\xda"))


def profile_of_grey(intent: bytes) -> bytes:
    """A profile of RGB whose table makes grey of the red alone, for one intent only."""
    numbers = struct.pack(">9i", *(0x10000 * (place % 4 == 0) for place in range(9)))
    table = struct.pack(">4s4xBBBx", b"mft2", 3, 3, 2) + numbers + struct.pack(">HH", 2, 2)
    ramp = struct.pack(">HH", 0, 0xFFFF) * 3
    table += (
        ramp + b"".join(struct.pack(">HHH", 652 * light, 0x8000, 0x8000) * 4 for light in (0, 100)) + ramp
    )
    white = b"XYZ \0\0\0\0" + struct.pack(">iii", 0xF6D6, 0x10000, 0xD32D)
    content = table + white
    tags = struct.pack(">I4sII4sII", 2, intent, 156, len(table), b"wtpt", 156 + len(table), len(white))
    head = struct.pack(">I4xI4s4s4s", 128 + len(tags + content), 0x02100000, b"mntr", b"RGB ", b"Lab ")
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">iii", 0xF6D6, 0x10000, 0xD32D)
    return head.ljust(128, b"\0") + tags + content


@pytest.mark.parametrize(
    ("data", "colour"),
    [
        pytest.param(red_with(parts((2, 2, HALVES[1]), (1, 2, HALVES[0]))), EXCHANGED, id="out of order"),
        pytest.param(red_with(parts((1, 2, HALVES[0]), *[(2, 2, HALVES[1])] * 2)), EXCHANGED, id="copy"),
        pytest.param(red_with(parts((1, 1, PROFILE), (1, 1, SRGB))), EXCHANGED, id="a second profile"),
        pytest.param(red_with(parts((1, 1, SRGB), (1, 1, PROFILE))), PLAIN, id="sRGB first"),
        pytest.param(behind_the_frame(parts((1, 1, PROFILE))), EXCHANGED, id="behind the frame"),
        pytest.param(red_with(parts((1, 1, PROFILE)), 2), EXCHANGED, id="in front of JFIF"),
        pytest.param(red_with(parts((1, 2, PROFILE))), PLAIN, id="one of two"),
        pytest.param(red_with(parts((2, 2, HALVES[1]))), PLAIN, id="the second of two"),
        pytest.param(red_with(parts((0, 1, PROFILE))), PLAIN, id="number 0"),
        pytest.param(red_with(parts((0, 2, HALVES[0]), (1, 2, HALVES[1]))), PLAIN, id="counted from 0"),
        pytest.param(red_with(parts((1, 0, PROFILE))), PLAIN, id="count 0"),
        pytest.param(red_with(parts((1, 2, HALVES[0]), (2, 3, HALVES[1]))), PLAIN, id="two counts"),
        pytest.param(red_with(parts((1, 1, PROFILE[:300]))), PLAIN, id="cut off"),
        pytest.param(
            red_with(parts((1, 1, struct.pack(">I", 9_999) + PROFILE[4:]))), PLAIN, id="longer than it is"
        ),
        pytest.param(red_with(parts((1, 1, profile_of_grey(b"A2B0")))), (194,) * 3, id="table"),
        pytest.param(red_with(parts((1, 1, profile_of_grey(b"A2B1")))), (194,) * 3, id="other intent"),
    ],
)  # fmt: skip
def test_a_profile_of_a_jpeg_is_put_together_as_browsers_do(data: bytes, colour: tuple[int, ...]) -> None:
    assert np.abs(np.subtract(flat(data), colour)).max() <= 4


def tiff(order: str, kind: int, many: int, *values: int) -> bytes:
    """Exif with an orientation of a kind of number."""
    mark = {"<": b"II*\0", ">": b"MM\0*"}[order]
    value = struct.pack(order + {1: "B", 3: "H", 4: "I", 8: "h"}[kind] * len(values), *values).ljust(4, b"\0")
    return b"Exif\0\0" + mark + struct.pack(f"{order}IHHHI", 8, 1, 0x0112, kind, many) + value + bytes(4)


@pytest.mark.parametrize(
    ("exif", "is_turned"),
    [
        (tiff("<", 3, 1, 6), True),
        (tiff(">", 3, 1, 6), True),
        (tiff("<", 3, 1, 6)[:-4], True),
        (tiff("<", 4, 1, 6), False),
        (tiff("<", 1, 1, 6), False),
        (tiff("<", 8, 1, 6), False),
        (tiff("<", 3, 2, 6, 6), False),
        (tiff("<", 3, 1, 9), False),
        (tiff("<", 3, 1, 0), False),
        (tiff("<", 3, 1, 6).replace(b"II*", b"II+"), False),
        (tiff("<", 3, 1, 6)[:18], False),
    ],
)
def test_an_orientation_is_one_number_of_16_bits(exif: bytes, is_turned: bool) -> None:
    png = encoded(RED, "PNG")
    for data in (red_with(segment(0xE1, exif)), png[:33] + chunk(b"eXIf", exif[6:]) + png[33:]):
        for stored in judged(data):
            assert isinstance(stored, StoredImage)
            assert (stored.width, stored.height) == ((48, 64) if is_turned else (64, 48))
            assert stored.data != data


def restarted(mode: str = "RGB", **options: Any) -> bytes:
    return encoded(SCENE.convert(mode), restart_marker_blocks=3, **options)


def without_interval(data: bytes, number: int) -> bytes:
    """A JPEG of which what stands between two restart markers was taken out."""
    places = [match.start() for match in RESTART.finditer(data, data.index(b"\xff\xda"))]
    return data[: places[number]] + data[places[number + 1] :]


def ended_at_restart(data: bytes, number: int) -> bytes:
    places = [match.start() for match in RESTART.finditer(data, data.index(b"\xff\xda"))]
    return data[: places[number]] + b"\xff\xd9"


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_lacks_parts_between_restart_markers_is_refused(mode: str, progressive: bool) -> None:
    data = restarted(mode, progressive=progressive)
    assert all(isinstance(found, StoredImage) for found in judged(data))
    for number in (1, 9):
        for damaged in (without_interval(data, number), ended_at_restart(data, number)):
            assert judged(damaged) == judged(damaged, resize_mode="no") == [S.DECODE_FAILED] * 2
    misnumbered = RESTART.sub(b"\xff\xd0", data)
    assert judged(misnumbered, resize_mode="no") == [S.DECODE_FAILED] * 2
    assert judged(before_the_scan(segment(0xDD, b"\0\3"))) == [S.DECODE_FAILED] * 2


SIZES = ((300, 225), (299, 227), (5_000, 17), (8, 8), (16, 4_096))


@pytest.mark.parametrize("size", SIZES)
def test_flat_images_are_not_taken_for_damaged(size: tuple[int, int]) -> None:
    slope = Image.linear_gradient("L").resize(size)
    options = itertools.product((1, 100), (0, 2), (False, True), (0, 1))
    for quality, subsampling, progressive, restarts in options:
        given: dict[str, Any] = {"restart_marker_blocks": restarts} if restarts else {}
        for image in (Image.new("RGB", size), Image.new("CMYK", size, (9, 9, 9, 9)), slope):
            data = encoded(
                image,
                quality=quality,
                subsampling=subsampling,
                progressive=progressive,
                optimize=True,
                **given,
            )
            assert not lacks_bytes(data, size[0] * size[1])
            assert not lacks_scans(data)


@pytest.mark.parametrize("extra", [b"", b"garbage"])
def test_a_jpeg_too_short_for_its_pixels_is_refused_before_it_is_decoded(
    extra: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(_image: ImageFile.ImageFile) -> None:
        raise AssertionError("decoded")

    data = before_the_scan(extra)
    frame = data.index(b"\xff\xc0")
    enlarged = data[: frame + 5] + struct.pack(">HH", 9_400, 9_400) + data[frame + 9 :]
    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    assert judged(enlarged) == judged(enlarged, resize_mode="no") == [S.DECODE_FAILED] * 2
    assert judged(enlarged, max_pixels=1_000_000) == [S.TOO_MANY_PIXELS] * 2


def frame_of(data: bytes, **changes: int) -> bytes:
    """A JPEG with another marker, precision, height or width of its frame."""
    place = data.index(b"\xff\xc0") + 1
    kind, length, *fields = struct.unpack_from(">BHBHH", data, place)
    old = dict(zip(("precision", "height", "width"), fields, strict=True))
    new = {"kind": kind, "length": length, **old, **changes}
    return data[:place] + struct.pack(">BHBHH", *new.values()) + data[place + 8 :]


def png(*middle: bytes, methods: Sequence[int] = (0, 0, 0)) -> bytes:
    head = struct.pack(">IIBBBBB", *SCENE.size, 8, 2, *methods)
    content = chunk(b"IHDR", head) + b"".join(middle) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + content


ROWS = zlib.compress(b"".join(b"\0" + row.tobytes() for row in np.asarray(SCENE)))
IDAT, TEXT = chunk(b"IDAT", ROWS), chunk(b"tEXt", b"Comment\0x")
FIRST, SECOND = chunk(b"IDAT", ROWS[:99]), chunk(b"IDAT", ROWS[99:])


@pytest.mark.parametrize(
    ("data", "status"),
    [
        pytest.param(frame_of(encoded(), precision=12), S.DECODE_FAILED, id="12 bits"),
        pytest.param(frame_of(encoded(), kind=0xC1, precision=12), S.DECODE_FAILED, id="12 bits, extended"),
        *(pytest.param(frame_of(encoded(), kind=kind), S.DECODE_FAILED, id=f"frame {kind:x}")
          for kind in (0xC3, 0xC5, 0xC6, 0xC7, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)),
        pytest.param(frame_of(encoded(), height=0), S.DECODE_FAILED, id="height 0"),
        pytest.param(frame_of(encoded(), width=0), S.DECODE_FAILED, id="width 0"),
        pytest.param(
            frame_of(encoded(restart_marker_blocks=3), height=0), S.DECODE_FAILED, id="height 0 with restarts"
        ),
        pytest.param(
            frame_of(encoded(), height=0)[:-2] + b"\xff\xdc\0\4\0\x78\xff\xd9", S.DECODE_FAILED, id="DNL"
        ),
        pytest.param(b"\n" + encoded(), S.NOT_AN_IMAGE, id="blank line in front"),
        pytest.param(encoded()[:2] + b"\0" + encoded()[2:], S.NOT_AN_IMAGE, id="byte behind the start"),
        pytest.param(encoded()[:2] + encoded(), S.DECODE_FAILED, id="two starts"),
        pytest.param(png(FIRST, TEXT, SECOND), S.DECODE_FAILED, id="text between pixels"),
        pytest.param(png(IDAT, methods=(1, 0, 0)), S.DECODE_FAILED, id="another compression"),
        pytest.param(png(IDAT, methods=(0, 64, 0)), S.DECODE_FAILED, id="another filter"),
        pytest.param(png(IDAT, methods=(0, 0, 2)), S.DECODE_FAILED, id="another interlacing"),
    ],
)  # fmt: skip
def test_what_browsers_do_not_show_has_a_reason(data: bytes, status: S) -> None:
    assert judged(data) == judged(data, resize_mode="no") == [status] * 2


def second_image() -> bytes:
    return encoded(SCENE, "MPO", save_all=True, append_images=[SCENE.rotate(90).resize((320, 240))])


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(before_the_scan(b"abc"), id="bytes between segments"),
        pytest.param(before_the_scan(b"abc", restart_marker_blocks=3), id="the same with restarts"),
        pytest.param(before_the_scan(b"\xff\xd0"), id="restart marker between segments"),
        pytest.param(before_the_scan(b"\xff" * 7), id="fill bytes"),
        pytest.param(before_the_scan(segment(0xFE, b"")), id="empty comment"),
        pytest.param(encoded()[:2] + encoded()[JFIF_BYTES:], id="without JFIF"),
        pytest.param(encoded()[:-2] + b"\xff\xdc\0\4\0\x78\xff\xd9", id="number of lines behind the scan"),
        pytest.param(second_image(), id="larger second image"),
        pytest.param(
            encoded()[:JFIF_BYTES] + segment(0xE0, b"JFXX\0\x10" + encoded(RED))
            + encoded()[JFIF_BYTES:], id="thumbnail"
        ),
        pytest.param(png(FIRST, chunk(b"IDAT", b""), SECOND), id="empty piece"),
        pytest.param(png(IDAT, chunk(b"IDAT", b"junk")), id="more than its pixels"),
        pytest.param(png(chunk(b"acTL", struct.pack(">II", 1, 0)), IDAT), id="animation without frames"),
    ],
)  # fmt: skip
def test_the_first_image_of_an_odd_file_is_taken(data: bytes) -> None:
    for stored in judged(data, encode_format="png"):
        assert isinstance(stored, StoredImage)
        assert np.abs(pixels(stored) - np.asarray(SCENE).astype(int)).mean() < 8


def test_what_an_animation_of_one_frame_leaves_of_its_canvas_is_white() -> None:
    def of_kind(kind: bytes, body: bytes) -> bytes:
        return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) & 1)

    frame, sides = encoded(RED, "WEBP")[12:], [(side - 1).to_bytes(3, "little") for side in (64, 48, 99, 90)]
    content = b"WEBP" + of_kind(b"VP8X", bytes([2, 0, 0, 0]) + sides[2] + sides[3])
    content += of_kind(b"ANIM", bytes(6))
    content += of_kind(b"ANMF", bytes(6) + sides[0] + sides[1] + bytes(4) + frame)
    stored, _ = judged(b"RIFF" + struct.pack("<I", len(content)) + content, encode_format="png")
    assert isinstance(stored, StoredImage)
    found = pixels(stored)
    assert found[80, 80].tolist() == [255, 255, 255]
    assert np.abs(found[20, 20] - PLAIN).max() < 8
