"""The image files of the mini crawl: scenes in the many formats found on the web.

Drawing takes 10 to 30 ms an image, so files are drawn once and kept in the user's cache folder.
"""

import hashlib
import io
import random
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path

import PIL
from PIL import Image

from laion_etl.core.host_resources import can_be_written, usable_cores, user_cache
from laion_etl.minicrawl import lexicon, overlays, scenes
from laion_etl.minicrawl.scenes import Scene, draw, random_scene

BOMB_SIDE = 30_000


class Form(StrEnum):
    """How an image is stored."""

    JPEG = "jpeg"
    PNG = "png"
    WEBP = "webp"
    PROGRESSIVE_JPEG = "progressive_jpeg"
    ROTATED_JPEG = "rotated_jpeg"  # stored on its side, with the EXIF orientation that turns it back
    CMYK_JPEG = "cmyk_jpeg"
    GREY_JPEG = "grey_jpeg"
    ALPHA_PNG = "alpha_png"
    PALETTE_PNG = "palette_png"
    ANIMATED_GIF = "animated_gif"
    ANIMATED_WEBP = "animated_webp"
    BMP = "bmp"


EXTENSIONS = {
    Form.PNG: ".png",
    Form.ALPHA_PNG: ".png",
    Form.PALETTE_PNG: ".png",
    Form.WEBP: ".webp",
    Form.ANIMATED_WEBP: ".webp",
}
CONTENT_TYPES = {".png": "image/png", ".webp": "image/webp", ".jpg": "image/jpeg"}


@dataclass(frozen=True, slots=True)
class DrawnImage:
    """A scene at a size in pixels, drawn with its own seed, in a form."""

    scene: Scene
    width: int
    height: int
    seed: int
    form: Form = Form.JPEG
    watermarked: bool = False

    @property
    def extension(self) -> str:
        """The extension in its URL; a GIF or BMP is called .jpg, as on real pages."""
        return EXTENSIONS.get(self.form, ".jpg")


class ImageFolder:
    """Encoded images, drawn on demand; safe to use from several threads and processes.

    They are in the user's cache folder, for all mini crawls, or in `instead` where that is not writable.
    """

    def __init__(self, instead: Path) -> None:
        self._folder = user_cache() / "images"
        if not can_be_written(self._folder):
            self._folder = instead
            instead.mkdir(parents=True, exist_ok=True)

    def draw_all(self, images: Iterable[DrawnImage]) -> None:
        """Draws the missing images: twenty core seconds for a whole world."""
        missing = [image for image in images if not self._path(image).exists()]
        with ThreadPoolExecutor(usable_cores()) as pool:
            list(pool.map(self.read, missing))

    def read(self, image: DrawnImage) -> bytes:
        path = self._path(image)
        try:
            return path.read_bytes()
        except FileNotFoundError:
            data = encode(image)
        partial = path.with_suffix(f".{random.SystemRandom().getrandbits(64):x}.partial")
        partial.write_bytes(data)
        partial.replace(path)
        return data

    def _path(self, image: DrawnImage) -> Path:
        return self._folder / f"{_fingerprint(image)}{image.extension}"


@cache
def _drawing_code() -> bytes:
    """Digest of the code that determines the pixels: after a change, cached files must not be reused."""
    sources = [Path(module.__file__ or "").read_bytes() for module in (scenes, lexicon, overlays)]
    parts = [*sources, Path(__file__).read_bytes(), PIL.__version__.encode()]
    return hashlib.sha256(b"".join(parts)).digest()


def _fingerprint(image: DrawnImage) -> str:
    return hashlib.sha256(repr(image).encode() + _drawing_code()).hexdigest()[:32]


def encode(image: DrawnImage) -> bytes:
    """The file of an image; equal images give equal bytes."""
    rng = random.Random(image.seed)
    pixels = draw(image.scene, image.width, image.height, rng)
    if image.watermarked:
        pixels = overlays.watermarked(pixels, random.Random(image.seed))
    return _ENCODERS[image.form](pixels, rng)


def _save(image: Image.Image, file_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def _jpeg(image: Image.Image, rng: random.Random) -> bytes:
    return _save(image, "JPEG", quality=rng.randint(75, 92))


def _rotated(image: Image.Image, _: random.Random) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to view
    return _save(image.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=85, exif=exif)


def _alpha(image: Image.Image, _: random.Random) -> bytes:
    corners = Image.new("L", image.size, 255)
    corners.paste(0, (0, 0, image.width // 12, image.height // 12))
    image.putalpha(corners)
    return _save(image, "PNG")


def _animated(file_format: str) -> Callable[[Image.Image, random.Random], bytes]:
    def encode_frames(image: Image.Image, rng: random.Random) -> bytes:
        second = draw(random_scene(rng), image.width, image.height, rng)
        return _save(image, file_format, save_all=True, append_images=[second], duration=400, loop=0)

    return encode_frames


_ENCODERS: dict[Form, Callable[[Image.Image, random.Random], bytes]] = {
    Form.JPEG: _jpeg,
    Form.PNG: lambda image, _: _save(image, "PNG", compress_level=1),
    Form.WEBP: lambda image, rng: _save(image, "WEBP", quality=rng.randint(75, 90), method=0),
    Form.PROGRESSIVE_JPEG: lambda image, _: _save(image, "JPEG", quality=85, progressive=True),
    Form.ROTATED_JPEG: _rotated,
    Form.CMYK_JPEG: lambda image, _: _save(image.convert("CMYK"), "JPEG", quality=90),
    Form.GREY_JPEG: lambda image, _: _save(image.convert("L"), "JPEG", quality=85),
    Form.ALPHA_PNG: _alpha,
    Form.PALETTE_PNG: lambda image, _: _save(image.quantize(64), "PNG"),
    Form.ANIMATED_GIF: _animated("GIF"),
    Form.ANIMATED_WEBP: _animated("WEBP"),
    Form.BMP: lambda image, _: _save(image, "BMP"),
}


@cache
def pixel_bomb() -> bytes:
    """A correct PNG of 30,000 x 30,000 pixels, 1 bit each, in about 110 kB."""
    # A hundred rows packed once and repeated: packing all of them takes so long that links time out.
    rows, repeats = b"\0" * (1 + BOMB_SIDE // 8) * 100, BOMB_SIDE // 100
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    packed = packer.compress(rows) + packer.flush(zlib.Z_FULL_FLUSH)
    check = 1
    for _ in range(repeats):
        check = zlib.adler32(rows, check)
    data = b"\x78\xda" + packed * repeats + b"\x03\0" + check.to_bytes(4, "big")  # RFC 1950
    size = BOMB_SIDE.to_bytes(4, "big")
    header = size + size + bytes([1, 0, 0, 0, 0])  # 1 bit, grey
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")
        for kind, body in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    )
