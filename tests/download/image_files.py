"""Image files made for tests: of any format, with any metadata, faults included."""

import io
import random
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from laion_etl.core.funnel import DownloadStatus as S
from laion_etl.download.images import ImageSettings, StoredImage, decode, undecoded
from laion_etl.minicrawl.scenes import draw, random_scene
from laion_etl.settings import DownloadSettings

XMP = b"http://ns.adobe.com/xap/1.0/\0"
RNG = random.Random(1)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
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


def before_the_scan(extra: bytes, **options: object) -> bytes:
    data = encoded(**options)  # type: ignore[arg-type]
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


# ICC profiles in which red and green are exchanged, and one of grey with gamma 1.
def exchanged() -> bytes:
    return SRGB.replace(b"rXYZ", b"?XYZ").replace(b"gXYZ", b"rXYZ").replace(b"?XYZ", b"gXYZ")


def linear_grey() -> bytes:
    white = b"XYZ \0\0\0\0" + struct.pack(">iii", 0xF6D6, 0x10000, 0xD32D)
    curve = b"curv\0\0\0\0" + struct.pack(">IHH", 1, 0x100, 0)
    table = struct.pack(">I4sII4sII", 2, b"wtpt", 156, len(white), b"kTRC", 156 + len(white), len(curve))
    content = table + white + curve
    head = struct.pack(">I4xI4s4s4s", 128 + len(content), 0x02100000, b"mntr", b"GRAY", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">iii", 0xF6D6, 0x10000, 0xD32D)
    return head.ljust(128, b"\0") + content


def png_of(side: int, bits: int, kind: int, rows: bytes, key: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", side, side, bits, kind, 0, 0, 0)
    chunks = chunk(b"IHDR", head) + chunk(b"tRNS", key) + chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunks + chunk(b"IEND", b"")
