"""Whether the metadata of an image file allow storing it unchanged: no location, no rotation, sRGB.

Where a photograph was taken is recorded in Exif (a GPS directory, or a maker's notes), in XMP
(exif:GPSLatitude, photoshop:City ...), in IPTC (city, sublocation ...) and in free text. Such a file is
stored as a new one, without metadata; so is a file whose metadata cannot be judged, or are longer than
cameras and editors write, and one whose colours are not those of sRGB. In doubt, the image costs an encoding
but is not lost.
"""

import re
import struct
from functools import lru_cache

from laion_etl.download import webp_chunks
from laion_etl.download.declared_colours import profile_of_png
from laion_etl.download.icc_profile import is_srgb
from laion_etl.download.jpeg_segments import COMMENT, END, Segment, is_application, walked
from laion_etl.download.jpeg_structure import Structure
from laion_etl.download.place_names import LOCATION, PLACE, names_a_place
from laion_etl.download.png_chunks import CRITICAL, Chunk, chunks, in_place, profile_of

TRAILING_BYTES = 64  # what editors and servers leave after the end of an image

_MAX_PROFILE_BYTES = 1 << 20  # Pillow's own limit, which readers of the stored file have
_MAX_JUDGED_BYTES = 1 << 17  # of metadata in a file; a megabyte takes half a second to be searched
_MAX_DIRECTORIES = 16
_MAX_IFD_ENTRIES = 1_000
_ORIENTATION, _GPS, _MAKER_NOTE = 0x0112, 0x8825, 0x927C
_DIRECTORIES = frozenset({0x8769, 0xA005, 0x014A})  # Exif, interoperability, sub-images
_EMBEDDED = frozenset({700, 33723, 34377})  # XMP, IPTC and Photoshop's resources, which may name a location
# Where a map lies (GeoTIFF), and what a converter keeps of a maker's notes (DNG).
_GEOGRAPHIC = frozenset({0x830E, 0x8480, 0x8482, 0x85D8, 0x87AF, 0x87B0, 0x87B1, 0xA480, 0xC634})
_APP1, _APP2, _APP11, _APP13 = 0xE1, 0xE2, 0xEB, 0xED
_CUT = frozenset({_APP11, _APP13})  # C2PA and IPTC may be cut in two, and a word with them
_COMPRESSED_BOX = b"brob"
_EXIF = b"Exif\0\0"
_JPEG = b"\xff\xd8\xff"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_PHOTOSHOP, _ICC = b"Photoshop 3.0\0", b"ICC_PROFILE\0"
# What segments of JPEG that may be judged begin with; JP is JUMBF, of C2PA.
_HARMLESS = {
    0xE0: (b"JFIF\0", b"JFXX\0"),
    0xEB: (b"JP",),
    0xEC: (b"Ducky",),
    0xED: (_PHOTOSHOP,),
    0xEE: (b"Adobe",),
    COMMENT: (b"",),
}

_LEAST_BYTES = {0xE0: 14, 0xEE: 12}  # Pillow does not open a file with fewer
_CUT_RESOURCE = re.compile(rb"8BIM..\Z", re.DOTALL)  # nor one that ends like this

_PLACE_KEYWORD = re.compile(
    rb"\b(?i:"
    + PLACE
    + rb"|geo[a-z]{0,20}|lat|lon|long|place|position|region|town|where|coverage|venue|address)\b"
)
_PLACE_IN_CBOR = re.compile(rb"[:\x60-\x77](?i:" + PLACE + rb")[\x60-\xbf]")  # between marks of length
# Photoshop's resources that hold Exif.
_EMBEDDED_EXIF = re.compile(rb"8BIM\x04[\x22\x23]")
# Data sets of IPTC's record 2: content location, city, sublocation, state, country.
_IPTC_LOCATION = re.compile(rb"\x1c\x02[\x1a\x1b\x5a\x5c\x5f\x64\x65]")

_TEXTS = frozenset({b"tEXt", b"iTXt"})
# Chunks of PNG that say nothing of a place, with the lengths that readers want of them.
_PNG_HARMLESS = {
    b"gAMA": (4,),
    b"pHYs": (9,),
    b"sRGB": (1,),
    b"cHRM": (32,),
    b"tIME": (7,),
    b"bKGD": (1, 2, 6),
    b"sBIT": (1, 2, 3, 4),
}


def plain_jpeg(data: bytes) -> bool:
    """Whether a JPEG is RGB or grey in 8 bits, complete, with harmless metadata, and ends with its image."""
    found = walked(data)
    if not found or found[-1][0] != END:
        return False
    structure, end = Structure(), found[-1][2]
    try:
        profile = _profile_of_plain(data, found[:-1], structure)
    except (IndexError, struct.error):
        return False
    if profile is None or not structure.has_every_coefficient or structure.least_bytes > end:
        return False
    return not structure.is_in_inks and _plain_rest(data, end) and (not profile or _plain_profile(profile))


def _profile_of_plain(data: bytes, found: list[Segment], structure: Structure) -> bytes | None:
    """Adds segments to a structure. Returns the profile of colours among them; None if they are not plain.

    Raises IndexError or struct.error for one that is too short.
    """
    profile, judged = b"", 0
    cut: set[int] = set()
    for marker, start, end in found:
        body = data[start:end]
        if len(body) < end - start:
            return None
        if marker == _APP2 and body.startswith(_ICC) and body[12:14] == b"\1\1" and not profile:
            profile = body[14:]
        elif is_application(marker):
            judged += len(body)
            if judged > _MAX_JUDGED_BYTES or marker in cut or not _plain_segment(marker, body):
                return None
            cut |= _CUT & {marker}
        elif not structure.add(marker, data, start, end):
            return None
    return profile


def _plain_segment(marker: int, data: bytes) -> bool:
    """Whether an application segment of a JPEG (APP0 to APP15) or a comment may be stored."""
    if marker == _APP1:
        if data.startswith(_EXIF):
            return plain_exif(data[len(_EXIF) :])
        return data.startswith(_XMP) and plain_xmp(data[len(_XMP) :])
    if not data.startswith(_HARMLESS.get(marker, ())) or len(data) < _LEAST_BYTES.get(marker, 0):
        return False
    if _EXIF in data or _JPEG in data:  # of a thumbnail, which may have its own location
        return False
    if marker == _APP13 and any(one.search(data) for one in (_IPTC_LOCATION, _EMBEDDED_EXIF, _CUT_RESOURCE)):
        return False
    if marker == _APP11 and (_COMPRESSED_BOX in data or _PLACE_IN_CBOR.search(data)):
        return False
    return not names_a_place(data)


def _plain_rest(data: bytes, end: int) -> bool:
    """Whether what follows the image in its file is no more than editors leave there, and no location."""
    return len(data) - end <= TRAILING_BYTES and not names_a_place(data[end:])


def _plain_profile(profile: bytes) -> bool:
    return is_srgb(profile) and not _named_in_profile(profile)


@lru_cache(maxsize=16)
def _named_in_profile(profile: bytes) -> bool:
    return len(profile) > _MAX_JUDGED_BYTES or names_a_place(profile)


def plain_exif(tiff: bytes) -> bool:
    """Whether no directory has a location, a maker's notes or metadata of another kind, nor the first one a
    rotation, nor any text a location."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None or _EXIF in tiff or names_a_place(tiff):
        return False
    if _IPTC_LOCATION.search(tiff):  # whatever the tag that it stands in
        return False
    try:
        (first,) = struct.unpack_from(f"{order}I", tiff, 4)
        waiting, seen = [first], 0
        while waiting:
            found = _directories_below(tiff, waiting.pop(0), order, is_first=seen == 0)
            seen += 1
            if found is None or seen > _MAX_DIRECTORIES:
                return False
            waiting += found
    except struct.error:
        return False
    return True


def _directories_below(tiff: bytes, start: int, order: str, *, is_first: bool) -> list[int] | None:
    """Return where a directory of Exif has others, in it or behind it; None if it is not plain."""
    (count,) = struct.unpack_from(f"{order}H", tiff, start)
    if count > _MAX_IFD_ENTRIES:
        return None
    found: list[int] = []
    for number in range(count):
        tag, kind, many, value = struct.unpack_from(f"{order}HHIH", tiff, start + 2 + 12 * number)
        if tag in (_GPS, _MAKER_NOTE) or tag in _EMBEDDED or tag in _GEOGRAPHIC:
            return None
        if tag == _ORIENTATION and is_first and (kind != 3 or value != 1):
            return None
        if tag in _DIRECTORIES:
            if many != 1:  # then a list of their places
                return None
            found += struct.unpack_from(f"{order}I", tiff, start + 10 + 12 * number)
    behind = tiff[start + 2 + 12 * count :][:4]  # some writers leave it out
    following = struct.unpack(f"{order}I", behind)[0] if len(behind) == 4 else 0
    return [*found, following] if following else found


def plain_xmp(packet: bytes) -> bool:
    """Whether XMP names no location. A packet in UTF-16 or UTF-32 cannot be judged."""
    return b"\0" not in packet and LOCATION.search(packet) is None


def plain_png(data: bytes) -> bool:
    """Whether a PNG is RGB or grey in 8 bits with intact chunks, all of them harmless.

    Readers such as Pillow refuse a file with a wrong checksum even in a comment, or with a comment of more
    than a megabyte.
    """
    if data[24:26] not in (b"\x08\x00", b"\x08\x02"):
        return False
    end, judged = 8, 0
    found: list[Chunk] = []
    for chunk in chunks(data):
        end += 12 + len(chunk.body)
        judged += len(chunk.body) if chunk.kind in _TEXTS else 0
        if judged > _MAX_JUDGED_BYTES or not chunk.is_intact or not _plain_chunk(chunk.kind, chunk.body):
            return False
        found.append(chunk)
    try:
        out_of_place = len(found) - len(in_place(found, data[25:26]))
    except ValueError:
        return False
    declared = profile_of_png({chunk.kind: chunk.body for chunk in found})
    is_usual = declared is None or is_srgb(declared)
    ends = bool(found) and found[-1].kind == b"IEND" and _plain_rest(data, end)
    return ends and not out_of_place and is_usual


def plain_webp(data: bytes) -> bool:
    """Whether a WebP is one opaque image in sRGB without a location or rotation, and ends with it."""
    place, frames = webp_chunks.HEAD_BYTES, 0
    for kind, body, end in webp_chunks.chunks(data):
        if kind in (b"VP8 ", b"VP8L"):
            frames += 1
            if kind == b"VP8L" and body[4:5] and body[4] & 0x10:
                return False
        elif not _plain_webp_chunk(kind, body):
            return False
        place = end
    declared = int.from_bytes(data[4:8], "little") + 8
    return frames == 1 and declared == place <= len(data) and _plain_rest(data, place)


def _plain_webp_chunk(kind: bytes, body: bytes) -> bool:
    if kind == b"VP8X":
        return not body[:1] or not body[0] & 0x12  # alpha, animation
    if len(body) > _MAX_JUDGED_BYTES:
        return False
    if kind == b"EXIF":
        return plain_exif(body.removeprefix(_EXIF))
    if kind == b"XMP ":
        return plain_xmp(body)
    return kind == b"ICCP" and _plain_profile(body)


def _plain_chunk(kind: bytes, body: bytes) -> bool:
    if kind in CRITICAL:
        return True
    if kind in _PNG_HARMLESS:
        return len(body) in _PNG_HARMLESS[kind]
    if kind == b"iCCP":
        profile = profile_of(body, _MAX_PROFILE_BYTES)
        return profile is not None and _plain_profile(profile)
    if kind == b"tEXt":
        return _plain_keyword(body) and plain_xmp(body.replace(b"\0", b" ", 1))
    if kind == b"iTXt":  # keyword, whether compressed, how, two names, text
        rest = body.partition(b"\0")[2]
        *names, text = rest[2:].split(b"\0", 2)
        if not all(map(_plain_keyword, (body, *names))) or rest[:1] != b"\0" or b"\0" in text:
            return False
        return plain_xmp(body.replace(b"\0", b":"))
    return False


def _plain_keyword(text: bytes) -> bool:
    """Whether the name of a text in a PNG is neither that of a place nor that of metadata of another kind."""
    keyword = text.partition(b"\0")[0]
    return not keyword.lower().startswith(b"raw profile type") and not _PLACE_KEYWORD.search(keyword)
