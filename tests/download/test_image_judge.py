"""What is stored of an image: the same whether it is decoded or only its file is read; no location; sRGB."""

import io
import random
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, PngImagePlugin

from laion_etl.core.funnel import DownloadStatus as S
from laion_etl.download.content_opt_out import opted_out_by_metadata
from laion_etl.download.declared_colours import profile_of_codes
from laion_etl.download.image_header import ImageRules, is_plain, other_format, refused_by_beginning, sniff
from laion_etl.download.images import ImageSettings, StoredImage, decode
from laion_etl.download.jpeg_end import is_cut_off
from laion_etl.download.jpeg_segments import COMMENT, END, SCAN, segments
from laion_etl.settings import DownloadSettings
from tests.download.image_files import (
    SCENE,
    SRGB,
    XMP,
    before_the_scan,
    chunk,
    encoded,
    exchanged,
    exif,
    flat,
    jpeg_with,
    judged,
    linear_grey,
    pixels,
    png_of,
    png_with,
    segment,
    webp_with,
)

GPS = exif(0x8825, {1: "N", 2: (47.0, 22.0, 0.0)})
TURNED = exif(0x0112, 6)
XMP_GPS = b'<x:xmpmeta><rdf:Description exif:GPSLatitude="47,22N"/></x:xmpmeta>'
XMP_CITY = b"<x:xmpmeta><photoshop:City>Bern</photoshop:City></x:xmpmeta>"
XMP_DRONE = b'<x:xmpmeta><rdf:Description drone-dji:GpsLatitude="+47.1"/></x:xmpmeta>'
XMP_W3C = b"<x:xmpmeta><geo:lat>47.1</geo:lat></x:xmpmeta>"
XMP_LONGITUDE = b"<x:xmpmeta><Camera:Longitude>8.5</Camera:Longitude></x:xmpmeta>"
XMP_PLAIN = b'<x:xmpmeta><rdf:Description xmp:CreatorTool="a" xmpMM:DocumentID="b"/></x:xmpmeta>'
IPTC_CITY = b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\x09\x1c\x02\x5a\0\x04Bern\0"


SHOWN = np.asarray(SCENE).astype(int)
RESOURCE_EXIF = b"Photoshop 3.0\x008BIM\x04\x22\0\0" + struct.pack(">I", len(GPS) - 6) + GPS[6:]


def exif_of_thumbnail() -> bytes:
    """Exif whose first directory is empty and whose second, of a thumbnail, has a location."""
    second = struct.pack(">HHHIII", 1, 0x8825, 4, 1, 32, 0)
    north = struct.pack(">HHHI4sI", 1, 1, 2, 2, b"N", 0)
    return b"Exif\0\0MM\0*" + struct.pack(">IHI", 8, 0, 14) + second + north


def between_scans(extra: bytes) -> bytes:
    data = encoded(progressive=True)
    place = data.rindex(b"\xff\xda")
    return data[:place] + extra + data[place:]


def declared(difference: int) -> bytes:
    """A WebP whose container has another length than it says."""
    data = encoded(format_="WEBP")
    return data[:4] + struct.pack("<I", len(data) - 8 + difference) + data[8:]


def without_last_scan() -> bytes:
    data = encoded(progressive=True)
    return data[: data.rindex(b"\xff\xda")]


def png_of_rows(change: Callable[[bytes], bytes]) -> bytes:
    """A PNG whose rows were changed before they were compressed; all checksums are right."""
    rows = b"".join(b"\0" + row.tobytes() for row in np.asarray(SCENE))
    head = struct.pack(">IIBBBBB", *SCENE.size, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(change(rows))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def long_exif() -> bytes:
    """Exif with the directory of a location behind a thousand other entries."""
    entry = struct.pack(">HHII", 0x0132, 4, 1, 0)
    location = struct.pack(">HHII", 0x8825, 4, 1, 10 + 12 * 1_001 + 4)
    directory = struct.pack(">H", 1_001) + entry * 1_000 + location + bytes(4)
    north = struct.pack(">HHHI4sI", 1, 1, 2, 2, b"N", 0)
    return b"Exif\0\0MM\0*" + struct.pack(">I", 8) + directory + north


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(jpeg_with(0xE1, GPS), id="Exif of a JPEG"),
        pytest.param(jpeg_with(0xE1, XMP + XMP_GPS), id="XMP of a JPEG"),
        pytest.param(jpeg_with(0xE1, XMP + XMP_CITY), id="a city in XMP"),
        pytest.param(jpeg_with(0xE1, XMP + XMP_GPS.decode().encode("utf-16")), id="XMP in UTF-16"),
        pytest.param(jpeg_with(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + XMP_GPS), id="extended XMP"),
        pytest.param(jpeg_with(0xED, IPTC_CITY), id="IPTC"),
        pytest.param(encoded() + b"\xff\xe1" + GPS + b"\xff\xd9", id="behind the first image"),
        pytest.param(before_the_scan(b"\0" + segment(0xE1, GPS)), id="behind a byte that is no segment"),
        pytest.param(
            before_the_scan(segment(0xFE, b"") * 1_000 + segment(0xE1, GPS)), id="behind a thousand segments"
        ),
        pytest.param(jpeg_with(0xE1, XMP + XMP_DRONE), id="XMP of a drone"),
        pytest.param(jpeg_with(0xE1, XMP + XMP_W3C), id="geo:lat"),
        pytest.param(jpeg_with(0xE1, XMP + XMP_LONGITUDE), id="longitude under another name"),
        pytest.param(jpeg_with(0xE1, long_exif()), id="behind a thousand entries of Exif"),
        pytest.param(jpeg_with(0xE1, exif(700, XMP_GPS)), id="XMP in Exif"),
        pytest.param(jpeg_with(0xE1, exif(33723, IPTC_CITY[26:])), id="IPTC in Exif"),
        pytest.param(png_with(chunk(b"eXIf", GPS[6:])), id="eXIf"),
        pytest.param(png_with(chunk(b"eXIf", GPS[6:]), behind=True), id="eXIf behind the pixels"),
        pytest.param(png_with(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP_GPS)), id="XMP of a PNG"),
        pytest.param(
            png_with(chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP_GPS)), behind=True),
            id="compressed XMP of a PNG",
        ),
        pytest.param(
            png_with(chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(GPS.hex().encode()))),
            id="ImageMagick's profile",
        ),
        pytest.param(jpeg_with(0xE1, exif(0x8769, {0x927C: b"Apple iOS\0" + bytes(30)})), id="maker's notes"),
        pytest.param(
            jpeg_with(0xE1, exif(0x8769, {0x9286: b"ASCII\0\0\0gps 47.3,8.5"})), id="user's comment"
        ),
        pytest.param(
            jpeg_with(0xE1, exif(0x9C9C, "Latitude 47".encode("utf-16-le"))), id="Windows' comment in UTF-16"
        ),
        pytest.param(jpeg_with(0xE1, exif_of_thumbnail()), id="in the directory of the thumbnail"),
        pytest.param(jpeg_with(0xFE, b"GPSLatitude=47.1"), id="comment of a JPEG"),
        pytest.param(jpeg_with(0xED, RESOURCE_EXIF), id="Exif in Photoshop's resources"),
        pytest.param(
            before_the_scan(segment(0xED, IPTC_CITY[:29]) + segment(0xED, IPTC_CITY[:14] + IPTC_CITY[29:])),
            id="IPTC cut in two",
        ),
        pytest.param(jpeg_with(0xE2, b"FPXR\0Latitude"), id="FlashPix"),
        pytest.param(jpeg_with(0xE4, b"DJI\0" + bytes(20)), id="an unknown segment"),
        pytest.param(between_scans(segment(0xED, IPTC_CITY)), id="IPTC between two scans"),
        pytest.param(encoded() + encoded(exif=GPS), id="a second image behind the first"),
        pytest.param(png_with(chunk(b"tEXt", b"GPSLatitude\x0047.1")), id="keyword of a text"),
        pytest.param(png_with(chunk(b"iTXt", b"GPSLatitude\0\0\0\0\x0047.1")), id="keyword of UTF-8 text"),
        pytest.param(
            png_with(chunk(b"tEXt", b"Raw profile type iptc\0" + IPTC_CITY.hex().encode())),
            id="IPTC of a PNG",
        ),
        pytest.param(webp_with(0x08, b"EXIF", GPS[6:]), id="Exif of a WebP"),
        pytest.param(webp_with(0x04, b"XMP ", XMP_GPS), id="XMP of a WebP"),
    ],
)
def test_a_location_is_never_stored_however_it_is_written(data: bytes) -> None:
    for stored in judged(data):
        assert isinstance(stored, StoredImage)
        assert stored.data != data
        for name in (b"Exif", b"GPS", b"Bern", b"xmp", b"eXIf", b"Raw profile", b"Latitude", b"DJI", b"iOS"):
            assert name not in stored.data


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encoded(), id="JPEG"),
        pytest.param(jpeg_with(0xE1, XMP + XMP_PLAIN), id="XMP without a location"),
        pytest.param(jpeg_with(0xE1, exif(0x010E, "a title")), id="Exif without a location"),
        pytest.param(jpeg_with(0xE1, XMP + b'<a tiff:Orientation="6"/>'), id="orientation in XMP alone"),
        pytest.param(png_with(chunk(b"tEXt", b"Comment\0a photo")), id="a comment"),
        pytest.param(webp_with(0x04, b"XMP ", XMP_PLAIN), id="XMP of a WebP"),
        pytest.param(encoded(format_="WEBP", lossless=True), id="lossless WebP"),
        pytest.param(encoded(icc_profile=SRGB), id="profile of sRGB"),
        pytest.param(encoded(format_="PNG", icc_profile=SRGB), id="profile of sRGB in a PNG"),
        pytest.param(encoded(format_="WEBP", icc_profile=SRGB), id="profile of sRGB in a WebP"),
    ],
)
def test_what_says_nothing_of_a_place_is_stored_as_it_came(data: bytes) -> None:
    for stored in judged(data):
        assert isinstance(stored, StoredImage)
        assert stored.data == data


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("profile", [exchanged(), linear_grey(), SRGB[:300], b"no profile"])
def test_a_file_with_other_colours_than_those_of_srgb_is_not_stored_as_it_came(
    format_: str, profile: bytes
) -> None:
    data = encoded(format_=format_, icc_profile=profile)
    for stored in judged(data):
        assert isinstance(stored, StoredImage)
        assert profile not in stored.data
        assert stored.format == "jpg"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(png_with(chunk(b"tEXt", b"Comment\0a", broken=True)), id="check sum of a comment"),
        pytest.param(png_with(chunk(b"tEXt", b"Comment\0" + b"a" * 2_000_000)), id="large comment"),
        pytest.param(
            png_with(chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2_000_000)))),
            id="large when inflated",
        ),
        pytest.param(
            png_with(chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(2_000_000)))), id="large broken profile"
        ),
        pytest.param(jpeg_with(0xE1, b"Exif\0\0no Exif"), id="broken Exif"),
        pytest.param(jpeg_with(0xE1, TURNED), id="turned by Exif"),
        pytest.param(
            png_with(chunk(b"eXIf", TURNED[6:]), behind=True), id="turned by Exif behind the pixels"
        ),
    ],
)
def test_the_pixels_are_the_same_with_hashes_and_without_and_any_reader_takes_them(data: bytes) -> None:
    one, other = judged(data)
    assert isinstance(one, StoredImage)
    assert isinstance(other, StoredImage)
    assert one.data == other.data
    turned = TURNED[6:] in data
    assert pixels(one).shape == ((160, 120, 3) if turned else (120, 160, 3))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encoded()[:-2], id="JPEG without its end"),
        pytest.param(encoded()[:-1], id="JPEG with half its end"),
        pytest.param(encoded(progressive=True)[:-2], id="progressive JPEG without its end"),
        pytest.param(encoded(restart_marker_blocks=4)[:-2], id="restarts, without its end"),
        pytest.param(encoded(SCENE.convert("CMYK"))[:-2], id="inks, without its end"),
        pytest.param(encoded(format_="PNG")[:-12], id="PNG without its end"),
        pytest.param(
            png_with(chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(20_000_000)))), id="profile of 20 MB"
        ),
        pytest.param(png_with(chunk(b"iCCP", b"a")), id="profile without a name"),
        pytest.param(png_with(chunk(b"iCCP", b"a\0\1unknown")), id="profile compressed in another way"),
        pytest.param(png_with(chunk(b"tRNS", b"\0")), id="transparent colour that is too short"),
        pytest.param(png_with(chunk(b"acTL", b"\0")), id="animation that is too short"),
        pytest.param(png_with(chunk(b"acTL", struct.pack(">II", 2, 0))), id="animation without frames"),
        pytest.param(png_with(chunk(b"fcTL", bytes(26))), id="frame without an animation"),
        pytest.param(png_with(chunk(b"gAMA", b"a")), id="gamma that is too short"),
        pytest.param(png_with(chunk(b"pHYs", b"")), id="resolution that is empty"),
        pytest.param(declared(1), id="WebP declared one byte too long"),
        pytest.param(declared(-1), id="WebP declared one byte too short"),
    ],
)
def test_what_browsers_show_without_doubt_is_taken(data: bytes) -> None:
    found = judged(data, encode_format="png")
    for stored in found:
        assert isinstance(stored, StoredImage)
        assert stored.data != data
        assert np.abs(pixels(stored) - SHOWN).mean() < 8  # of JPEG and WebP, and of colours made grey


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encoded()[:-20], id="JPEG without its last blocks"),
        pytest.param(encoded()[: len(encoded()) // 2], id="half a JPEG"),
        pytest.param(without_last_scan(), id="progressive JPEG without its last scan"),
        pytest.param(encoded(format_="PNG")[:-200], id="PNG without its last rows"),
        pytest.param(png_of_rows(lambda rows: rows[:-5_000]), id="PNG with too few rows"),
        pytest.param(png_of_rows(lambda rows: b"\x09" + rows[1:]), id="unknown filter"),
        pytest.param(png_with(chunk(b"ABCD", b"")), id="unknown chunk that is needed"),
        pytest.param(encoded(format_="WEBP")[:-100], id="WebP cut off"),
        pytest.param(declared(-100)[:-100], id="WebP cut off, and declared so"),
        pytest.param(encoded(format_="WEBP", lossless=True)[:-100], id="lossless WebP cut off"),
    ],
)
def test_a_file_that_lacks_pixels_is_refused_with_hashes_and_without(data: bytes) -> None:
    assert judged(data) == judged(data, resize_mode="no") == [S.DECODE_FAILED] * 2


def ended_after(share: float, data: bytes) -> bytes:
    """A JPEG that was cut off within its pixels and then got an end marker."""
    start = data.rindex(b"\xff\xda") + 14
    return data[: start + int(share * (len(data) - start))].removesuffix(b"\xff") + b"\xff\xd9"


@pytest.mark.parametrize("resize", [{}, {"resize_mode": "no"}, {"image_size": 64}], ids=str)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encoded(), id="colour"),
        pytest.param(encoded(subsampling=0, optimize=True), id="tables of its own"),
        pytest.param(encoded(restart_marker_blocks=4), id="restarts"),
        pytest.param(encoded(SCENE.convert("L")), id="grey"),
        pytest.param(encoded(SCENE.convert("CMYK")), id="inks"),
    ],
)
def test_an_end_marker_does_not_replace_the_pixels_in_front_of_it(
    data: bytes, share: float, resize: dict[str, Any]
) -> None:
    assert isinstance(judged(data, **resize)[0], StoredImage)
    assert judged(ended_after(share, data), **resize)[0] is S.DECODE_FAILED


def scans_of(data: bytes) -> list[int]:
    """Where the scans of a JPEG begin."""
    return [start - 4 for marker, start, _ in segments(data) if marker == SCAN]


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("trailing", [b"", bytes(20), b"more"])
def test_an_end_marker_does_not_replace_scans(mode: str, trailing: bytes) -> None:
    data = encoded(SCENE.convert(mode), progressive=True)
    assert isinstance(judged(data + trailing)[0], StoredImage)
    for place in scans_of(data)[1:]:
        for found in (judged(data[:place] + b"\xff\xd9" + trailing), judged(data[:place])):
            assert found == [S.DECODE_FAILED] * 2


@pytest.mark.parametrize("tail", [b"", bytes(40), b"more"])
def test_an_image_that_is_grey_at_its_end_is_taken(tail: bytes) -> None:
    image = SCENE.copy()
    image.paste((128, 128, 128), (100, 60, *SCENE.size))
    for data in (encoded(image), encoded(image, restart_marker_blocks=4), encoded(image.convert("L"))):
        assert isinstance(judged(data + tail)[0], StoredImage)


def is_filled_up(found: StoredImage | S) -> bool:
    """Whether pixels are missing, which only a decoder sees: its end marker stands where they should be."""
    return isinstance(found, StoredImage) and is_cut_off(found.data, Image.open(io.BytesIO(found.data)))


def test_no_damage_of_a_jpeg_but_missing_pixels_is_judged_differently_without_a_decoder() -> None:
    rng = random.Random(1)
    small = SCENE.resize((48, 40))
    files = [encoded(small), encoded(small, progressive=True), encoded(small, subsampling=0, optimize=True)]
    undecided = 0
    for _ in range(400):
        data = bytearray(rng.choice(files))
        place = rng.randrange(2, data.rindex(b"\xff\xda") + 14)
        data[place] = rng.choice((0, 255, rng.randrange(256), data[place] ^ 1))
        one, other = judged(bytes(data), resize_mode="no")
        if isinstance(one, S) or isinstance(other, S):
            assert one is other or (one is S.DECODE_FAILED and is_filled_up(other))
        else:
            assert one.data == other.data
            undecided += one.data != data
    assert 0 < undecided < 400


def test_a_damaged_pixel_chunk_is_still_refused() -> None:
    data = bytearray(encoded(format_="PNG"))
    data[data.index(b"IDAT") + 40] ^= 1
    assert judged(bytes(data)) == [S.DECODE_FAILED] * 2


def with_alpha(alpha: int) -> bytes:
    image = Image.new("RGBA", (400, 300), (200, 40, 90, alpha))
    return encoded(image, "PNG", icc_profile=exchanged())


def palette() -> bytes:
    image = Image.new("RGB", (400, 300), (200, 40, 90)).convert("P", palette=Image.Palette.ADAPTIVE)
    return encoded(image, "PNG", icc_profile=exchanged())


def grey(mode: str) -> bytes:
    colour = {"L": 76, "LA": (76, 255)}[mode]
    return encoded(Image.new(mode, (400, 300), colour), "PNG", icc_profile=linear_grey())


@pytest.mark.parametrize(
    ("made", "colour"),
    [
        pytest.param(lambda: with_alpha(255), (40, 200, 90), id="opaque alpha"),
        pytest.param(lambda: with_alpha(0), (255, 255, 255), id="clear"),
        pytest.param(lambda: with_alpha(128), (147, 227, 172), id="half clear"),
        pytest.param(palette, (40, 200, 90), id="palette"),
        pytest.param(lambda: grey("L"), (148, 148, 148), id="grey"),
        pytest.param(lambda: grey("LA"), (148, 148, 148), id="grey with alpha"),
    ],
)
def test_a_profile_is_applied_before_transparency_is_laid_over_white(
    made: Callable[[], bytes], colour: tuple[int, ...]
) -> None:
    assert np.abs(np.subtract(flat(made()), colour)).max() <= 2


def keyed(bits: int, kind: int, value: bytes, key: bytes) -> bytes:
    """A PNG of 8 x 8 pixels of one value, with a transparent colour."""
    return png_of(8, bits, kind, b"".join(b"\0" + value * 8 for _ in range(8)), key)


@pytest.mark.parametrize(
    ("data", "colour"),
    [
        (keyed(16, 0, b"\x04\xd2", b"\x04\xd2"), (255, 255, 255)),
        (keyed(16, 0, b"\x04\xd3", b"\x04\xd2"), (4, 4, 4)),
        (keyed(8, 0, b"\x12", b"\0\x12"), (255, 255, 255)),
        (keyed(8, 0, b"\x12", b"\7\x12"), (255, 255, 255)),
        (png_of(8, 4, 0, b"\0\x55\x55\x55\x55" * 8, b"\0\5"), (255, 255, 255)),
        (png_of(8, 4, 0, b"\0\x55\x55\x55\x55" * 8, b"\0\4"), (85, 85, 85)),
        (png_of(8, 2, 0, b"\0\xaa\xaa" * 8, b"\0\2"), (255, 255, 255)),
        (png_of(8, 2, 0, b"\0\xaa\xaa" * 8, b"\0\1"), (170, 170, 170)),
        (png_of(8, 1, 0, b"\0\x00" * 8, b"\0\0"), (255, 255, 255)),
        (keyed(8, 0, b"\x13", b"\0\x12"), (0x13, 0x13, 0x13)),
        (keyed(16, 2, b"\x10\1\x20\2\x30\3", b"\x10\1\x20\2\x30\3"), (255, 255, 255)),
        (keyed(16, 2, b"\x11\1\x20\2\x30\3", b"\x10\1\x20\2\x30\3"), (0x11, 0x20, 0x30)),
        (keyed(8, 2, b"\x10\x20\x30", b"\0\x10\0\x20\0\x30"), (255, 255, 255)),
    ],
)
def test_pixels_of_the_transparent_colour_become_white(data: bytes, colour: tuple[int, ...]) -> None:
    assert flat(data) == colour


class Inflated:
    """Counts the bytes that are decompressed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.total = 0
        self._of_zlib = zlib.decompressobj
        monkeypatch.setattr(zlib, "decompressobj", lambda *given: Counting(self, self._of_zlib(*given)))


class Counting:
    def __init__(self, inflated: Inflated, inflater: Any) -> None:
        self._inflated = inflated
        self._inflater = inflater

    def decompress(self, *given: Any) -> bytes:
        found: bytes = self._inflater.decompress(*given)
        self._inflated.total += len(found)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inflater, name)


@pytest.mark.parametrize(
    "bomb",
    [
        pytest.param(chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(5_000_000))), id="zTXt"),
        pytest.param(chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(5_000_000))), id="iTXt"),
        pytest.param(chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(20_000_000))), id="iCCP"),
        pytest.param(
            chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\na\n9\n" + b"0" * 5_000_000)),
            id="profile in digits",
        ),
    ],
)
def test_many_compressed_chunks_of_a_png_are_not_all_decompressed(
    bomb: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, inflated = png_with(bomb * 40), Inflated(monkeypatch)
    assert not opted_out_by_metadata(data)
    assert isinstance(judged(data)[0], StoredImage)
    assert inflated.total < 60_000_000


def test_a_jpeg_of_hundreds_of_scans_is_refused_before_it_is_decoded() -> None:
    data = encoded(progressive=True)
    start = data.index(b"\xff\xda")
    scan = data[start : data.index(b"\xff", start + 14)]
    assert [type(one) for one in judged(data)] == [StoredImage] * 2
    assert judged(data[:-2] + scan * 200 + data[-2:]) == [S.TOO_MANY_SCANS] * 2


def test_fill_bytes_before_a_marker_are_skipped_however_many() -> None:
    fill = b"\xff" * 1_000_000
    assert list(segments(b"\xff\xd8" + fill + b"\xff\xfe\x00\x03x" + b"\xff\xff\xd9")) == [
        (COMMENT, 1_000_006, 1_000_007),
        (END, 1_000_008, 1_000_010),
    ]


def test_a_video_behind_a_jpeg_does_not_count_as_scans() -> None:
    stored, _ = judged(encoded() + b"ftypmp42 \xff\xda\0\x08video" * 200)
    assert isinstance(stored, StoredImage)
    assert b"video" not in stored.data


def test_a_transparent_colour_of_a_grey_image_takes_a_few_bytes_a_pixel() -> None:
    side = 500
    rows = b"".join(b"\0" + b"\x04\xd2" * side for _ in range(side))
    data = png_of(side, 16, 0, rows, b"\x04\xd2")
    settings = ImageSettings.from_settings(DownloadSettings(min_bytes=10, perceptual_hashes=False))
    decode(data, settings)  # compiles the loop that averages
    tracemalloc.start()
    try:
        stored = decode(data, settings)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(stored, StoredImage)
    assert (
        peak < 9 * side * side
    )  # four of them for the pixels that the averaging loop reads, three for its results


@pytest.mark.parametrize("seen", [16, 30, 255, 256])
def test_how_much_of_an_svg_has_come_does_not_decide_its_name(seen: int) -> None:
    data = b'<?xml version="1.0" encoding="UTF-8"?>\n<!-- drawn -->\n<svg>' + b"<g/>" * 99
    rules = ImageRules(10, 10**6, 1, 0.0)
    found = refused_by_beginning(data[:seen], rules)
    assert found is (S.FORMAT_REFUSED if seen == 256 else True)


def test_a_side_that_no_jpeg_has_is_named() -> None:
    assert judged(encoded(Image.new("RGB", (70_000, 20)), "PNG")) == [S.SIDE_TOO_LONG] * 2


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0\0\4CgBI", S.DECODE_FAILED),
        (b"\0\0\0\x18ftypheis", S.FORMAT_REFUSED),
        (b"\0\0\0\x18ftypjxl ", S.FORMAT_REFUSED),
        (b"\0\0\0\x18ftypjp2 ", S.FORMAT_REFUSED),
        (b"\0\0\0\x18ftypmp42", S.NOT_AN_IMAGE),
    ],
)
def test_relatives_of_wanted_formats_are_recognised(head: bytes, status: S) -> None:
    assert sniff(head) is status


NAMES = (
    "Location", "City", "Country", "Geo", "lat", "Coordinates", "State", "LOCATION", "Camera Location",
    "GeoPosition", "Position", "Region", "Town", "Where",
)  # fmt: skip
COMMENTS = (
    "52\u00b030'15\"N", "geo:52.5,13.4", "Lat: 52.5, Lon: 13.4", "https://maps.google.com/?q=52.5,13.4",
    "https://www.openstreetmap.org/#map=5/51/10", "https://maps.apple.com/?ll=52.5,13.4", "52.5200, 13.4050",
    "52.52N 13.40E", "N52 31.2 E13 24.3", "at 9F4MGCJ3+V6", "City: Berlin", "Place = Berlin",
)  # fmt: skip
PROPERTIES = (
    "<georss:point>52.5 13.4<", "<dc:coverage>Berlin<", "<x:CiAdrCity>Berlin<",
    "<rdf:li>Places|Germany|Berlin<",
    'a:GeoHash="u33"', 'x:LOCATION="Berlin"', 'x:city="Berlin"', 'x:EventLocation="x"', 'x:PostalCode="1"',
    "<kml:coordinates>1,2<", 'photoshop:State="BE"', "<dwc:locality>x<", 'x:Venue="x"',
    'xmpDM:shotLocation="x"', 'x:GeoPosition="x"', 'x:latLng="x"', 'x:place="x"', 'x:AddressLine="x"',
)  # fmt: skip
GEOGRAPHIC = (0x830E, 0x8482, 0x87AF, 0x87B1, 0xC634)


JUMBF = b"JP\0\1\0\0\0\1\0\0\0\x40jumb"
IN_UTF_16 = "GPSLatitude 47".encode("utf-16-be")
LIST_OF_DIRECTORIES = (
    b"Exif\0\0MM\0*" + struct.pack(">IHHHIII", 8, 1, 0x014A, 4, 2, 26, 0) + struct.pack(">IIHI", 34, 40, 0, 0)
    + struct.pack(">HHHIII", 1, 0x8825, 4, 1, 58, 0) + struct.pack(">HHHI4sI", 1, 1, 2, 2, b"N", 0)
)  # fmt: skip


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(jpeg_with(0xFE, IN_UTF_16), id="UTF-16 in a comment"),
        pytest.param(jpeg_with(0xEC, b"Ducky\0\2\0\x20\0\0\0\x0e" + IN_UTF_16), id="UTF-16 of Ducky"),
        pytest.param(
            jpeg_with(0xED, b"Photoshop 3.0\x008BIM\4\x1a\0\0\0\0\0\x1c" + IN_UTF_16), id="of Photoshop"
        ),
        pytest.param(jpeg_with(0xE1, XMP + b'<City xmlns="p">Bern</City>'), id="default namespace"),
        pytest.param(jpeg_with(0xE1, XMP + b"<rdf:li>Location|Bern</rdf:li>"), id="keywords"),
        pytest.param(jpeg_with(0xEB, JUMBF + b"\x6ephotoshop:City\x64Bern"), id="CBOR"),
        pytest.param(jpeg_with(0xEB, JUMBF + b"\0\0\0\x20brob"), id="compressed JUMBF"),
        pytest.param(
            before_the_scan(segment(0xEB, JUMBF + b"GPSLa") + segment(0xEB, JUMBF + b"titude")), id="in two"
        ),
        pytest.param(encoded(icc_profile=SRGB + b"GPSLatitude 47.3"), id="profile"),
        pytest.param(jpeg_with(0xE1, exif(0x010E, "47 deg 22' 12.00\" N")), id="degrees in words"),
        pytest.param(jpeg_with(0xE1, exif(0x010E, "47.374, 8.541")), id="three decimals"),
        pytest.param(jpeg_with(0xE1, exif(0x010E, "Canon\0City: Bern")), id="behind another text"),
        pytest.param(jpeg_with(0xE1, LIST_OF_DIRECTORIES), id="a list of directories"),
        *(pytest.param(encoded(format_=name) + b"GPSLatitude=47.1", id=f"behind a {name}")
          for name in ("JPEG", "PNG", "WEBP")),
        pytest.param(before_the_scan(segment(0xFE, b"no place " * 7_000) * 5), id="300 kB of comments"),
        pytest.param(png_with(chunk(b"tEXt", b"a\0" + b"no place " * 35_000)), id="300 kB of text"),
        pytest.param(webp_with(4, b"XMP ", b"no place " * 35_000), id="300 kB of XMP"),
    ],
)  # fmt: skip
def test_what_may_name_a_place_or_is_too_long_to_be_judged_is_not_stored(data: bytes) -> None:
    for stored in judged(data, resize_mode="no"):
        assert isinstance(stored, StoredImage)
        assert len(stored.data) < 60_000
        assert not any(
            word in stored.data for word in (b"GPS", b"G\0P\0S", b"City", b"Location", b"brob", b"47")
        )


def test_a_jpeg_too_short_for_its_pixels_is_refused_with_hashes_and_without() -> None:
    for data in (encoded(), encoded(progressive=True)):
        frame = data.index(b"\xff\xc2" if b"\xff\xc2" in data else b"\xff\xc0")
        enlarged = data[: frame + 5] + struct.pack(">HH", 1_500, 1_500) + data[frame + 9 :]
        assert judged(enlarged, resize_mode="no") == [S.DECODE_FAILED] * 2


def test_a_profile_of_colours_is_applied_to_a_grey_image() -> None:
    linear = profile_of_codes(1, 8)
    assert linear is not None
    for format_ in ("JPEG", "PNG"):
        data = encoded(Image.new("L", (64, 64), 76), format_, icc_profile=linear)
        assert np.abs(np.subtract(flat(data), 148)).max() <= 1


def test_colours_that_an_avif_declares_in_numbers_are_converted() -> None:
    red = Image.new("RGB", (64, 64), (200, 40, 90))
    usual = encoded(red, "AVIF", quality=100, subsampling="4:4:4")
    data = usual.replace(b"colrnclx\0\1", b"colrnclx\0\x0c")
    assert data != usual
    found, _ = judged(data, accept_avif=True, encode_format="png")
    assert isinstance(found, StoredImage)
    assert np.abs(pixels(found)[32, 32] - (218, 0, 89)).max() <= 4


@pytest.mark.parametrize(("format_", "status"), [("webp", S.SIDE_TOO_LONG), ("png", None)])
def test_a_side_that_the_stored_format_does_not_have_is_named(format_: str, status: S | None) -> None:
    data = encoded(Image.new("RGBA", (17_000, 10)), "PNG")
    found = judged(data, resize_mode="no", encode_format=format_)
    assert [one if isinstance(one, S) else None for one in found] == [status] * 2


def test_no_place_is_stored_in_whichever_field_it_is() -> None:
    small = encoded(Image.new("RGB", (8, 8)), exif=exif(ExifTags.Base.Artist, "x"))
    thumbnail = b"8BIM\x04\x0c\0\0" + struct.pack(">I", 28 + len(small)) + bytes(28) + small
    files = [jpeg_with(0xFE, text.encode(charset)) for text in COMMENTS for charset in ("utf-8", "latin-1")]
    files += [jpeg_with(0xE1, XMP + text.encode()) for text in PROPERTIES]
    files += [jpeg_with(0xE0, b"JFXX\0\x10" + small), jpeg_with(0xFE, small)]
    files.append(jpeg_with(0xED, b"Photoshop 3.0\0" + thumbnail))
    files.append(jpeg_with(0xE1, exif(ExifTags.Base.ImageDescription, "\x1c\x02\x5a\0\6Berlin")))
    for tag in GEOGRAPHIC:
        tiff = struct.pack("<4sIHHHIII", b"II*\0", 8, 1, tag, 12, 1, 8, 0) + bytes(8)
        files += [jpeg_with(0xE1, b"Exif\0\0" + tiff), webp_with(8, b"EXIF", tiff)]
    for name in map(str.encode, NAMES):
        files += [
            png_with(chunk(b"tEXt", name + b"\0Berlin")),
            png_with(chunk(b"iTXt", name + b"\0\0\0\0\0x")),
        ]
        files.append(png_with(chunk(b"iTXt", b"x\0\0\0de\0" + name + b"\0Berlin")))
    kept = [data[:120] for data in files for found in judged(data, resize_mode="no")
            if not isinstance(found, StoredImage) or found.data == data]  # fmt: skip
    assert kept == []


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\0\0\0\x18ftypavif\0\0\0\0mif1miaf", "AVIF"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1MA1Bavif", "AVIF"),
        (b"\0\0\0\x18ftypmsf1\0\0\0\0msf1hevc", "HEIC"),
        (b"\0\0\0\x14ftypmif1\0\0\0\0mif1avif", "HEIF"),  # beyond its list
        (b"\0\0\0\x18ftypmp42\0\0\0\0avifmif1", ""),
        (b"\0\0\0\x18ftyp", ""),
        (b"\xff\x0a\xfa\x7f\x01\x90\x08\x00", "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"GIF89a", "GIF"),
        (b"\0\0\0\x14ftypjph \0\0\0\0jph ", "JPEG 2000"),
        (b"\0\0\0\0ftypmif1\0\0\0\0avif", "AVIF"),
        (b"II\xbc\x01", "JPEG XR"),
        (b"\x8aMNG\r\n\x1a\n", "MNG"),
        (b"v/1\x01\2\0\0\0", "EXR"),
        (b"P6\n12 12\n255\n", "PNM"),
        (b"\xef\xbb\xbf<svg xmlns", "SVG"),
        (b"\n <SVG ", "SVG"),
        (b"<!DOCTYPE svg PU", "SVG"),
        (b'<?xml version="1.0"?>\n<!-- a > b -->\n<!DOCTYPE svg>', "SVG"),
        (b'\xef\xbb\xbf<?xml version="1.0"?><!-- a --><svg:svg>', "SVG"),
        ('\ufeff<?xml version="1.0"?><svg>'.encode("utf-16-le"), "SVG"),
        (b"\n" * 40 + b"<svg>", "SVG"),
        (b'<?xml version="1.0"?><rss><svg>', ""),
        (b"<!-- <svg> --><html>", ""),
        (b"<!-- <svg>", ""),
        (b"IIU\0\x18\0\0\0", "RW2"),
        (b"\0\0\2\0\1\0\x20\x20\0\0\4\0\4\0\0\0", "CUR"),
        (encoded(SCENE, "TGA")[:16], "TGA"),
        (encoded(SCENE, "TGA", compression="tga_rle")[:256], "TGA"),
        (encoded(SCENE.quantize(200), "TGA")[:256], "TGA"),
        (encoded(SCENE.convert("1"), "TGA")[:256], "TGA"),
        (bytes(256), ""),
        (b"P4\n8 8\n", "PNM"),
        (b"icns\0\0", "ICNS"),
        (b"<!DOCTYPE html>", ""),
        (b"BPG \0", ""),
    ],
)
def test_other_formats_are_named(head: bytes, name: str) -> None:
    assert other_format(head) == name


def test_avif_is_refused_unless_a_setting_accepts_it() -> None:
    data = encoded(format_="AVIF", quality=90, exif=TURNED)
    assert judged(data) == [S.FORMAT_REFUSED] * 2
    for stored in judged(data, accept_avif=True, encode_format="png"):
        assert isinstance(stored, StoredImage)
        assert (stored.format, stored.width, stored.height) == ("png", 120, 160)
        assert np.abs(pixels(stored) - np.rot90(SHOWN, -1)).mean() < 4
    general = data[:8] + b"mif1" + data[12:]
    assert isinstance(judged(general, accept_avif=True)[0], StoredImage)
    assert judged(data[:-100], accept_avif=True) == [S.DECODE_FAILED] * 2


def test_an_animated_avif_is_refused() -> None:
    data = encoded(format_="AVIF", save_all=True, append_images=[SCENE.rotate(90)])
    assert judged(data, accept_avif=True) == [S.ANIMATED] * 2


def test_the_beginning_of_an_avif_waits_for_the_list_of_brands() -> None:
    rules = ImageRules.from_settings(DownloadSettings(accept_avif=True))
    head = b"\0\0\0\x1cftypmif1\0\0\0\0mif1MA1Bavif"
    assert refused_by_beginning(head[:16], rules) is True
    assert refused_by_beginning(head, rules) is True
    assert refused_by_beginning(head.replace(b"avif", b"heic"), rules) is S.FORMAT_REFUSED


def test_an_image_in_text_chunks_of_pillow_is_plain() -> None:
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Software", "a painting program")
    assert is_plain(encoded(format_="PNG", pnginfo=notes))
