"""How an image has to be turned to be upright, by its Exif alone, and as browsers read it.

XMP's orientation is ignored, and so is a number that is not a single one of 16 bits. Pillow's `getexif` takes
both.
"""

import struct

from PIL import Image, JpegImagePlugin

UPRIGHT = 1
TURNS = {  # by Exif orientation: the operation that turns the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
TURNS_SIDES = frozenset({5, 6, 7, 8})  # width and height are swapped
_EXIF, _EXIF_BYTES = b"Exif\0", 6  # browsers do not look at the sixth
_ORIENTATION, _SHORT = 0x0112, 3
_MAX_ENTRIES = 1_000


def orientation_of(image: Image.Image) -> int:
    """Return the orientation of an image that was opened: of a JPEG that in its first Exif."""
    if not isinstance(image, JpegImagePlugin.JpegImageFile):
        return orientation(image.info.get("exif", b""))
    metadata = (body for kind, body in image.applist if kind == "APP1" and body.startswith(_EXIF))
    return orientation(next(metadata, b""))


def orientation(exif: bytes) -> int:
    """Return the orientation in the first directory; `UPRIGHT` if there is none, or it cannot be read."""
    tiff = exif[_EXIF_BYTES:] if exif.startswith(_EXIF) else exif
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return UPRIGHT
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for place in range(start + 2, start + 2 + 12 * min(count, _MAX_ENTRIES), 12):
            tag, kind, many, value = struct.unpack_from(f"{order}HHIH", tiff, place)
            if (tag, kind, many) == (_ORIENTATION, _SHORT, 1) and value in TURNS:
                return int(value)
    except struct.error:
        pass
    return UPRIGHT
