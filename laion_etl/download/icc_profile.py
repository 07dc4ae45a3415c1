"""Whether a colour profile is that of sRGB, read without a colour library: it is a stranger's file.

An image with such a profile, or with none, may be stored unchanged: readers that ignore profiles, as training
code does, see its true colours. Any other is converted (`images.py`). The three primaries and the curve are
compared, or only the curve of a grey profile; the names of profiles are free text.
"""

import struct
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise

_HEAD_BYTES = 128
_MAX_TAGS = 100
_MAX_CACHED_BYTES = 1 << 14
_ONE = 1 << 16  # of a number with 16 bits behind the point
# Red, green and blue of sRGB in XYZ, adapted to D50 (ICC's "sRGB" profiles differ in the fourth digit).
_PRIMARIES = {
    b"rXYZ": (0.4361, 0.2225, 0.0139),
    b"gXYZ": (0.3851, 0.7169, 0.0971),
    b"bXYZ": (0.1431, 0.0606, 0.7141),
}
_COLOUR_CURVES, _GREY_CURVE = (b"rTRC", b"gTRC", b"bTRC"), (b"kTRC",)
_LOOKUP_TABLES = frozenset({b"A2B0", b"A2B1", b"D2B0"})  # they would be used in place of the curves
_TOLERANCE = 0.004
_CURVE_TOLERANCE = 1.5 / 255
_PLACES = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 0.999)
_PARAMETERS = {3: 5, 4: 7}  # of each kind of formula


def is_srgb(profile: bytes) -> bool:
    """Whether colours mean the same with this profile as without; False if it cannot be read."""
    return _cached(profile) if len(profile) <= _MAX_CACHED_BYTES else _is_srgb(profile)


def _is_srgb(profile: bytes) -> bool:
    try:
        tags = _tags(profile)
        if profile[36:40] != b"acsp" or not _LOOKUP_TABLES.isdisjoint(tags):
            return False
        if profile[16:20] == b"GRAY":
            return all(_is_srgb_curve(tags[name]) for name in _GREY_CURVE)
        return (
            profile[16:20] == b"RGB "
            and all(_is_near(tags[name], wanted) for name, wanted in _PRIMARIES.items())
            and all(_is_srgb_curve(tags[name]) for name in _COLOUR_CURVES)
        )
    except (KeyError, IndexError, struct.error, ArithmeticError, TypeError):  # TypeError: a complex power
        return False


_cached = lru_cache(maxsize=64)(_is_srgb)


def _tags(profile: bytes) -> dict[bytes, bytes]:
    (count,) = struct.unpack_from(">I", profile, _HEAD_BYTES)
    entries = struct.iter_unpack(">4sII", profile[_HEAD_BYTES + 4 :][: 12 * min(count, _MAX_TAGS)])
    return {name: profile[start : start + size] for name, start, size in entries}


def _is_near(tag: bytes, wanted: tuple[float, ...]) -> bool:
    found = (value / _ONE for value in struct.unpack_from(">3i", tag, 8))
    return all(abs(one - other) <= _TOLERANCE for one, other in zip(found, wanted, strict=True))


def _is_srgb_curve(tag: bytes) -> bool:
    curve = _parametric(tag) if tag[:4] == b"para" else _sampled(tag)
    return all(abs(_encoded(curve(place)) - place) <= _CURVE_TOLERANCE for place in _PLACES)


def _encoded(light: float) -> float:
    """Returns the value of sRGB for an amount of light."""
    return 12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055


def _sampled(tag: bytes) -> Callable[[float], float]:
    (count,) = struct.unpack_from(">I", tag, 8)
    if count == 0:
        return lambda place: place
    points = struct.unpack_from(f">{count}H", tag, 12)
    if count == 1:
        return lambda place: float(place ** (points[0] / 256))
    if list(points) != sorted(points):  # else it is near the right curve between the places, too
        raise ArithmeticError("the curve descends")
    pairs = list(pairwise(points))

    def between(place: float) -> float:
        whole, part = divmod(place * (count - 1), 1)
        low, high = pairs[int(whole)]
        return float((low + (high - low) * part) / 0xFFFF)

    return between


def _parametric(tag: bytes) -> Callable[[float], float]:
    """Reads the kinds of formula that have a straight part near black, as sRGB has."""
    (kind,) = struct.unpack_from(">H", tag, 8)
    values = [value / _ONE for value in struct.unpack_from(f">{_PARAMETERS[kind]}i", tag, 12)]
    power, a, b, c, d, e, f = (*values, 0.0, 0.0)[:7]
    return lambda place: float((a * place + b) ** power + e if place >= d else c * place + f)
