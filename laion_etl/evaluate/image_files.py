"""The images of a folder or a tar, by what they are and not only by their names.

A format that cannot be decoded is an image that cannot be read, never a file that is passed over: the
figures of an evaluation, and what is kept out of a dataset, are of all images that there are.
"""

from pathlib import Path

from laion_etl.io.tarshard import MAX_MEMBER_BYTES
from laion_etl.score.pixels import FORMATS, format_of
from laion_etl.score.preparer import ImageFile

IMAGE_ENDINGS = {"jpeg": "jpg", **{ending: ending for ending in FORMATS}}
_OTHER_IMAGES = frozenset((
    "bmp", "cr2", "dib", "dng", "exr", "gif", "heic", "heif", "hdr", "ico", "j2k", "jfif",
    "jp2", "jpe", "jpf", "jpx", "jxl", "nef", "pbm", "pcx", "pgm", "pnm", "ppm", "psd",
    "qoi", "raw", "svg", "tga", "tif", "tiff",
))  # fmt: skip
_FIRST_BYTES = 16


def is_image(path: Path) -> bool:
    """Whether a file is an image, by its first bytes or the ending of its name."""
    if is_image_ending(path.suffix[1:]):
        return True
    with path.open("rb") as file:
        return format_of(file.read(_FIRST_BYTES)) is not None


def is_image_ending(ending: str) -> bool:
    """Whether an ending is one of images, also of those that cannot be decoded."""
    return ending.lower() in IMAGE_ENDINGS or ending.lower() in _OTHER_IMAGES


def as_image(ending: str, data: bytes) -> ImageFile:
    """Return an image with its format; what cannot be decoded is called a JPEG, and cannot be read either."""
    return format_of(data[:_FIRST_BYTES]) or IMAGE_ENDINGS.get(ending.lower(), "jpg"), data


def read_image(path: Path) -> ImageFile:
    """Read an image. What cannot be decoded, or is too large, becomes a JPEG that cannot be read either."""
    if path.stat().st_size > MAX_MEMBER_BYTES:
        return "jpg", b"too large"
    return as_image(path.suffix[1:], path.read_bytes())


def files_of(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the images of a folder and its subfolders, and its other files, each in the order of names."""
    images: list[Path] = []
    others: list[Path] = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            (images if is_image(path) else others).append(path)
    return images, others
