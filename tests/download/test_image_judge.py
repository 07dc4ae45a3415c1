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
from PIL import Image, ImageCms, PngImagePlugin

from laion_etl.core.funnel import DownloadStatus as S
from laion_etl.download.image_header import plain_size, sniff
from laion_etl.download.images import ImageSettings, StoredImage, decode, undecoded
from laion_etl.minicrawl.scenes import draw, random_scene
from laion_etl.settings import DownloadSettings

XMP = b"http://ns.adobe.com/xap/1.0/\0"
RNG = random.Random(1)
SCENE = draw(random_scene(RNG), 160, 120, RNG)


def encoded(image: Image.Image = SCENE, format_: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def judged(data: bytes, **changes: Any) -> list[StoredImage | S]:
    """The outcome for an image with hashes and without: decoded, and from its file alone if that suffices."""
    found: list[StoredImage | S] = []
    for hashes in (True, False):
        settings = ImageSettings.from_settings(
            DownloadSettings(min_bytes=10, perceptual_hashes=hashes, **changes)
        )
        found.append(undecoded(data, settings) or decode(data, settings))
    return found


def pixels(stored: StoredImage) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(stored.data)).convert("RGB")).astype(int)


def flat(data: bytes) -> tuple[int, ...]:
    """The colour in the middle of what is stored, as PNG."""
    image, _ = judged(data, encode_format="png")
    assert isinstance(image, StoredImage)
    found = pixels(image)
    return tuple(found[found.shape[0] // 2, found.shape[1] // 2].tolist())


def chunk(kind: bytes, body: bytes, *, broken: bool = False) -> bytes:
    check = zlib.crc32(kind + body) ^ broken
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)


def png_with(extra: bytes, *, behind: bool = False) -> bytes:
    """A PNG with a chunk in front of its pixels, or behind them."""
    data = encoded(format_="PNG")
    place = data.index(b"IEND") - 4 if behind else 33
    return data[:place] + extra + data[place:]


def jpeg_with(marker: int, body: bytes) -> bytes:
    data = encoded()
    return data[:2] + segment(marker, body) + data[2:]


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def before_the_scan(extra: bytes) -> bytes:
    data = encoded()
    place = data.index(b"\xff\xda")
    return data[:place] + extra + data[place:]


def webp_with(flag: int, kind: bytes, body: bytes) -> bytes:
    """A lossy WebP in the extended format with one more chunk."""
    frame = encoded(format_="WEBP")[12:]
    size = b"".join((side - 1).to_bytes(3, "little") for side in SCENE.size)
    extended = b"VP8X" + struct.pack("<IB3x", 10, flag) + size
    extra = kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) & 1)
    content = b"WEBP" + extended + frame + extra
    return b"RIFF" + struct.pack("<I", len(content)) + content


def exif(tag: int, value: object) -> bytes:
    made = Image.Exif()
    made[tag] = value
    return made.tobytes()


GPS = exif(0x8825, {1: "N", 2: (47.0, 22.0, 0.0)})
TURNED = exif(0x0112, 6)
XMP_GPS = b'<x:xmpmeta><rdf:Description exif:GPSLatitude="47,22N"/></x:xmpmeta>'
XMP_CITY = b"<x:xmpmeta><photoshop:City>Bern</photoshop:City></x:xmpmeta>"
XMP_DRONE = b'<x:xmpmeta><rdf:Description drone-dji:GpsLatitude="+47.1"/></x:xmpmeta>'
XMP_W3C = b"<x:xmpmeta><geo:lat>47.1</geo:lat></x:xmpmeta>"
XMP_LONGITUDE = b"<x:xmpmeta><Camera:Longitude>8.5</Camera:Longitude></x:xmpmeta>"
XMP_PLAIN = b'<x:xmpmeta><rdf:Description xmp:CreatorTool="a" xmpMM:DocumentID="b"/></x:xmpmeta>'
IPTC_CITY = b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\x09\x1c\x02\x5a\0\x04Bern\0"


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
        pytest.param(webp_with(0x08, b"EXIF", GPS[6:]), id="Exif of a WebP"),
        pytest.param(webp_with(0x04, b"XMP ", XMP_GPS), id="XMP of a WebP"),
    ],
)
def test_a_location_is_never_stored_however_it_is_written(data: bytes) -> None:
    for stored in judged(data):
        assert isinstance(stored, StoredImage)
        assert stored.data != data
        for name in (b"Exif", b"GPS", b"Bern", b"xmp", b"eXIf", b"Raw profile"):
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
    ],
)
def test_what_says_nothing_of_a_place_is_stored_as_it_came(data: bytes) -> None:
    for stored in judged(data):
        assert isinstance(stored, StoredImage)
        assert stored.data == data


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


def test_a_damaged_pixel_chunk_is_still_refused() -> None:
    data = bytearray(encoded(format_="PNG"))
    data[data.index(b"IDAT") + 40] ^= 1
    assert judged(bytes(data)) == [S.DECODE_FAILED] * 2


# ICC profiles in which red and green are exchanged, and one of grey with gamma 1.
def exchanged() -> bytes:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile.replace(b"rXYZ", b"?XYZ").replace(b"gXYZ", b"rXYZ").replace(b"?XYZ", b"gXYZ")


def linear_grey() -> bytes:
    white = b"XYZ \0\0\0\0" + struct.pack(">iii", 0xF6D6, 0x10000, 0xD32D)
    curve = b"curv\0\0\0\0" + struct.pack(">IHH", 1, 0x100, 0)
    table = struct.pack(">I4sII4sII", 2, b"wtpt", 156, len(white), b"kTRC", 156 + len(white), len(curve))
    content = table + white + curve
    head = struct.pack(">I4xI4s4s4s", 128 + len(content), 0x02100000, b"mntr", b"GRAY", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">iii", 0xF6D6, 0x10000, 0xD32D)
    return head.ljust(128, b"\0") + content


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


def png_of(side: int, bits: int, kind: int, rows: bytes, key: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", side, side, bits, kind, 0, 0, 0)
    chunks = chunk(b"IHDR", head) + chunk(b"tRNS", key) + chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunks + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "colour"),
    [
        (keyed(16, 0, b"\x04\xd2", b"\x04\xd2"), (255, 255, 255)),
        (keyed(16, 0, b"\x04\xd3", b"\x04\xd2"), (4, 4, 4)),
        (keyed(8, 0, b"\x12", b"\0\x12"), (255, 255, 255)),
        (keyed(8, 0, b"\x13", b"\0\x12"), (0x13, 0x13, 0x13)),
        (keyed(16, 2, b"\x10\1\x20\2\x30\3", b"\x10\1\x20\2\x30\3"), (255, 255, 255)),
        (keyed(16, 2, b"\x11\1\x20\2\x30\3", b"\x10\1\x20\2\x30\3"), (0x11, 0x20, 0x30)),
        (keyed(8, 2, b"\x10\x20\x30", b"\0\x10\0\x20\0\x30"), (255, 255, 255)),
    ],
)
def test_pixels_of_the_transparent_colour_become_white(data: bytes, colour: tuple[int, ...]) -> None:
    assert flat(data) == colour


def test_a_jpeg_of_hundreds_of_scans_is_refused_before_it_is_decoded() -> None:
    data = encoded(progressive=True)
    start = data.index(b"\xff\xda")
    scan = data[start : data.index(b"\xff", start + 14)]
    assert [type(one) for one in judged(data)] == [StoredImage] * 2
    assert judged(data[:-2] + scan * 200 + data[-2:]) == [S.TOO_MANY_SCANS] * 2


def test_a_video_behind_a_jpeg_does_not_count_as_scans() -> None:
    stored, _ = judged(encoded() + b"ftypmp42 \xff\xda\0\x08video" * 200)
    assert isinstance(stored, StoredImage)
    assert b"video" not in stored.data


def test_a_transparent_colour_of_a_grey_image_takes_a_few_bytes_a_pixel() -> None:
    side = 500
    rows = b"".join(b"\0" + b"\x04\xd2" * side for _ in range(side))
    data = png_of(side, 16, 0, rows, b"\x04\xd2")
    settings = ImageSettings.from_settings(DownloadSettings(min_bytes=10, perceptual_hashes=False))
    tracemalloc.start()
    try:
        stored = decode(data, settings)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(stored, StoredImage)
    assert peak < 6 * side * side


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


def test_an_image_in_text_chunks_of_pillow_is_plain() -> None:
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Software", "a painting program")
    assert plain_size(encoded(format_="PNG", pnginfo=notes)) == SCENE.size
