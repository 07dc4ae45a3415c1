"""Which ICC profiles browsers apply to an image, and how much of them (skcms, the reader of Chromium).

A colour library takes more: profiles whose white is another one than D50, tags that are cut off, formulas
without a meaning. Its result would then be other colours than those that everybody sees.
"""

import struct

from laion_etl.download.declared_colours import profile_of_codes

_HEAD_BYTES, _TAG_BYTES = 132, 12
_MAX_TAGS = 1_000
_ONE = 1 << 16  # of a number with 16 bits behind the point
_MAX_VERSION = 4
_WHITE, _WHITE_TOLERANCE = (0.9642, 1.0, 0.8249), 0.01
_SPACES_OF_CONNECTION = frozenset({b"XYZ ", b"Lab "})
_CLASSES = frozenset({b"scnr", b"mntr", b"prtr", b"spac"})
_CLASS = slice(12, 16)
_TABLES, _KINDS_OF_TABLE = (b"A2B0", b"A2B1"), frozenset({b"mft1", b"mft2", b"mAB "})
_COLUMNS, _CURVES, _GREY_CURVE = (b"rXYZ", b"gXYZ", b"bXYZ"), (b"rTRC", b"gTRC", b"bTRC"), b"kTRC"
_PARAMETERS = (1, 3, 4, 5, 7)  # of each kind of formula
_DEFAULTS = (1.0, 1.0, 0.0, 0.0, 0.0)  # of those that a kind lacks: power, a, b, c, d


def usable(profile: bytes) -> bytes | None:
    """Return the profile that browsers apply; None if they ignore it, and then the image is in sRGB.

    Its class does not matter to them, and numbers of ITU-T H.273 in it (`cicp`) replace the rest.
    """
    try:
        tags = _tags(profile)
        if not (_has_sound_head(profile) and _has_colours(profile, tags)):
            return None
    except (struct.error, ArithmeticError, ValueError, TypeError):  # TypeError: a complex power
        return None
    code = tags.get(b"cicp", b"")
    if len(code) == 12 and (made := profile_of_codes(code[8], code[9])) is not None:
        return made
    if profile[_CLASS] in _CLASSES:
        return profile
    return profile[: _CLASS.start] + b"mntr" + profile[_CLASS.stop :]


def _tags(profile: bytes) -> dict[bytes, bytes]:
    """Return the tags by name. Raises ValueError if one of them is not within the profile."""
    (size,) = struct.unpack_from(">I", profile)
    (count,) = struct.unpack_from(">I", profile, _HEAD_BYTES - 4)
    end = _HEAD_BYTES + _TAG_BYTES * count
    if not 0 < count <= _MAX_TAGS or not end <= size <= len(profile):
        raise ValueError("the table of tags is cut off")
    found: dict[bytes, bytes] = {}
    for name, start, length in struct.iter_unpack(">4sII", profile[_HEAD_BYTES:end]):
        if length < 4 or start + length > size:
            raise ValueError("a tag is cut off")
        found.setdefault(name, profile[start : start + length])
    return found


def _has_sound_head(profile: bytes) -> bool:
    white = (value / _ONE for value in struct.unpack_from(">3i", profile, 68))
    return (
        profile[36:40] == b"acsp"
        and profile[8] <= _MAX_VERSION
        and profile[20:24] in _SPACES_OF_CONNECTION
        and all(abs(one - other) <= _WHITE_TOLERANCE for one, other in zip(white, _WHITE, strict=True))
    )


def _has_colours(profile: bytes, tags: dict[bytes, bytes]) -> bool:
    """Whether there is a table, or a matrix with its curves, and nothing of them is damaged."""
    tables = [tags[name] for name in _TABLES if name in tags]
    if any(table[:4] not in _KINDS_OF_TABLE for table in tables):
        return False
    if profile[16:20] == b"GRAY":
        curves, columns = [tags[_GREY_CURVE]] if _GREY_CURVE in tags else [], []
        is_whole = bool(curves)
    else:
        curves = [tags[name] for name in _CURVES if name in tags]
        columns = [tags[name] for name in _COLUMNS if name in tags]
        is_whole = len(curves) == len(_CURVES) and len(columns) == len(_COLUMNS)
    is_sound = all(map(_is_curve, curves)) and all(map(_is_column, columns))
    return is_sound and (is_whole or bool(tables))


def _is_column(tag: bytes) -> bool:
    return tag[:4] == b"XYZ " and len(tag) >= 20


def _is_curve(tag: bytes) -> bool:
    if tag[:4] == b"curv" and len(tag) >= 12:
        return len(tag) >= 12 + 2 * int.from_bytes(tag[8:12], "big")
    if tag[:4] != b"para":
        return False
    (kind,) = struct.unpack_from(">H", tag, 8)
    if kind >= len(_PARAMETERS):
        return False
    values = [value / _ONE for value in struct.unpack_from(f">{_PARAMETERS[kind]}i", tag, 12)]
    power, a, b, c, d = (*values, *_DEFAULTS[len(values) :])[: len(_DEFAULTS)]
    if kind in (1, 2):  # the third of them is an offset, and the straight part ends where the power begins
        c, d = 0.0, -b / a
    return bool(min(power, a, c, d, a * d + b) >= 0)
