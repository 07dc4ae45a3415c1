"""Chunks of a PNG that change its colours: which of them count, as libpng and browsers read them."""

import struct
import zlib

import numpy as np
import pytest

from laion_etl.core.funnel import DownloadStatus as S
from laion_etl.download.images import StoredImage
from tests.download.image_files import chunk, encoded, exchanged, flat, judged, linear_grey, png_with

SIDE = 8
PALETTE = chunk(b"PLTE", bytes([10, 20, 30, 200, 40, 90]))
CLEAR = chunk(b"tRNS", bytes(2))
OPAQUE = chunk(b"tRNS", b"\xff\xff")
GREEN = chunk(b"iCCP", b"a\0\0" + zlib.compress(exchanged()))  # red and green exchanged
RED = (200, 40, 90)
SRGB = chunk(b"sRGB", b"\0")
ADOBE = chunk(b"cHRM", struct.pack(">8i", 31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000))
P3 = chunk(b"cICP", bytes((12, 13, 0, 1)))


def gamma(value: float) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", round(value * 100_000)))


def png(kind: int, pixel: bytes, *, before: bytes = b"", behind: bytes = b"", bits: int = 8) -> bytes:
    """A PNG of one colour with chunks before its pixels and behind them."""
    head = struct.pack(">IIBBBBB", SIDE, SIDE, bits, kind, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress((b"\0" + pixel * SIDE) * SIDE))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + before + pixels + behind + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "colour"),
    [
        pytest.param(png(3, b"\1", before=PALETTE + CLEAR), (255, 255, 255), id="a clear colour"),
        pytest.param(png(3, b"\1", before=CLEAR + PALETTE), RED, id="before the palette"),
        pytest.param(png(3, b"\1", before=PALETTE, behind=CLEAR), RED, id="behind the pixels"),
        pytest.param(png(3, b"\1", before=PALETTE + OPAQUE + CLEAR), RED, id="the second"),
        pytest.param(png(3, b"\1", before=PALETTE + chunk(b"tRNS", bytes(3))), RED, id="more than colours"),
        pytest.param(png(3, b"\1", before=GREEN + PALETTE), (40, 200, 90), id="profile"),
        pytest.param(png(3, b"\1", before=PALETTE + GREEN), RED, id="profile behind the palette"),
        pytest.param(png(2, bytes(RED), behind=GREEN), RED, id="profile behind the pixels"),
        pytest.param(png(2, bytes(RED), before=gamma(1)), (229, 110, 160), id="gamma"),
        pytest.param(png(0, b"\x4c", before=gamma(1)), (148, 148, 148), id="gamma of grey"),
        pytest.param(png(4, b"\x4c\xff", before=gamma(1)), (148, 148, 148), id="gamma of grey with alpha"),
        pytest.param(png(2, bytes(RED), before=gamma(0.45)), RED, id="usual gamma"),
        pytest.param(png(2, bytes(RED), before=gamma(0)), RED, id="no gamma"),
        pytest.param(png(2, bytes(RED), before=SRGB + gamma(1)), RED, id="gamma beside sRGB"),
        pytest.param(png(2, bytes(RED), before=GREEN + gamma(1)), (40, 200, 90), id="gamma beside a profile"),
        pytest.param(png(2, bytes(RED), behind=gamma(1)), RED, id="gamma behind the pixels"),
        pytest.param(png(2, bytes(RED), before=P3), (218, 0, 89), id="cICP"),
        pytest.param(png(2, bytes(RED), before=GREEN + P3), (218, 0, 89), id="cICP beside a profile"),
        pytest.param(png(2, bytes(RED), before=chunk(b"cICP", bytes((9, 16, 0, 1)))), RED, id="HDR"),
        pytest.param(png(2, bytes(RED), before=ADOBE + gamma(0.45455)), (233, 35, 91), id="primaries"),
        pytest.param(png(2, bytes(RED), before=chunk(b"cHRM", bytes(32))), RED, id="impossible primaries"),
    ],
)  # fmt: skip
def test_only_chunks_in_their_place_change_colours(data: bytes, colour: tuple[int, ...]) -> None:
    assert np.abs(np.subtract(flat(data), colour)).max() <= 2


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(png(3, b"\1"), id="missing"),
        pytest.param(png(3, b"\1", behind=PALETTE), id="behind the pixels"),
        pytest.param(png(3, b"\1", before=PALETTE * 2), id="twice"),
        pytest.param(png(3, b"\1", before=chunk(b"PLTE", bytes(10))), id="part of a colour"),
        pytest.param(png(3, b"\1", before=chunk(b"PLTE", b"")), id="empty"),
    ],
)
def test_an_indexed_image_without_its_palette_is_refused(data: bytes) -> None:
    assert judged(data) == [S.DECODE_FAILED] * 2


@pytest.mark.parametrize("key", [b"\x10\1\x20\2\x30\3", b"\x10\2\x20\2\x30\3", b"\x10\1\x20\2\x30\4"])
def test_all_bits_of_a_transparent_colour_count(key: bytes) -> None:
    pixel = b"\x10\1\x20\2\x30\3"
    data = png(2, pixel, before=chunk(b"tRNS", key), bits=16)
    assert flat(data) == ((255, 255, 255) if key == pixel else (0x10, 0x20, 0x30))


def test_a_profile_of_grey_is_applied_to_grey_with_alpha_in_16_bits() -> None:
    profile = chunk(b"iCCP", b"a\0\0" + zlib.compress(linear_grey()))
    assert flat(png(4, b"\x4c\0\xff\xff", before=profile, bits=16)) == (148, 148, 148)
    assert flat(png(2, bytes(RED), before=profile)) == RED


def test_a_second_png_behind_the_first_is_not_stored() -> None:
    data = encoded(format_="PNG")
    for stored in judged(data + png_with(chunk(b"eXIf", b"MM\0*GPS"), behind=True), resize_mode="no"):
        assert isinstance(stored, StoredImage)
        assert b"GPS" not in stored.data
