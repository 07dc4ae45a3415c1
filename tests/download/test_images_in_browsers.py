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


TAGS = 132, 12


def of_profile(place: int, value: bytes, profile: bytes = PROFILE) -> bytes:
    return profile[:place] + value + profile[place + len(value) :]


def of_tag(name: bytes, value: bytes, place: int = 0) -> bytes:
    """The profile with other bytes in one of its tags."""
    entry = PROFILE.index(name, TAGS[0])
    (start,) = struct.unpack_from(">I", PROFILE, entry + 4)
    return of_profile(start + place, value)


def shortened(name: bytes) -> bytes:
    return of_profile(PROFILE.index(name, TAGS[0]) + 8, struct.pack(">I", 8))


def curve(kind: int, *numbers: float) -> bytes:
    return (
        b"para" + struct.pack(">4xHxx", kind) + b"".join(struct.pack(">i", int(n * 65_536)) for n in numbers)
    )


WHITE_OF_SCREENS = struct.pack(">3i", 62_289, 65_536, 71_367)


@pytest.mark.parametrize(
    ("profile", "colour"),
    [
        pytest.param(of_profile(68, WHITE_OF_SCREENS), PLAIN, id="white of the connection is not D50"),
        pytest.param(of_profile(68, bytes(12)), PLAIN, id="no white of the connection"),
        pytest.param(of_profile(8, b"\5"), PLAIN, id="version 5"),
        pytest.param(of_profile(8, b"\2"), EXCHANGED, id="version 2"),
        pytest.param(of_profile(36, b"xxxx"), PLAIN, id="without its signature"),
        pytest.param(of_profile(20, b"RGB "), PLAIN, id="another space of connection"),
        *(pytest.param(of_profile(12, kind), EXCHANGED, id=kind.decode())
          for kind in (b"link", b"abst", b"nmcl", b"xxxx")),
        *(pytest.param(shortened(name), PLAIN, id=f"{name.decode()} cut off")
          for name in (b"rXYZ", b"gXYZ", b"bXYZ")),
        pytest.param(of_tag(b"rXYZ", b"xxxx"), PLAIN, id="column of another kind"),
        pytest.param(of_tag(b"rTRC", b"xxxx"), PLAIN, id="curve of another kind"),
        pytest.param(of_tag(b"rTRC", curve(0, -1.0)), PLAIN, id="negative power"),
        pytest.param(of_tag(b"rTRC", curve(1, 2.2, 0.0, 0.0)), PLAIN, id="division by zero"),
        pytest.param(of_tag(b"rTRC", curve(5, 1.0, 1.0, 1.0, 1.0)), PLAIN, id="unknown kind of formula"),
        pytest.param(of_tag(b"wtpt", WHITE_OF_SCREENS, 8), EXCHANGED, id="another white of the medium"),
        pytest.param(struct.pack(">I", 200) + PROFILE[4:], PLAIN, id="shorter than its tags"),
        pytest.param(PROFILE + bytes(100), EXCHANGED, id="more bytes behind it"),
    ],
)  # fmt: skip
def test_a_profile_is_applied_if_browsers_do(profile: bytes, colour: tuple[int, ...]) -> None:
    for data in (
        red_with(parts((1, 1, profile))),
        encoded(RED, "PNG", icc_profile=profile),
        encoded(RED, "WEBP", icc_profile=profile, lossless=True),
    ):
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
    head = struct.pack(">IIBBBBB", *SCENE.size, 8, 2, *methods[:3]) + bytes(methods[3:])
    content = chunk(b"IHDR", head) + b"".join(middle) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + content


ROWS = zlib.compress(b"".join(b"\0" + row.tobytes() for row in np.asarray(SCENE)))
ROW_BYTES = 1 + 3 * SCENE.width
DATA = zlib.decompress(ROWS)
IDAT, TEXT = chunk(b"IDAT", ROWS), chunk(b"tEXt", b"Comment\0x")
FIRST, SECOND = chunk(b"IDAT", ROWS[:99]), chunk(b"IDAT", ROWS[99:])


def fewer_rows(rows: int) -> bytes:
    return png(chunk(b"IDAT", zlib.compress(DATA[: len(DATA) - rows * ROW_BYTES])))


@pytest.mark.parametrize("rows", [1, 2, 30, SCENE.height])
def test_a_png_whose_data_end_with_a_row_too_early_is_refused(rows: int) -> None:
    assert judged(fewer_rows(rows)) == judged(fewer_rows(rows), resize_mode="no") == [S.DECODE_FAILED] * 2


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("size", [(16, 16), (17, 13), (33, 2)])
def test_a_black_png_is_not_taken_for_one_that_lacks_rows(mode: str, size: tuple[int, int]) -> None:
    for found in judged(encoded(Image.new(mode, size), "PNG"), min_side=0, max_aspect_ratio=0):
        assert isinstance(found, StoredImage)


def interlaced(size: tuple[int, int], cut: int = 0, *, checked: bool = True) -> bytes:
    """A black PNG in seven passes, without the last bytes of its rows."""
    rows = b""
    for left, top, across, down in (
        *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
        *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
    ):
        columns, lines = len(range(left, size[0], across)), len(range(top, size[1], down))
        rows += (bytes(1 + 3 * columns) * lines) if columns else b""
    packed = zlib.compress(rows[: len(rows) - cut])
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 1))
    data = chunk(b"IDAT", packed if checked else packed[:-1] + b"x")
    return b"\x89PNG\r\n\x1a\n" + head + data + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(16, 16), (17, 13), (3, 2), (5, 5), (1, 9), (9, 1)])
def test_the_rows_of_an_interlaced_png_are_counted(size: tuple[int, int]) -> None:
    tiny = {"min_side": 0, "max_aspect_ratio": 0}
    for data in (interlaced(size), interlaced(size, checked=False)):
        assert all(isinstance(found, StoredImage) for found in judged(data, **tiny))
    assert (
        judged(interlaced(size, 1 + 3 * (size[0] if size[1] > 1 else size[0] // 2)), **tiny)
        == [S.DECODE_FAILED] * 2
    )


@pytest.mark.parametrize("cut", [1, 4])
@pytest.mark.parametrize("split", [False, True])
def test_a_png_of_which_only_the_checksum_of_its_data_is_wrong_is_taken(cut: int, split: bool) -> None:
    damaged = ROWS[:-cut] + bytes(one ^ 1 for one in ROWS[-cut:])
    pieces = (damaged[:99], damaged[99:]) if split else (damaged,)
    data = png(*(chunk(b"IDAT", piece) for piece in pieces))
    for stored in judged(data, encode_format="png"):
        assert isinstance(stored, StoredImage)
        assert stored.data != data
        assert (pixels(stored) == np.asarray(SCENE)).all()
    for broken in (
        png(chunk(b"IDAT", damaged, broken=True)),
        png(chunk(b"IDAT", damaged[:300] + b"x" + damaged[301:-9])),
    ):
        assert judged(broken) == [S.DECODE_FAILED] * 2


@pytest.mark.parametrize("least", [0, 5, 12])
def test_orientation_is_that_of_the_first_exif_of_a_png(least: int) -> None:
    turned, mirrored = tiff("<", 3, 1, 6)[6:], tiff("<", 3, 1, 2)[6:]
    first = chunk(b"eXIf", turned if not least else turned[:least])
    for data in (png(first, chunk(b"eXIf", mirrored), IDAT), png(first, IDAT, chunk(b"eXIf", mirrored))):
        for stored in judged(data, encode_format="png"):
            assert isinstance(stored, StoredImage)
            found = np.rot90(pixels(stored)) if not least else pixels(stored)
            assert np.abs(found - np.asarray(SCENE).astype(int)).mean() < 2


def test_exif_counts_whatever_follows_its_name() -> None:
    for stored in judged(red_with(segment(0xE1, tiff("<", 3, 1, 6).replace(b"Exif\0\0", b"Exif\0\xff")))):
        assert isinstance(stored, StoredImage)
        assert (stored.width, stored.height) == (48, 64)


def red_of(declared: bytes) -> tuple[int, ...]:
    data = encoded(RED, "PNG")
    return flat(data[:33] + declared + data[33:])


def test_chromaticities_count_beside_a_gamma_only() -> None:
    wide = chunk(b"cHRM", struct.pack(">8I", 31_270, 32_900, 68_000, 32_000, 26_500, 69_000, 15_000, 6_000))
    assert red_of(wide) == PLAIN
    assert red_of(wide + chunk(b"gAMA", struct.pack(">I", 45_455)))[0] > PLAIN[0] + 10


METADATA = {
    0xE0: b"JFIF\0\1\1\0\0\1\0\1\0\0",
    0xE2: b"ICC_PROFILE\0\1\1" + PROFILE[:9],
    0xED: b"Photoshop 3.0\x008BIM\4\4\0\0\0\0\0\2ab",
    0xEE: b"Adobe\0\x64\0\0\0\0\1",
}


@pytest.mark.parametrize("marker", METADATA)
@pytest.mark.parametrize("cut_off", [False, True])
def test_metadata_that_are_too_short_do_not_cost_the_image(marker: int, cut_off: bool) -> None:
    data = encoded()[: -2 if cut_off else None]
    for length in range(len(METADATA[marker])):
        short = data[:2] + segment(marker, METADATA[marker][:length]) + data[JFIF_BYTES:]
        for stored in judged(short, resize_mode="no", encode_format="png"):
            assert isinstance(stored, StoredImage)  # what is stored as it came can be opened by Pillow
            assert np.abs(pixels(stored) - np.asarray(SCENE).astype(int)).mean() < 8


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
        pytest.param(png(IDAT, methods=(0, 0, 0, 0)), S.DECODE_FAILED, id="longer header"),
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
        pytest.param(png(IDAT, chunk(b"ABCD", b"")), id="unknown chunk behind the pixels"),
        pytest.param(png(chunk(b"acTL", struct.pack(">II", 1, 0)), IDAT), id="animation without frames"),
    ],
)  # fmt: skip
def test_the_first_image_of_an_odd_file_is_taken(data: bytes) -> None:
    for stored in judged(data, encode_format="png"):
        assert isinstance(stored, StoredImage)
        assert np.abs(pixels(stored) - np.asarray(SCENE).astype(int)).mean() < 8


def animated(frames: int) -> bytes:
    """A WebP with an animation on a larger canvas."""

    def of_kind(kind: bytes, body: bytes) -> bytes:
        return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) & 1)

    frame, sides = encoded(RED, "WEBP")[12:], [(side - 1).to_bytes(3, "little") for side in (64, 48, 99, 90)]
    content = b"WEBP" + of_kind(b"VP8X", bytes([2, 0, 0, 0]) + sides[2] + sides[3])
    content += of_kind(b"ANIM", bytes(6))
    content += of_kind(b"ANMF", bytes(6) + sides[0] + sides[1] + bytes(4) + frame) * frames
    return b"RIFF" + struct.pack("<I", len(content)) + content


@pytest.mark.parametrize("cut", [2, 40, 100])
@pytest.mark.parametrize("frames", [1, 2])
def test_an_animation_that_is_cut_off_is_refused(frames: int, cut: int) -> None:
    assert judged(animated(2)) == [S.ANIMATED] * 2
    assert judged(animated(frames)[:-cut]) == [S.DECODE_FAILED] * 2


def test_what_an_animation_of_one_frame_leaves_of_its_canvas_is_white() -> None:
    stored, _ = judged(animated(1), encode_format="png")
    assert isinstance(stored, StoredImage)
    found = pixels(stored)
    assert found[80, 80].tolist() == [255, 255, 255]
    assert np.abs(found[20, 20] - PLAIN).max() < 8
