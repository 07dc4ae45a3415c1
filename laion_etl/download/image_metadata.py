"""Whether the metadata of an image file allow storing it unchanged: no location, no rotation.

Where a photograph was taken is recorded in Exif (a GPS directory), in XMP (exif:GPSLatitude, photoshop:City
...) and in IPTC (city, sublocation ...). Such a file is stored as a new one, without metadata; so is a file
whose metadata cannot be judged. In doubt, the image costs an encoding but is not lost.
"""

import re
import struct
import zlib
from collections.abc import Iterator

_MAX_IFD_ENTRIES = 1_000
_MAX_PROFILE_BYTES = 1 << 20  # Pillow's own limit, which readers of the stored file have
_MAX_CHUNKS = 100_000
_ORIENTATION, _GPS = 0x0112, 0x8825
_EMBEDDED = frozenset({700, 33723, 34377})  # XMP, IPTC and Photoshop's resources, which may name a location
_EXIF = b"Exif\0\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"

# Properties of EXIF, Photoshop, IPTC, W3C (geo:lat) and drone schemas in XMP, whatever their prefixes, and
# those of C2PA.
_XMP_LOCATION = re.compile(
    rb"(?i:gps|latitude|longitude)|[:\"](?:lat|long|lat_long)\b"
    rb"|[:\"](?:City|State|Country|CountryCode|CountryName|ProvinceState|Sublocation|WorldRegion|Location)"
    rb"(?:Created|Shown|Name|Id)?\b"
)
# Data sets of IPTC's record 2: content location, city, sublocation, state, country.
_IPTC_LOCATION = re.compile(rb"\x1c\x02[\x1a\x1b\x5a\x5c\x5f\x64\x65]")

_PNG_HARMLESS = frozenset({b"gAMA", b"pHYs", b"sRGB", b"cHRM", b"tIME", b"bKGD", b"sBIT"})
# What the decoder needs of a PNG: pixels, colours, orientation, and whether it is animated.
_PNG_CRITICAL = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
_PNG_USEFUL = frozenset({b"tRNS", b"iCCP", b"eXIf", b"acTL", b"fcTL"})


def plain_segment(marker: int, data: bytes) -> bool:
    """Whether an application segment of a JPEG (APP0 to APP15) may be stored."""
    if marker == 0xE1:
        if data.startswith(_EXIF):
            return plain_exif(data[len(_EXIF) :])
        return data.startswith(_XMP) and plain_xmp(data[len(_XMP) :])
    if marker == 0xE2 and data.startswith(b"MPF\0"):
        return False
    if marker == 0xED and _IPTC_LOCATION.search(data):
        return False
    return marker == 0xE2 or _XMP_LOCATION.search(data) is None  # profiles are numbers; APP11 is C2PA


def has_late_metadata(data: bytes, scan: int) -> bool:
    """Whether metadata follow the beginning of a JPEG's first scan, such as those of a second image."""
    return any(data.find(name, scan) >= 0 for name in (b"Exif\0\0II", b"Exif\0\0MM", _XMP))


def plain_exif(tiff: bytes) -> bool:
    """Whether the first directory has neither a rotation nor a location, nor metadata of another kind."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return False
    try:
        (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
        (entries,) = struct.unpack_from(f"{order}H", tiff, directory)
        if entries > _MAX_IFD_ENTRIES:
            return False
        for number in range(entries):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, directory + 2 + 12 * number)
            if tag == _GPS or tag in _EMBEDDED or (tag == _ORIENTATION and (kind != 3 or value != 1)):
                return False
    except struct.error:
        return False
    return True


def plain_xmp(packet: bytes) -> bool:
    """Whether XMP names no location. A packet in UTF-16 or UTF-32 cannot be judged."""
    return b"\0" not in packet and _XMP_LOCATION.search(packet) is None


def plain_png(data: bytes) -> bool:
    """Whether a PNG is RGB or grey in 8 bits with intact chunks, all of them harmless.

    Readers such as Pillow refuse a file with a wrong checksum even in a comment, or with a comment of more
    than a megabyte.
    """
    if data[24:26] not in (b"\x08\x00", b"\x08\x02"):
        return False
    kind = b""
    for kind, body, intact in _chunks(data):
        if not intact or not _plain_chunk(kind, body):
            return False
    return kind == b"IEND"


def without_extras(data: bytes) -> bytes:
    """Return a PNG without the chunks that its pixels do not need, nor those whose checksum is wrong.

    A comment that is damaged, or larger than Pillow allows, does not make the image unreadable.
    """
    kept = [data[:8]]
    for kind, body, intact in _chunks(data):
        if kind in _PNG_CRITICAL or (kind in _PNG_USEFUL and intact):
            check = zlib.crc32(kind + body) ^ (0 if intact else 1)  # a wrong sum of a pixel chunk stays wrong
            kept += (struct.pack(">I", len(body)), kind, body, struct.pack(">I", check))
    return b"".join(kept)


def plain_webp(data: bytes) -> bool:
    """Whether a WebP is one opaque image without a location or rotation."""
    place, frames = 12, 0
    while place + 8 <= len(data):
        kind, size = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        body = data[place + 8 : place + 8 + size]
        if kind in (b"VP8 ", b"VP8L"):
            frames += 1
            opaque = kind == b"VP8 " or not body[4:5] or not body[4] & 0x10
        else:
            opaque = _plain_webp_chunk(kind, body)
        if not opaque:
            return False
        place += 8 + size + (size & 1)
    return frames == 1


def _plain_webp_chunk(kind: bytes, body: bytes) -> bool:
    if kind == b"VP8X":
        return not body[:1] or not body[0] & 0x12  # alpha, animation
    if kind == b"EXIF":
        return plain_exif(body.removeprefix(_EXIF))
    if kind == b"XMP ":
        return plain_xmp(body)
    return kind == b"ICCP"


def _plain_chunk(kind: bytes, body: bytes) -> bool:
    if kind in _PNG_CRITICAL or kind in _PNG_HARMLESS:
        return True
    if kind == b"iCCP":
        profile = body[body.find(b"\0") + 2 :]
        reader = zlib.decompressobj()
        try:
            reader.decompress(profile, _MAX_PROFILE_BYTES)
        except zlib.error:
            return False
        return not reader.unconsumed_tail
    if kind == b"tEXt":
        return not body.startswith(b"Raw profile type") and plain_xmp(body.replace(b"\0", b"", 1))
    if kind == b"iTXt":  # keyword, whether compressed, how, two names, text
        keyword, _, rest = body.partition(b"\0")
        text = rest[2:].split(b"\0", 2)[-1]
        return not keyword.startswith(b"Raw profile type") and rest[:1] == b"\0" and plain_xmp(text)
    return False


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bool]]:
    """Yield kind and body of each chunk of a PNG up to its end, and whether its checksum is right."""
    place = 8
    for _ in range(_MAX_CHUNKS):
        length = int.from_bytes(data[place : place + 4], "big")
        kind, body = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        end = place + 8 + length
        if len(body) < length or len(data) < end + 4:
            return
        yield kind, body, zlib.crc32(kind + body) == int.from_bytes(data[end : end + 4], "big")
        if kind == b"IEND":
            return
        place = end + 4
